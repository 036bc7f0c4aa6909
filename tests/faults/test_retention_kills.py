"""`recorder retention apply --yes` killed behind each of its steps: nothing is lost or doubled, the next run goes on.

Where an archive and bars come first the steps are those of `STEPS`; the test sees that a run has no others. The steps
of moving are in `tests/integration/test_retention_tiers.py`, those inside a file of the archive and of restoring in
`tests/integration/test_archive_*.py` and `test_archive_restore_kills.py`.
"""

from __future__ import annotations

import pathlib

import pytest
from harness.backends import Place as DatabasePlace
from harness.killing import Killable

from retention.archive import FolderStore, Place, partition_of, read_files
from retention.archive.verify import check

FIRST_NS = 1_723_118_400_000_000_000  # 2024-08-08 12:00
DAY = Place("market_data", "2024-08-08")
SETTINGS = {
    "RECORDER_TABLES__MARKET_DATA__ARCHIVE_AFTER_DAYS": "5",
    "RECORDER_TABLES__MARKET_DATA__BARS": "true",
}
PRICES = (10.0, 20.0)
STEPS = (
    "begin",
    "bars of a second built",
    "bars of a minute built",
    "receipt of bars taken away",
    "receipt of bars",
    "draft",
    "file",
    "file taken away",
    "manifest",
    "receipt",
    "part dropped",
)
"""`file taken away` is of the one that the run killed behind `file` left. The very last step takes the receipt of bars
away, as one of those before `receipt of bars` does."""


class Made:
    """A data folder, and a database with rows of long ago."""

    def __init__(self, data_dir: pathlib.Path, place: DatabasePlace):
        self.data_dir, self.notes = data_dir, data_dir / "notes.txt"
        self.command = Killable(data_dir, place, SETTINGS, ("harness.retention_child", str(self.notes)))

    def noted(self) -> list[str]:
        """The steps since this was asked."""
        if not self.notes.exists():
            return []
        lines = self.notes.read_text().splitlines()
        self.notes.unlink()
        return lines

    def archived(self) -> list[float]:
        """The prices of rows in verified pieces."""
        store = FolderStore(self.data_dir / "archive")
        known = partition_of(store, DAY)
        pieces = [piece for piece in known.pieces if piece.receipt is not None]
        assert not pieces or check(store, DAY).faults == ()
        batches = [batch for piece in pieces for batch in read_files(piece.manifest, store)]
        return sorted(price for batch in batches for price in batch.column("last_price").to_pylist())


@pytest.mark.slow
def test_a_run_that_is_killed_behind_any_step_is_completed_by_the_next(
    embedded: None, place: DatabasePlace, tmp_path: pathlib.Path
) -> None:
    """One after the other, each run killed a step later than the one before; then nothing is due, every row is in the
    archive once, and its bars are right."""
    made = Made(tmp_path, place)
    made.command.done("migrate", "up")
    for number, price in enumerate(PRICES):
        at_ns = FIRST_NS + number * 10**9
        row = {"ts_local": at_ns, "ts_exchange": at_ns, "symbol": "BTCUSDT", "source": "binance.spot"}
        row |= {"flags": 1, "last_price": price, "last_qty": 2.0}
        made.command.ingested("market_data", row)
    apply = ("retention", "apply", "market_data", "--yes", "--json")
    seen: set[str] = set()
    for step in STEPS:
        made.command.killed(*apply, step=f"after {step}")
        seen |= set(made.noted())
        assert seen <= set(STEPS), "a step has no kill"
        if step in ("receipt", "part dropped"):
            assert made.archived() == [*PRICES]
    made.command.done(*apply, step="never")
    noted = made.noted()
    assert noted.count("part dropped") == 1
    assert set(noted) <= seen
    assert made.archived() == [*PRICES]
    found = made.command.asked(
        "SELECT (SELECT count() FROM market_data) AS left, (SELECT count() FROM market_bars_1s) AS seconds, open, "
        "high, low, close, trade_count, rows FROM market_bars_1m"
    )
    bar = {"open": 10.0, "high": 20.0, "low": 10.0, "close": 20.0, "trade_count": 2, "rows": 2}
    assert found == [{"left": 0, "seconds": 2} | bar]
