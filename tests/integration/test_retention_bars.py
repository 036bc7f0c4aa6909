"""Raw rows of market data go only after their bars are verified, whatever ends a run, and whatever comes late."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from harness.backends import Backend
from harness.bars_desk import ONE_M, ONE_S, Desk, ns
from harness.bars_plain import HOUR_NS, Said
from harness.retention_runs import Asked, Ended, Fatal, StoppingExecutor

from recorder.bars.proof import BarsProof
from recorder.bars.windows import ALL_BARS
from recorder.retaining.run import PartsSource
from retention.archive import FolderStore, Place, partition_of, places
from retention.due import Kind, Limits
from retention.policy import DAY_NS, RetentionPolicy
from retention.runner import Outcome, Runner, State, Subject
from schemas.core.tables import PACK
from schemas.executor import ClientExecutor
from schemas.policy import Partition

if TYPE_CHECKING:
    pass

S_NS = 10**9
MIDNIGHT = ns("00:00:00") + DAY_NS
FEED = ("binance.spot", "BTCUSDT")
BARRED = RetentionPolicy(table="market_data", partition=Partition.DAY, keep_days=7, bars=True)
(KEPT,) = (table.policy for table in PACK.tables if table.name == "market_data")
BUILD_DONE = (Kind.BUILD_BARS, State.DONE)
VERIFY_DONE = (Kind.VERIFY_BARS, State.DONE)
DROP_DONE = (Kind.DROP, State.DONE)
DROP_LEFT = (Kind.DROP, State.LEFT)


def trade(at: int, px: float = 100.0, **more: Any) -> Said:
    return Said(*FEED, at, (), trade=(px, 1.0), **more)


def quote(at: int, bid: float, ask: float) -> Said:
    return Said(*FEED, at, (), quote=(bid, ask))


class FatalChange(Fatal):
    """A store whose stop ends the process; only what changes it counts."""

    def read(self, name: str) -> bytes | None:
        """As the store."""
        return self.store.read(name)


class Lock:
    """The lock of a run: something may happen where it is taken, or before a step under it."""

    def __init__(self, at_lock: Callable[[], object], at_step: Callable[[], object]):
        self._at_lock, self._at_step = at_lock, at_step

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Lock]:
        self._at_lock()
        yield self

    def renew(self) -> None:
        """Before a drop."""
        self._at_step()


class Kept(Desk):
    """A desk, and runs of retention over its market data."""

    store: FolderStore

    def runner(
        self,
        *,
        now_ns: int = MIDNIGHT + 30 * DAY_NS,
        executor: ClientExecutor | None = None,
        store: Any = None,
        at_lock: Callable[[], object] = lambda: None,
        at_step: Callable[[], object] = lambda: None,
    ) -> Runner:
        executor = executor or self.executor

        def source(place: Place, parts: Sequence[str]) -> PartsSource:
            return PartsSource(Asked(self.client), self.database, place, parts)

        return Runner(
            executor,
            self.database,
            store=store or self.store,
            source_of=source,
            alter_ttl=lambda table: None,
            lock=Lock(at_lock, at_step),
            recorder_version="0",
            limits=Limits(settle_s=-1e12, merge_parts=100),
            now_ns=lambda: now_ns,
            barring=BarsProof(executor, self.database),
        )

    def run(self, policy: RetentionPolicy = BARRED, **how: Any) -> list[Outcome]:
        return list(self.runner(**how).run(Subject(policy, KEPT)))

    def rows(self) -> int:
        return int(self.executor.query(f"SELECT count() FROM {self.database}.market_data")[0][0])

    def all_bars(self) -> list[Any]:
        return [self.every_value(bars) for bars in ALL_BARS]

    def clear(self) -> None:
        self.empty("market_data", *(bars.stored for bars in ALL_BARS))
        self._seq = 0


@pytest.fixture(scope="module")
def tables(backend: Backend) -> Iterator[Kept]:
    """A database with the tables, for all tests of this file."""
    with backend.fresh_database() as name:
        kept = Kept(backend.client, name)
        backend.client.command(f"SYSTEM STOP MERGES {name}.market_data")
        yield kept


@pytest.fixture
def kept(tables: Kept, tmp_path: pathlib.Path) -> Kept:
    """The same without a row, and with an empty archive."""
    tables.clear()
    tables.store = FolderStore(tmp_path / "archive")
    return tables


def _told(outcomes: Sequence[Outcome]) -> list[tuple[Kind, State]]:
    return [(outcome.action.kind, outcome.state) for outcome in outcomes]


def _two_days(kept: Kept) -> None:
    """Rows on both sides of midnight, and a quote that holds over it."""
    kept.put([trade(MIDNIGHT - 20 * HOUR_NS), quote(MIDNIGHT - 5 * S_NS, 10.0, 12.0)])
    kept.put([trade(MIDNIGHT + S_NS, 101.0), trade(MIDNIGHT + 90 * S_NS, 102.0)])
    kept.put([trade(MIDNIGHT + 12 * HOUR_NS, 103.0)])


def test_days_go_one_by_one_and_their_bars_are_those_of_all_rows(kept: Kept) -> None:
    """The day that goes first takes no quote from the next day's first bar; the next day goes with that bar as it is.
    A day that is not to go yet is verified once, and not with every run."""
    _two_days(kept)
    kept.build(ONE_S)
    kept.build(ONE_M)
    wanted = kept.all_bars()
    assert kept.bars()[(*FEED, MIDNIGHT + S_NS)]["spread_mean"] == 2.0
    kept.empty(*(bars.stored for bars in ALL_BARS))
    first = MIDNIGHT + 7 * DAY_NS - S_NS
    assert _told(kept.run(now_ns=first)) == [BUILD_DONE, DROP_DONE, BUILD_DONE]
    assert kept.run(now_ns=first + S_NS) == []
    assert kept.rows() == 3
    assert _told(kept.run(now_ns=first + 2 * DAY_NS)) == [VERIFY_DONE, DROP_DONE]
    assert (kept.rows(), kept.all_bars()) == (0, wanted)
    assert kept.run() == []
    assert kept.store.files("") == []


def test_a_plan_shows_that_bars_come_first(kept: Kept) -> None:
    """Before: built, then dropped. The plan builds nothing."""
    kept.put([trade(MIDNIGHT)])
    actions = kept.runner().plan(Subject(BARRED, KEPT))
    assert [(action.kind, action.after) for action in actions] == [
        (Kind.BUILD_BARS, ()), (Kind.DROP, (Kind.BUILD_BARS,)),
    ]  # fmt: skip
    assert kept.all_bars() == [[], []]


# -- late rows --


def test_a_row_that_comes_between_verification_and_drop_is_in_the_bars_before_it_goes(kept: Kept) -> None:
    """Before the drop's action, or where it takes its lock: nothing goes, and the next run makes the bars of all."""
    kept.put([trade(MIDNIGHT), trade(MIDNIGHT + S_NS)])
    run = kept.runner().run(Subject(BARRED, KEPT))
    assert _told([next(run)]) == [BUILD_DONE]
    kept.put([trade(MIDNIGHT + 1, 200.0)])
    assert _told(list(run))[-1] == DROP_LEFT
    assert kept.rows() == 3
    late = lambda: kept.put([trade(MIDNIGHT + 2, 300.0)])  # noqa: E731
    assert _told(kept.run(at_lock=late)) == [BUILD_DONE, DROP_LEFT]
    assert kept.rows() == 4
    assert _told(kept.run()) == [BUILD_DONE, DROP_DONE]
    assert kept.rows() == 0
    assert kept.bars()[(*FEED, MIDNIGHT)]["high"] == 300.0
    assert sum(bar["trade_count"] for bar in kept.bars().values()) == 4


def test_a_row_that_comes_amid_the_drops_stays_and_is_told(kept: Kept) -> None:
    """It is in no bar, and none can be made with it, since the others are gone: it is not dropped, and a run says so.
    When the others are back, as from the archive, all go with right bars."""
    rows = [trade(MIDNIGHT), trade(MIDNIGHT + S_NS)]
    kept.put(rows)
    came = iter([lambda: kept.put([trade(MIDNIGHT + 1, 200.0)])])
    kept.client.command(f"CREATE TABLE {kept.database}.aside AS {kept.database}.market_data")
    kept.client.command(f"INSERT INTO {kept.database}.aside SELECT * FROM {kept.database}.market_data")
    try:
        assert _told(kept.run(at_step=lambda: next(came, lambda: None)())) == [BUILD_DONE, DROP_DONE]
        bars = kept.all_bars()
        for _ in range(2):
            failed, left = kept.run()
            assert (failed.action.kind, failed.state) == (Kind.BUILD_BARS, State.FAILED)
            assert "rows that its bars were made of are gone" in failed.told
            assert (left.action.kind, left.state) == (Kind.DROP, State.LEFT)
        assert (kept.rows(), kept.all_bars()) == (1, bars)
        kept.client.command(f"INSERT INTO {kept.database}.market_data SELECT * FROM {kept.database}.aside")
    finally:
        kept.client.command(f"DROP TABLE {kept.database}.aside")
    assert _told(kept.run()) == [BUILD_DONE, DROP_DONE]
    assert kept.rows() == 0
    assert kept.bars()[(*FEED, MIDNIGHT)]["trade_count"] == 2


# -- proof --


def test_archive_and_bars_both_come_first(kept: Kept) -> None:
    """Of the same parts; a row that comes between the two is in both before it goes. The archive's own list does not
    know the receipts of bars."""
    both = dataclasses.replace(BARRED, archive_after_days=2)
    kept.put([trade(MIDNIGHT)])
    run = kept.runner().run(Subject(both, KEPT))
    assert _told([next(run)]) == [BUILD_DONE]
    kept.put([trade(MIDNIGHT + 1)])
    assert _told(list(run)) == [(Kind.ARCHIVE, State.DONE), DROP_LEFT]
    assert kept.rows() == 2
    assert [place.table for place in places(kept.store)] == ["market_data"]
    assert _told(kept.run(both)) == [BUILD_DONE, (Kind.ARCHIVE, State.DONE), DROP_DONE]
    archived = partition_of(kept.store, Place("market_data", "2024-08-09"))
    assert (kept.rows(), archived.sums.rows, archived.verified) == (0, 2, True)
    assert kept.bars()[(*FEED, MIDNIGHT)]["trade_count"] == 2


def test_no_bars_are_made_of_other_tables(kept: Kept) -> None:
    """Where they are asked for all the same, rows stay, and a run says what to set."""
    kept.put([trade(MIDNIGHT)])
    outcome, left = kept.run(dataclasses.replace(BARRED, logical="fills"))
    assert (outcome.state, "set its bars to false" in outcome.told, left.state) == (
        State.LEFT,
        True,
        State.LEFT,
    )
    assert kept.rows() == 1


def test_bars_that_are_wrong_or_go_keep_their_rows(kept: Kept) -> None:
    """A value that the rows do not make; bars that somebody drops after they were verified."""
    kept.put([trade(MIDNIGHT)])
    kept.build(ONE_S)
    stored = f"{kept.database}.{ONE_S.stored}"
    kept.client.command(
        f"INSERT INTO {stored} SELECT * REPLACE (high + 1 AS high, _version + 1 AS _version) FROM {stored} FINAL"
    )
    assert _told(kept.run()) == [(Kind.BUILD_BARS, State.FAILED), DROP_LEFT]
    kept.empty(ONE_S.stored)
    run = kept.runner().run(Subject(BARRED, KEPT))
    next(run)
    kept.empty(ONE_M.stored)
    (outcome,) = run
    assert (outcome.state, "fewer bars" in outcome.told, kept.rows()) == (State.FAILED, True, 1)
    assert _told(kept.run()) == [VERIFY_DONE, DROP_DONE]
    assert len(kept.bars(ONE_M)) == 1


def test_own_values_that_are_wrong_are_found_in_an_hour_whose_day_before_went(kept: Kept) -> None:
    """Of the first hour after a day that went all is compared that its own rows make."""
    _two_days(kept)
    assert _told(kept.run(now_ns=MIDNIGHT + 7 * DAY_NS - S_NS)) == [BUILD_DONE, DROP_DONE, BUILD_DONE]
    stored = f"{kept.database}.{ONE_M.stored}"
    kept.client.command(
        f"INSERT INTO {stored} SELECT * REPLACE (close + 1 AS close, _version + 1 AS _version) FROM {stored} FINAL "
        f"WHERE ts = fromUnixTimestamp64Nano(toInt64({MIDNIGHT}))"
    )
    assert _told(kept.run()) == [(Kind.VERIFY_BARS, State.FAILED), DROP_LEFT]
    assert kept.rows() == 3


def test_a_venue_time_that_is_far_away_keeps_no_other_hour_from_being_proven(kept: Kept) -> None:
    """Years before: its bar is built as every other. Days after the local time: its rows are found all the same. Of the
    future: there is no bar yet, so its rows stay."""
    kept.put([trade(MIDNIGHT)])
    kept.put([trade(MIDNIGHT - 3_000 * DAY_NS)], local_behind_ns=-3_000 * DAY_NS)
    kept.put([trade(MIDNIGHT + 5 * DAY_NS)], local_behind_ns=5 * DAY_NS)
    assert _told(kept.run()) == [BUILD_DONE, DROP_DONE]
    assert (kept.rows(), len(kept.bars())) == (0, 3)
    kept.put([trade(MIDNIGHT + 9_000 * DAY_NS)], local_behind_ns=9_000 * DAY_NS)
    failed, left = kept.run()
    assert (failed.state, "venue time of the future" in failed.told) == (State.FAILED, True)
    assert (left.state, kept.rows()) == (State.LEFT, 1)


# -- stops --


def test_a_run_that_stops_at_any_step_is_completed_by_the_next(
    kept: Kept, embedded: None, tmp_path: pathlib.Path
) -> None:
    """Before each insert of bars, each drop of a part and each change of the store: the next run drops all, and bars
    are those of all rows. What is left of a partition amid its drops is dropped by the receipt."""
    days = (
        [quote(MIDNIGHT - 5 * S_NS, 10.0, 12.0)],
        [trade(MIDNIGHT + S_NS, 101.0)],
        [trade(MIDNIGHT + 90 * S_NS, 102.0)],
    )

    def put() -> None:
        kept.clear()
        for said in days:
            kept.put(said)

    put()
    kept.build(ONE_S)
    kept.build(ONE_M)
    wanted = kept.all_bars()

    def stops(what: str, number: int) -> bool:
        put()
        kept.store = FolderStore(tmp_path / f"{what}-{number}")
        how: dict[str, Any] = {"store": FatalChange(kept.store, number)}
        if what == "command":
            how = {"executor": StoppingExecutor(kept.client, number)}
        stopped = False
        try:
            kept.run(**how)
        except Ended:
            stopped = True
            assert all(state is State.DONE for _, state in _told(kept.run()))
        assert (kept.rows(), kept.all_bars()) == (0, wanted)
        return stopped

    # Two hours of two tables of bars, three parts; a receipt is put in place of another, and taken away, for each day.
    assert sum(itertools.takewhile(bool, (stops("command", n) for n in range(30)))) == 2 * 2 + 3
    assert sum(itertools.takewhile(bool, (stops("call", n) for n in range(30)))) == 2 * (2 + 1)


def test_what_is_left_amid_drops_is_not_dropped_with_a_row_that_came_since(kept: Kept) -> None:
    """The receipt speaks of other parts: nobody can tell whether that row is in the bars."""
    kept.put([trade(MIDNIGHT)])
    kept.put([trade(MIDNIGHT + S_NS)])
    with pytest.raises(Ended):
        kept.run(executor=StoppingExecutor(kept.client, 3))
    assert kept.rows() == 1
    kept.put([trade(MIDNIGHT + 5)])
    assert _told(kept.run()) == [(Kind.BUILD_BARS, State.FAILED), DROP_LEFT]
    assert kept.rows() == 2
