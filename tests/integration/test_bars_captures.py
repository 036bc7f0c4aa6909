"""Bars of recorded sessions equal those that plain Python makes of the venue's own messages, late rows included."""

from __future__ import annotations

import gzip
import pathlib
from typing import TYPE_CHECKING

import pytest
from harness.backends import Backend
from harness.bars_desk import Desk
from harness.bars_plain import Said, capture, differences, plain_bars

from recorder import Recorder, Settings
from recorder.bars.windows import ALL_BARS
from recorder.ingest import IngestOptions, run_ingest

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

pytestmark = pytest.mark.captures
FOLDER = "binance-captures"
USDM = "usdm_btcusdt_20240808.gz"
SPOT = ("spot_btcusdt_20240808.gz", "spot_btcusdt_20240809.gz")
LATE_EVERY = 5


def ingest(backend: Backend, database: str, data_dir: pathlib.Path, *files: pathlib.Path) -> None:
    settings = Settings(
        target=backend.target,
        database=database,
        data_dir=data_dir,
        base={"ttl": False, "migrate_on_start": True},
    )
    with Recorder(settings) as recorder:
        assert run_ingest(recorder, files, IngestOptions()).ok


def said_in(*files: pathlib.Path) -> list[Said]:
    return [
        one._replace(place=(one.place[0], number, one.place[1]))
        for number, path in enumerate(files)
        for one in capture(path)
    ]


def test_bars_of_all_captures(
    captures: pathlib.Path, backend: Backend, client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """Every value of every bar, after bars were built between the files: the files of spot share an hour, and the
    first one's rows of it come after it was built."""
    files = [captures / FOLDER / name for name in (USDM, *SPOT)]
    desk = Desk(client, database, migrate=False)
    for path in reversed(files):
        ingest(backend, database, tmp_path, path)
        for bars in ALL_BARS:
            assert desk.build(bars).kept == 0
    said = said_in(*files)
    assert {len(desk.bars(bars)) for bars in ALL_BARS} == {997, 19}
    for bars in ALL_BARS:
        assert differences(plain_bars(said, bars.window_ns), desk.bars(bars)) == []
        built = desk.every_value(bars)
        desk.empty(bars.stored)
        desk.build(bars)
        assert desk.every_value(bars) == built


def test_rows_of_a_capture_that_come_late(
    captures: pathlib.Path, backend: Backend, client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """One row in five of a session comes when all its windows are closed and built; bars are those of all rows."""
    with gzip.open(captures / FOLDER / USDM) as lines:
        said = [line for line in lines if b"@trade" in line[:60]]
    early, late = tmp_path / f"early_{USDM}", tmp_path / f"late_{USDM}"
    early.write_bytes(gzip.compress(b"".join(line for n, line in enumerate(said) if n % LATE_EVERY), 1))
    late.write_bytes(gzip.compress(b"".join(said[::LATE_EVERY]), 1))
    desk = Desk(client, database, migrate=False)
    for files in ([early], [early, late]):
        ingest(backend, database, tmp_path, files[-1])
        so_far = said_in(*files)
        for bars in ALL_BARS:
            desk.build(bars)
            assert differences(plain_bars(so_far, bars.window_ns), desk.bars(bars)) == []
            assert desk.verify(bars).faults == ()
