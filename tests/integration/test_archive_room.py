"""A run of retention leaves room on the disk that it archives to."""

from __future__ import annotations

import pathlib
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from harness.backends import Backend
from harness.recorders import settings_for

from recorder import archive_room
from recorder.archive_room import see_room
from recorder.retaining.book import Ended, Told
from recorder.retaining.run import runner_of, said
from retention.errors import StoreError
from retention.live_facts import server_time_ns
from retention.policy import DAY_NS
from schemas.core.tables import PACK
from schemas.executor import ClientExecutor
from schemas.manager import Manager

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

FIRST_NS = 1_723_075_200_000_000_000  # 2024-08-08


def _disk(total: int, free: int) -> Any:
    return lambda path: shutil._ntuple_diskusage(total, total - free, free)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("total", "free", "enough"),
    [
        (1 << 40, 1 << 30, True),
        (1 << 40, (1 << 30) - 1, False),
        (1 << 30, (1 << 30) // 10, True),
        (1 << 30, (1 << 30) // 10 - 1, False),
        (1 << 30, 0, False),
    ],
)
def test_a_gibibyte_or_a_tenth_stays_free(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, total: int, free: int, enough: bool
) -> None:
    """Of the disk of a folder that need not be there yet."""
    monkeypatch.setattr(archive_room.shutil, "disk_usage", _disk(total, free))
    if enough:
        see_room(tmp_path / "not" / "yet")
        return
    with pytest.raises(StoreError, match="make room"):
        see_room(tmp_path / "not" / "yet")


def test_a_small_disk_is_told_in_tenths(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as 0 MiB, of which at least 0 MiB are expected."""
    monkeypatch.setattr(archive_room.shutil, "disk_usage", _disk(3 << 20, 1 << 17))
    with pytest.raises(StoreError, match=r": 0\.1 MiB are free on its disk, expected at least 0\.3 MiB"):
        see_room(tmp_path)


def test_a_partition_for_which_there_is_no_room_stays_and_goes_later(
    client: Client, backend: Backend, database: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is left in the archive, and that is a failure; with room again the next run does it."""
    if backend.embedded:
        pytest.skip("the engine is open here, and a run opens it for itself")
    settings = settings_for(backend, database, tmp_path, tables={"market_data": {"archive_after_days": 5}})
    executor = ClientExecutor(client)
    Manager(executor, [PACK], database).up()
    client.command(f"ALTER TABLE {database}.market_data REMOVE TTL")
    client.command(
        f"INSERT INTO {database}.market_data (ts_local, symbol, _log, _seq) "
        f"SELECT fromUnixTimestamp64Nano({FIRST_NS} + toInt64(number), 'UTC'), 'BTCUSDT', 7, number FROM numbers(10)"
    )

    def run() -> tuple[list[tuple[str, str]], Ended]:
        at_ns = server_time_ns(executor) + DAY_NS
        *told, end = said(settings, [PACK], runner_of(settings, [PACK], writes=True, at_ns=at_ns))
        return [(one.kind, one.state) for one in told if isinstance(one, Told)], end.how  # type: ignore[union-attr]

    with monkeypatch.context() as full:
        full.setattr(archive_room.shutil, "disk_usage", _disk(1 << 40, 1 << 20))
        assert run() == ([("archive", "failed"), ("drop", "left")], Ended.DONE)
    assert client.query(f"SELECT count() FROM {database}.market_data").result_rows == [(10,)]
    assert not [file for file in (tmp_path / "archive").rglob("*") if file.is_file() and file.name != ".lock"]
    assert run() == ([("archive", "done"), ("drop", "done")], Ended.DONE)
    assert client.query(f"SELECT count() FROM {database}.market_data").result_rows == [(0,)]
