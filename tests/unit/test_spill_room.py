"""A batch that is spilled goes to the log whole, or waits: nothing of it is written for nothing, at whatever try."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pyarrow as pa
import pytest
from harness.table_logs import table_log_of
from harness.wal_log import OneThread

from recorder import table_log
from recorder.batch import Batch
from recorder.table_log import TableLog
from schemas.core.tables import PACK
from wal.options import LogOptions
from wal.writer import LogWriter

TABLE = PACK.table("system_events")
MOST = 4_194_304
TRIES = 100


@pytest.fixture
def commit() -> OneThread:
    """Nothing is written but when the test says so."""
    return OneThread()


@pytest.fixture
def log(tmp_path: pathlib.Path, commit: OneThread, monkeypatch: pytest.MonkeyPatch) -> Iterator[TableLog]:
    monkeypatch.setattr(table_log, "SPILL_BYTES", MOST // 4)
    options = LogOptions(pending_bytes_max=MOST)
    writer = LogWriter.open(tmp_path, TABLE.name, TABLE.schema, commit=commit, options=options)
    yield table_log_of(TABLE, writer, tmp_path)
    write(commit, writer)
    writer.close(5)


def write(commit: OneThread, writer: LogWriter) -> None:
    while writer.stats().unsynced_rows:
        commit.due(writer, now=True)


def batch(nbytes: int) -> Batch:
    """A batch of rows of about a kilobyte."""
    count = nbytes // 1_000
    columns = [
        pa.array(["x" * 900] * count).cast(field.type)
        if field.name == "payload"
        else pa.array([0] * count, pa.int64()).cast(field.type)
        if pa.types.is_integer(field.type) or pa.types.is_timestamp(field.type)
        else pa.array([""] * count).cast(field.type)
        for field in TABLE.schema
    ]
    return Batch(TABLE.name, pa.RecordBatch.from_arrays(columns, schema=TABLE.schema), 0)


def test_a_batch_without_room_waits_until_there_is(log: TableLog, commit: OneThread) -> None:
    """Asked a hundred times it writes nothing; it goes there whole when what was before it is written."""
    writer = log.writer
    assert log.spill(batch(MOST // 2)).places
    first = writer.stats()
    large = batch(MOST * 3 // 4)
    assert first.rows_appended
    for _ in range(TRIES):
        assert log.spill(large) is large
    assert writer.stats().rows_appended == first.rows_appended
    assert "has no room beside what waits" in log.trouble()
    write(commit, writer)
    placed = log.spill(large)
    assert sum(one.rows for one in placed.places) == large.rows
    assert log.trouble() == ""
    assert writer.stats().rows_appended == first.rows_appended + large.rows
    assert not log.done.checkpoint.settled


def test_a_batch_that_can_have_no_room_is_tried_once(log: TableLog, commit: OneThread) -> None:
    """It is larger than all that may wait. Others go there."""
    writer, large = log.writer, batch(2 * MOST)
    assert log.spill(large) is large
    tried_rows = writer.stats().rows_appended
    assert tried_rows < large.rows
    for _ in range(TRIES):
        write(commit, writer)
        assert log.spill(large) is large
    assert writer.stats().rows_appended == tried_rows
    assert "lower batch_bytes" in log.trouble()
    assert log.spill(batch(10_000)).places


def test_that_there_was_no_room_is_no_trouble_once_there_is(log: TableLog, commit: OneThread) -> None:
    """Also where nothing is put there any more: what waited may have gone into the database meanwhile."""
    assert log.spill(batch(MOST // 2)).places
    large = batch(MOST * 3 // 4)
    assert log.spill(large) is large
    assert "has no room" in log.trouble()
    write(commit, log.writer)
    assert log.trouble() == ""
