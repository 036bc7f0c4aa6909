"""What a table's log makes of the database's answer: which run of it confirmed rows, and when they are settled."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Iterator

import pytest
from harness.table_logs import table_log_of

from recorder.sink.base import ServerInfo
from recorder.table_log import TableLog
from schemas.core.tables import PACK
from wal.commit import GroupCommit
from wal.places import Range
from wal.writer import LogWriter

TABLE = PACK.table("fills")
FIRST, SECOND = ServerInfo("26", "a", 1_000), ServerInfo("26", "a", 2_000)
NS_PER_S = 1_000_000_000


@pytest.fixture
def log(tmp_path: pathlib.Path) -> Iterator[TableLog]:
    commit = GroupCommit(group_ms=0)
    writer = LogWriter.open(tmp_path, TABLE.name, TABLE.schema, commit=commit)
    yield table_log_of(TABLE, writer, tmp_path)
    writer.close(5)
    commit.close(5)


def test_what_was_confirmed_settles_only_while_the_database_is_seen(
    log: TableLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the grace period after the confirmation, and not as time goes by while it is away: it may be without power,
    and what it had not synced gone."""
    now_ns = time.time_ns()
    rows = Range(log.writer.epoch, 0, 10)
    log.done.server_is(FIRST, now_ns)
    log.confirm([rows], log.done.server, letters=False)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns + 3_600 * NS_PER_S)
    log.done.settle(0.0)
    assert log.done.checkpoint.settled == ()
    log.done.server_is(FIRST, now_ns + 2 * NS_PER_S)
    log.done.settle(10.0)
    assert log.done.checkpoint.settled == ()
    log.done.settle(0.0)
    assert log.done.checkpoint.settled == (rows,)


def test_what_was_confirmed_across_a_restart_is_looked_up(log: TableLog) -> None:
    """It was sent to one run, and the yes came after the next one was seen: it is asked for once, and settles then."""
    now_ns = time.time_ns()
    rows = Range(log.writer.epoch, 0, 10)
    log.done.server_is(FIRST, now_ns)
    sent_to = log.done.server
    assert log.done.server_is(SECOND, now_ns) == ()
    log.confirm([rows], sent_to, letters=False)
    assert log.done.server_is(SECOND, now_ns) == (rows,)
    assert log.done.server_is(SECOND, now_ns) == ()
    log.confirm([rows], log.done.server, letters=False)
    log.done.server_is(SECOND, now_ns + 5 * NS_PER_S)
    log.done.settle(0.0)
    assert log.done.checkpoint.settled == (rows,)
