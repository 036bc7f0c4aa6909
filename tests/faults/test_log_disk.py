"""The disk of the log fills up while the database is away: a real small disk, a real recorder, nothing durable lost."""

from __future__ import annotations

import os
import pathlib
import threading
from typing import Any

import pytest
from harness.recorders import WAIT_S, faulty, in_trouble, order, rows, settings_for, wait_until

from recorder import Recorder, Settings
from recorder.errors import NotDurable
from recorder.sink.errors import SinkUnavailable
from recorder.table_log import TableLog

pytestmark = pytest.mark.root

MIB = 1_048_576
AWAY = SinkUnavailable("connection refused")
WIDE = 4_000
"""Bytes of a row that no compression makes smaller by much."""


class SmallDisk:
    """A mounted disk, and a file on it that leaves others as much as one likes."""

    def __init__(self, mount: pathlib.Path):
        self.mount = mount
        self._filler = mount / "filler"

    def leave(self, nbytes: int) -> None:
        """Take what is free but for so much; more than before, or less."""
        self._filler.unlink(missing_ok=True)
        disk = os.statvfs(self.mount)
        fd = os.open(self._filler, os.O_WRONLY | os.O_CREAT)
        os.posix_fallocate(fd, 0, disk.f_bavail * disk.f_frsize - nbytes)
        os.close(fd)

    def clear(self) -> None:
        self._filler.unlink()


@pytest.fixture
def disk(mount: pathlib.Path) -> SmallDisk:
    return SmallDisk(mount)


@pytest.fixture
def settings(mount: pathlib.Path, chdb_path: pathlib.Path, database: str) -> Settings:
    """The log on the small disk, the database on another; a queue that is soon full."""
    small = {"queue_rows": 500, "batch_rows": 400, "linger_ms": 5, "linger_max_ms": 20}
    return settings_for(
        chdb_path, database, mount / "data", shutdown_timeout_s=2, alarm_clear_s=0.1, alarm_loss_s=0.1,
        wal_min_minutes=0, tables={"orders": small},
    )  # fmt: skip


def log_of(recorder: Recorder, table: str = "orders") -> TableLog:
    found = recorder._life.running()[0].pipelines[table].wal
    assert found is not None
    return found


def disk_of(recorder: Recorder) -> dict[str, Any]:
    found: dict[str, Any] | None = recorder.status()["log_disk"]
    return found or {"level": "", "why": ""}


def at_level(recorder: Recorder, level: str) -> None:
    wait_until(lambda: disk_of(recorder)["level"] == level, f"level {level}")


def alarm(recorder: Recorder) -> str:
    """Why the alarm of the disk stands; empty while it does not."""
    return "".join(one["why"] for one in recorder.status()["alarms"] if one["alarm"] == "RecorderWalDisk")


def put(recorder: Recorder, numbers: range, wide: int = 0) -> list[int]:
    """Which of these orders were accepted."""
    texts = (os.urandom(wide // 2).hex() for _ in numbers)
    return [
        n
        for n, text in zip(numbers, texts, strict=True)
        if recorder.record("orders", order(n, correlation_id=text))
    ]


def put_durable(recorder: Recorder, numbers: range, wide: int = 0) -> list[int]:
    """These orders, on the log; no more at once than the queue takes."""
    for start in range(numbers.start, numbers.stop, 200):
        part = range(start, min(start + 200, numbers.stop))
        assert len(put(recorder, part, wide)) == len(part)
        recorder.sync(WAIT_S)
    return list(numbers)


def stored(recorder: Recorder) -> list[int]:
    """The numbers of the orders that are in the table."""
    return sorted(int(name[2:]) for (name,) in rows(recorder, "SELECT client_order_id FROM orders"))


def gaps(recorder: Recorder, reason: str) -> list[tuple[int, str]]:
    return [
        (count, detail)
        for count, detail in rows(
            recorder,
            f"SELECT rows, detail FROM recorder_gaps WHERE table_name = 'orders' AND reason = '{reason}'",
        )
    ]


def dropped_rows(recorder: Recorder) -> int:
    return int(recorder.status()["tables"]["orders"]["shed"].get("log_dropped", 0))


def until_all_is_in(recorder: Recorder, received: int) -> None:
    """All rows that were ever received are accounted for, and nothing waits."""
    recorder.flush(WAIT_S)
    wait_until(lambda: recorder.balance()["orders"].pending == 0)
    assert recorder.balance()["orders"].received == received
    assert recorder.balance()["orders"].exact


def test_a_disk_that_fills_up_in_an_outage_costs_no_durable_row(disk: SmallDisk, settings: Settings) -> None:
    """Level by level, each told; then the reserve is freed; then rows wait in memory; then they are shed, counted and
    told in gap rows; with room again it all goes on by itself.
    """
    reserve = settings.data_dir / "wal" / "RESERVE"
    with in_trouble(settings, "orders", AWAY) as (recorder, mend):
        durable = put_durable(recorder, range(1_000))
        at_level(recorder, "ok")
        wait_until(reserve.exists, "the reserve")
        assert not alarm(recorder)
        for left, level in ((10 * MIB, "warning"), (5 * MIB, "emergency")):
            disk.leave(left)
            at_level(recorder, level)
            wait_until(lambda: str(disk.mount) in alarm(recorder), "the alarm")
            durable += put_durable(recorder, range(len(durable), len(durable) + 100))
        disk.leave(2 * MIB)
        at_level(recorder, "reserve")
        assert not reserve.exists()
        durable += put_durable(recorder, range(len(durable), len(durable) + 100))

        disk.leave(MIB)
        at_level(recorder, "full")
        wait_until(lambda: bool(log_of(recorder).no_room))
        wait_until(lambda: "is full" in alarm(recorder), "the alarm")
        first = len(durable)
        waiting = put(recorder, range(first, first + 3_000))
        assert 500 <= len(waiting) < 3_000, "as many as memory holds"
        with pytest.raises(NotDurable):
            recorder.sync(0.2)
        shed = 3_000 - len(waiting)
        wait_until(lambda: recorder.balance()["orders"].shed == shed)
        balance = recorder.balance()["orders"]
        assert (balance.received, balance.pending, balance.exact) == (
            first + 3_000,
            first + len(waiting),
            True,
        )

        disk.clear()
        at_level(recorder, "ok")
        wait_until(reserve.exists, "the reserve")
        wait_until(lambda: not alarm(recorder), "the end of the alarm")
        mend()
        wait_until(lambda: recorder.balance()["orders"].pending == 0, "what memory held")
        later = put(recorder, range(10_000, 10_100))
        until_all_is_in(recorder, first + 3_000 + 100)
        assert stored(recorder) == sorted([*durable, *waiting, *later])
        assert sum(count for count, _ in gaps(recorder, "full")) == shed
        wait_until(lambda: not alarm(recorder))
        put(recorder, range(20_000, 20_001))
        recorder.sync(WAIT_S)  # of the log, again
    assert not reserve.exists(), "it is needed by nobody who does not write"


def test_it_starts_on_a_full_disk(disk: SmallDisk, settings: Settings) -> None:
    """With what an earlier run left: that and new rows get in, from memory; with room again they are logged."""
    with in_trouble(settings, "orders", AWAY) as (recorder, _):
        put(recorder, range(100))
    disk.leave(200_000)
    with Recorder(settings) as recorder:
        at_level(recorder, "full")
        wait_until(lambda: bool(log_of(recorder).no_room))
        put(recorder, range(100, 200))
        until_all_is_in(recorder, 200)
        assert stored(recorder) == list(range(200))
        assert log_of(recorder).refused_rows
        assert "is full" in disk_of(recorder)["why"]
        disk.clear()
        wait_until(lambda: not log_of(recorder).no_room)
        put(recorder, range(200, 300))
        recorder.sync(WAIT_S)
        wait_until(lambda: log_of(recorder).writer.synced_rows > 0)
        until_all_is_in(recorder, 300)


def test_a_second_folder_takes_over_and_the_next_run_sends_both(
    disk: SmallDisk, settings: Settings, tmp_path: pathlib.Path
) -> None:
    """While the first one's disk is full, and in a run that finds it gone; when it is back its rows are sent, too, and
    none is there twice.
    """
    settings = settings.model_copy(update={"wal_second_dir": tmp_path / "second", "wal_reserve_bytes": 0})
    second, wal = tmp_path / "second" / "orders", settings.data_dir / "wal"
    with in_trouble(settings, "orders", AWAY) as (recorder, _):
        numbers = put_durable(recorder, range(400), WIDE)
        disk.leave(MIB)
        wait_until(lambda: f"the disk of {wal} is full" in disk_of(recorder)["why"])
        assert disk_of(recorder)["level"] != "full"
        numbers += put_durable(recorder, range(400, 2_000), WIDE)
        wait_until(lambda: any(second.glob("*.wal")), "segments in the second folder")
        assert any((wal / "orders").glob("*.wal"))
    assert numbers == list(range(2_000))
    disk.clear()

    away = settings.data_dir / "away"
    wal.rename(away)
    wal.write_bytes(b"no folder")
    with Recorder(settings) as recorder:
        assert log_of(recorder).folder == second
        wait_until(lambda: recorder.balance()["orders"].inserted > 0)
        until_all_is_in(recorder, recorder.balance()["orders"].received)
        there = stored(recorder)
        assert 0 < len(there) < 2_000
    wal.unlink()
    away.rename(wal)
    with Recorder(settings) as recorder:
        wait_until(lambda: len(stored(recorder)) >= 2_000, "what the first folder has")
        until_all_is_in(recorder, recorder.balance()["orders"].received)
        assert stored(recorder) == numbers


def test_a_quota_is_kept_until_what_it_holds_is_settled(settings: Settings) -> None:
    """However much the disk has left; rows that the log does not take go in from memory, and it goes on by itself."""
    settings = settings.model_copy(update={"wal_quota_bytes": 12 * MIB, "wal_grace_s": 0.1})
    with in_trouble(settings, "orders", AWAY) as (recorder, mend):
        accepted: list[int] = []
        tried = 0

        def full() -> bool:
            nonlocal tried
            accepted.extend(put(recorder, range(tried, tried + 50), WIDE))
            tried += 50
            return disk_of(recorder)["level"] == "full"

        wait_until(full, "the quota is full")
        wait_until(lambda: "of the quota of the logs is taken" in alarm(recorder), "the alarm")
        mend()
        wait_until(lambda: disk_of(recorder)["level"] == "ok", "room, when what was logged is settled")
        until_all_is_in(recorder, tried)
        assert stored(recorder) == accepted


def test_with_drop_oldest_what_is_lost_is_named(disk: SmallDisk, settings: Settings) -> None:
    """New rows take the room of the oldest ones, after the alarm; each of those is counted and told, none else is lost,
    and the table has all others.
    """
    settings = settings.model_copy(update={"wal_emergency": "drop_oldest"})
    accepted: list[int] = []
    tried = 0
    with in_trouble(settings, "orders", AWAY) as (recorder, mend):
        at_level(recorder, "ok")
        disk.leave(9 * MIB)

        def more() -> bool:
            nonlocal tried, accepted
            accepted += put(recorder, range(tried, tried + 50), WIDE)
            tried += 50
            return dropped_rows(recorder) > 500

        wait_until(more, "segments that are dropped")
        assert log_of(recorder).writer.segments()[0].number > 1
        assert alarm(recorder)
        disk.clear()
        wait_until(lambda: not log_of(recorder).no_room)
        mend()
        recorder.flush(WAIT_S)
        wait_until(lambda: recorder.balance()["orders"].pending == 0)
        balance = recorder.balance()["orders"]
        assert balance.exact
        dropped = gaps(recorder, "log_dropped")
        assert sum(count for count, _ in dropped) == dropped_rows(recorder)
        assert all("log segment" in detail for _, detail in dropped)
        assert f"{log_of(recorder).writer.epoch:016x}" in dropped[0][1]
        there = stored(recorder)
        assert len(there) == len(set(there)) == balance.inserted
        missing = set(accepted) - set(there)
        assert len(missing) == dropped_rows(recorder)
        assert max(missing) < min(accepted[-400:]), "the newest are there"


def test_with_drop_oldest_what_an_earlier_run_left_goes_first(disk: SmallDisk, settings: Settings) -> None:
    """Though no database has answered yet: it counts as received, and as shed."""
    settings = settings.model_copy(update={"wal_emergency": "drop_oldest"})
    with in_trouble(settings, "orders", AWAY) as (recorder, _):
        put_durable(recorder, range(1_200), WIDE)
    disk.leave(MIB // 2)
    sink = faulty(settings)
    start, answers = sink.start, threading.Event()

    async def start_later() -> Any:
        if answers.is_set():
            return await start()
        raise AWAY

    sink.start = start_later  # type: ignore[method-assign]
    with Recorder(settings, sink=sink, wait_for_database=True) as recorder:
        wait_until(lambda: recorder.balance()["orders"].shed > 0, "a segment that is dropped")
        balance = recorder.balance()["orders"]
        assert balance.received == balance.shed
        disk.clear()
        at_level(recorder, "ok")
        answers.set()
        wait_until(lambda: recorder.balance()["orders"].received == 1_200)
        until_all_is_in(recorder, 1_200)
        balance = recorder.balance()["orders"]
        assert len(stored(recorder)) == balance.inserted == 1_200 - balance.shed
