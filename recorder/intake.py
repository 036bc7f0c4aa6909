"""Where rows come in, from any thread: single rows, columns, and rows of files and buses.

`record` is the producer's whole cost. What can wait is left to the recorder's thread: a row is looked at there, and one
that is wrong makes a dead letter.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, overload

import pyarrow as pa

from recorder.arrow_rows import exact_columns, own_rows
from recorder.correlation import correlation_id as context_correlation_id
from recorder.door import Door
from recorder.entries import ArrowBlock, Entry, Watched
from recorder.identity import letter_log
from recorder.lifecycle import Lifecycle, State
from recorder.own_rows import DEAD_LETTERS
from recorder.settings import Settings
from recorder.settling import Handover, Told, unkept_letters
from recorder.source_rows import SourceRow, SourceRows, blocks_of, by_table
from recorder.ticket import Ticket
from schemas.table import Table

ARROW_BLOCK_ROWS = 2_048
"""Arrow rows are taken up in blocks of so many, so that a full queue sheds blocks and not whole tables."""


class Intake:
    """See the module. What a `Recorder` is to those who have rows; its base, so that `record` is one call.

    `life` says whether it takes rows, and has the doors of `tables`. Of `settings` counts what they say at the start.
    """

    def __init__(
        self, life: Lifecycle, tables: Mapping[str, Table], settings: Settings, *, recorder_run_id: str
    ):
        self.recorder_run_id = recorder_run_id
        self._life = life
        self._doors = life.doors
        self._tables = tables
        self._settings_at_start = settings

    @overload
    def record(
        self, table: str, row: Any, *, correlation_id: str | None = None, ticket: Literal[False] = False
    ) -> bool: ...

    @overload
    def record(
        self, table: str, row: Any, *, correlation_id: str | None = None, ticket: Literal[True]
    ) -> Ticket: ...

    def record(
        self, table: str, row: Any, *, correlation_id: str | None = None, ticket: bool = False
    ) -> bool | Ticket:
        """Hand one row over; True if it was accepted, False if it was shed (and counted).

        `row` is an object of the table's row class, a mapping (copied) or a tuple in the row class's order. Objects
        and tuples are handed over: they must not be changed afterwards. What is wrong with a row is found later, and
        makes a dead letter. With `ticket` the answer can be waited for.

        Raises:
            UnknownTable: no loaded pack has the table.
            RecorderClosed, RecorderForked: there is no recorder to take it.
        """
        door = self._doors.get(table)
        if door is None:
            raise self._life.shut(table)
        kind = type(row)
        if kind is dict:
            row = row.copy()
            if door.nested:
                door.detach(row)
        elif kind is not tuple and kind is not door.row and isinstance(row, Mapping):
            with contextlib.suppress(Exception):  # one that cannot be copied becomes a dead letter
                row = dict(row)
                door.detach(row)
        if not door.enabled:
            door.filtered_rows += 1
            return self._ticket(door, (row, 0, None, 0)) if ticket else False
        entry = (
            row,
            time.monotonic_ns(),
            correlation_id or context_correlation_id.get(),
            door.wide_bytes(row) if door.has_wide else 0,
        )
        return self._ticket(door, entry) if ticket else door.queue.put(entry)

    def _ticket(self, door: Door, entry: Entry) -> Ticket:
        """Hand a row over that somebody waits for."""
        runtime, loop = self._life.running()
        table = door.table.name
        pipeline = runtime.pipelines[table]
        before = runtime.letters(table)
        watched = Watched(entry)
        accepted = door.enabled and door.queue.put(watched)
        position: list[int] = []
        with contextlib.suppress(RuntimeError):  # the recorder has closed meanwhile: who waits will be told
            # Taken on the loop, before anything that is asked of it later: here a drain under way would hide rows.
            loop.call_soon_threadsafe(lambda: position.append(pipeline.position))

        def durable() -> Coroutine[Any, Any, bool]:
            if self._life.state is State.FORKED:
                raise self._life.shut(table)

            async def wait() -> bool:
                return await runtime.row_durable(table, position[0], before)

            return wait()

        return Ticket(accepted, watched, loop, durable)

    def _door(self, table: str) -> Door:
        """A table's door; raises why there is none."""
        door = self._doors.get(table)
        if door is None:
            raise self._life.shut(table)
        return door

    def record_batch(self, table: str, data: pa.Table | pa.RecordBatch) -> int:
        """Hand over rows that are Arrow columns already; the number accepted.

        Columns may be in any order and of any type that casts exactly; rows whose values a column refuses become
        dead letters, each by itself. Rows go in blocks of at most 2,048; what a full queue does with a block is its
        overflow policy: `drop_oldest`, `conflate` and `sample` displace the oldest rows for it.

        Raises:
            WrongColumns: a column is unknown, missing without a default, or of a wrong type.
            UnknownTable, RecorderClosed, RecorderForked: as `record`.
        """
        door = self._door(table)
        if not door.enabled:
            door.filtered_rows += data.num_rows
            return 0
        batches = data.to_batches(max_chunksize=ARROW_BLOCK_ROWS) if isinstance(data, pa.Table) else [data]
        ignore = self._ignores_unknown(table)
        accepted = 0
        for batch in batches:
            good, others = exact_columns(door.table, batch, ignore_unknown=ignore)
            for start in range(0, good.num_rows, ARROW_BLOCK_ROWS):
                block = own_rows(good.slice(start, ARROW_BLOCK_ROWS))
                accepted += door.queue.put_block(
                    ArrowBlock(block, time.monotonic_ns(), block.nbytes), wait=False
                )
            accepted += sum(self.record(table, row) for row in others)
        return accepted

    def _ignores_unknown(self, table: str) -> bool:
        """Whether columns that a table does not have are left out: as at the start, for rows of all kinds."""
        return self._settings_at_start.for_table(self._tables[table]).unknown_fields == "ignore"

    def record_source(
        self, log: int, entries: Iterable[SourceRow], *, wait: bool = True, timeout_s: float | None = None
    ) -> int:
        """Hand over rows of a file or a bus, which keep that source's identities; the number accepted.

        With `wait` the call waits for room in the queues and sheds nothing (until `timeout_s`, each table); without,
        the overflow policy decides. Rows must carry `ts_local`: it is part of the question whether the table has
        them already.

        Raises:
            ValueError: `log` or a `seq` is no unsigned 64-bit integer; before any row was taken.
            UnknownTable, RecorderClosed, RecorderForked: as `record`; before any row was taken.
        """
        accepted = 0
        for door, block in blocks_of(log, by_table(entries), self._door):
            accepted += door.queue.put_block(block, wait=wait, timeout_s=timeout_s)
        return accepted

    def deliver(
        self,
        log: int,
        parts: Iterable[SourceRows],
        told: Told,
        *,
        fresh: bool = False,
        refused: Collection[str] = (),
    ) -> list[Handover]:
        """Hand over rows that a bus delivered, without waiting: the overflow policy decides where a queue is full.

        What is returned, one a table that took its rows, is to be given to `settle` (rows of several calls together),
        which says when they are durable. `fresh` says that nobody ever had these rows before. Rows of tables in
        `refused` are shed, and counted, as if their queues were full.

        Raises:
            ValueError, UnknownTable, RecorderClosed, RecorderForked: as `record_source`.
        """
        runtime, _ = self._life.running()
        handovers = []
        for door, block in blocks_of(log, parts, self._door):
            table = door.table.name
            if table in refused:
                door.queue.refuse(len(block.rows), "held")
                continue
            unkept = unkept_letters(runtime.pipelines[DEAD_LETTERS])
            handover = Handover(table, len(block.rows), runtime.pipelines[table].dead_rows, unkept)
            gone = functools.partial(runtime.settling.displaced, handover, told)
            if door.queue.put_block(replace(block, fresh=fresh, displaced=gone), wait=False):
                handovers.append(handover)
        return handovers

    def settle(self, handovers: Sequence[Handover], told: Told) -> None:
        """Have `told` called, on the recorder's loop, with these as they are settled: their rows durable, or shed.

        Raises:
            RecorderClosed, RecorderForked: there is no recorder to wait for.
        """
        runtime, loop = self._life.running()
        with contextlib.suppress(RuntimeError):  # it has closed just now, and tells of nothing any more
            loop.call_soon_threadsafe(runtime.settling.track, handovers, told)

    def dead_letter(
        self,
        *,
        reason: str,
        detail: str,
        payload: bytes,
        origin: str = "",
        payload_format: str = "binary",
        log: int | None = None,
        seq: int | None = None,
        table: str = "",
        ts_local: int = 0,
        wait: bool = False,
    ) -> bool:
        """Keep a message that cannot be made into rows, with its bytes; False if even that was shed (and logged).

        With `log`, `seq` and `ts_local` it has an identity made of them and `table`, so that it is kept once.
        """
        row = {
            "ts_local": ts_local,
            "recorder_run_id": self.recorder_run_id,
            "table_name": table,
            "reason": reason,
            "detail": detail.encode("utf-8", "backslashreplace").decode(),
            "origin": origin,
            "source_log": log,
            "source_seq": seq,
            "payload": payload,
            "payload_format": payload_format,
        }
        if log is not None and seq is not None and ts_local:
            letter = SourceRow(DEAD_LETTERS, seq, row)
            return bool(self.record_source(letter_log(log, table), [letter], wait=wait))
        return self.record(DEAD_LETTERS, row)
