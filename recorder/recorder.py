"""The library: record rows from any thread, and wait for them when it matters.

    with Recorder(Settings(target="chdb:///data/db", data_dir="/data")) as rec:
        rec.record("fills", {"fill_id": "f-1", "symbol": "BTCUSDT", ...})
        rec.sync(timeout_s=5)

`record` does no I/O, waits for nothing and never raises because of load. Everything else happens on a thread of the
recorder's own, with an event loop (`Runtime`).
"""

from __future__ import annotations

import array
import asyncio
import atexit
import concurrent.futures
import contextlib
import functools
import os
import time
import types
import uuid
import weakref
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, Self, TypeVar, overload

import pyarrow as pa

from recorder.arrow_rows import exact_columns, own_rows
from recorder.async_recorder import AsyncRecorder
from recorder.balance import Balance
from recorder.correlation import correlation_id as context_correlation_id
from recorder.door import Door
from recorder.errors import NotDurable, RecorderClosed, RecorderForked, SettingsError, UnknownTable
from recorder.flush_worker import WorkerState
from recorder.identity import letter_log
from recorder.log import get_logger
from recorder.metrics import SourceCounts
from recorder.own_rows import DEAD_LETTERS, OWN_TABLES
from recorder.packs import packs_of
from recorder.pipeline import Load
from recorder.queue import ArrowBlock, Block, Entry, Watched
from recorder.runtime import Runtime
from recorder.runtime_thread import RuntimeThread
from recorder.settings import Settings
from recorder.settling import Handover, Told, unkept_letters
from recorder.sink.base import Sink
from recorder.sink.open import open_sink
from recorder.ticket import OVERTAKEN, Ticket, on_loop
from schemas.pack import Pack
from schemas.table import Table

log = get_logger("recorder")
T = TypeVar("T")

ARROW_BLOCK_ROWS = 2_048
"""Arrow rows are taken up in blocks of so many, so that a full queue sheds blocks and not whole tables."""

_live: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _forked() -> None:
    """In a forked child: the recorder's thread is not here, so its doors are shut."""
    for recorder in _live:
        recorder._after_fork()


os.register_at_fork(after_in_child=_forked)


class SourceRow(NamedTuple):
    """One row of a file or a bus, with its number in that source."""

    table: str
    seq: int
    row: Any


class Recorder:
    """See the module. One recorder may be used from many threads; a forked child needs one of its own.

    `sink` and `packs` replace what the settings name: for tests and for other backends. With `wait_for_database` a
    database that does not answer is no reason not to start: all tables are held until it does.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        sink: Sink | None = None,
        packs: Sequence[Pack] | None = None,
        wait_for_database: bool = False,
    ):
        self.settings = self._settings_at_start = settings if settings is not None else Settings()
        self.packs = packs_of(self.settings, packs)
        self.run_id = self.settings.run_id
        self.recorder_run_id = uuid.uuid4().hex
        self._sink = sink
        self._wait_for_database = wait_for_database
        self._doors: dict[str, Door] = {}
        self._tables = {table.name: table for pack in self.packs for table in pack.tables}
        if missing := [name for name in OWN_TABLES if name not in self._tables]:
            raise SettingsError(
                f"packs: {', '.join(self.settings.packs)} lack the recorder's own tables {', '.join(missing)}; "
                'add "core" to packs'
            )
        self._state: Literal["new", "running", "closing", "closed", "forked", "failed"] = "new"
        self._thread: RuntimeThread | None = None

    # -- lifecycle ----------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Connect, migrate if told to, and open the doors.

        Raises:
            SinkError: the database cannot be opened; the message says why and what to do.
            SchemaError: a migration failed.
            RecorderClosed: it was started before.
        """
        if self._state != "new":
            raise RecorderClosed(f"this recorder is {self._state}; make a new Recorder to start again")
        sink = self._sink if self._sink is not None else open_sink(self.settings, self._tables)
        thread = RuntimeThread(
            lambda: Runtime(
                self.settings,
                self.packs,
                sink,
                run_id=self.run_id,
                recorder_run_id=self.recorder_run_id,
                wait_for_database=self._wait_for_database,
            ),
            shutdown_timeout_s=self.settings.shutdown_timeout_s,
            switch_interval_s=self.settings.switch_interval_s,
            ended=self._thread_ended,
        )
        try:
            thread.start()
        except BaseException:
            self._state = "closed"
            raise
        self._thread = thread
        self._state = "running"
        self._doors = thread.runtime.doors
        _live.add(self)
        # After the sink's own guard, so before it: the last comes first. Threads that are no daemons have ended then.
        atexit.register(self._close_at_exit)
        return self

    def _thread_ended(self) -> None:
        if self._state == "running":
            self._doors = {}
            self._state = "failed"

    def close(self) -> None:
        """Stop taking rows, flush within `shutdown_timeout_s`, count what is left, release everything.

        May be called again, and from another thread: each call returns when the recorder has ended, and raises an
        interrupt (Ctrl-C) then. One that nobody closed is closed when the interpreter exits.
        """
        if self._state == "forked":
            return
        if self._state == "new":
            self._state = "closed"
        if self._state == "running":
            self._state = "closing"
            self._doors = {}
            assert self._thread is not None
            self._thread.stop()
        try:
            if self._thread is not None:
                self._thread.join()
        finally:
            if self._state == "closing":
                self._state = "closed"
            _live.discard(self)
            atexit.unregister(self._close_at_exit)

    def abort(self) -> None:
        """End a `close` that is under way in another thread now: what memory still holds is counted as shed."""
        if self._thread is not None and self._state == "closing":
            self._thread.hurry()

    def change(self, settings: Settings) -> None:
        """Use other settings from now on, as far as they can change while it runs (`docs/run.md`); the rest stays.

        Raises:
            SettingsError: those of a table do not go together; nothing was changed.
            RecorderClosed, RecorderForked: there is no recorder to change.
        """
        runtime, _ = self._running()
        settings.check_tables(self._tables)
        changes = {table.name: settings.for_table(table) for table in self._tables.values()}
        self._on_loop(lambda _: runtime.change(changes))
        self.settings = settings

    @property
    def running(self) -> bool:
        """Whether it takes rows."""
        return self._state == "running"

    @property
    def in_contact(self) -> bool:
        """Whether the database has answered since the start."""
        return self._thread is not None and self._thread.runtime.contact.made

    @property
    def started(self) -> bool:
        """Whether it ever took rows."""
        return self._thread is not None

    def _close_at_exit(self) -> None:
        if self._state == "running":
            log.warning("the recorder was not closed; closing it as the interpreter exits")
        self.close()

    def _after_fork(self) -> None:
        self._doors = {}
        self._state = "forked"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> AsyncRecorder:
        await asyncio.to_thread(self.start)
        return AsyncRecorder(self)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    # -- rows in --------------------------------------------------------------------------------------------------

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
            raise self._shut(table)
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
        runtime, loop = self._running()
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
            if self._state == "forked":
                raise self._shut(table)

            async def wait() -> bool:
                return await runtime.row_durable(table, position[0], before)

            return wait()

        return Ticket(accepted, watched, loop, durable)

    def record_batch(self, table: str, data: pa.Table | pa.RecordBatch) -> int:
        """Hand over rows that are Arrow columns already; the number accepted.

        Columns may be in any order and of any type that casts exactly; rows whose values a column refuses become
        dead letters, each by itself. Rows go in blocks of at most 2,048; what a full queue does with a block is its
        overflow policy: `drop_oldest`, `conflate` and `sample` displace the oldest rows for it.

        Raises:
            WrongColumns: a column is unknown, missing without a default, or of a wrong type.
            UnknownTable, RecorderClosed, RecorderForked: as `record`.
        """
        door = self._doors.get(table)
        if door is None:
            raise self._shut(table)
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
        for door, block in self._blocks(log, entries):
            accepted += door.queue.put_block(block, wait=wait, timeout_s=timeout_s)
        return accepted

    def deliver(
        self,
        log: int,
        entries: Iterable[SourceRow],
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
        runtime, _ = self._running()
        handovers = []
        for door, block in self._blocks(log, entries):
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

    def state_of(self, table: str) -> WorkerState:
        """Whether a table's inserts flow, are retried, or are held."""
        return self._running()[0].pipelines[table].state

    def load_of(self, table: str) -> Load:
        """How a table fares."""
        return self._running()[0].pipelines[table].load()

    def settle(self, handovers: Sequence[Handover], told: Told) -> None:
        """Have `told` called, on the recorder's loop, with these as they are settled: their rows durable, or shed.

        Raises:
            RecorderClosed, RecorderForked: there is no recorder to wait for.
        """
        runtime, loop = self._running()
        with contextlib.suppress(RuntimeError):  # it has closed just now, and tells of nothing any more
            loop.call_soon_threadsafe(runtime.settling.track, handovers, told)

    def _blocks(self, log: int, entries: Iterable[SourceRow]) -> list[tuple[Door, Block]]:
        """Rows of a source by table; those of tables that are off are counted and left out."""
        by_table: dict[str, tuple[Door, list[Any], list[int]]] = {}
        for table, seq, row in entries:
            found = by_table.get(table)
            if found is None:
                door = self._doors.get(table)
                if door is None:
                    raise self._shut(table)
                found = by_table[table] = (door, [], [])
            found[1].append(row)
            found[2].append(seq)
        try:
            array.array("Q", [log])
            numbered = [(door, rows, array.array("Q", seqs)) for door, rows, seqs in by_table.values()]
        except (TypeError, OverflowError) as error:
            raise ValueError(f"a row's identity is two integers from 0 to 2**64 - 1: {error}") from error
        blocks = []
        for door, rows, seqs in numbered:
            if not door.enabled:
                door.filtered_rows += len(rows)
                continue
            wide = sum(map(door.wide_bytes, rows)) if door.has_wide else 0
            blocks.append((door, Block(rows, time.monotonic_ns(), log, seqs, wide)))
        return blocks

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

    def _shut(self, table: str) -> Exception:
        """Why there is no door for a table."""
        if self._state == "forked":
            return RecorderForked(
                f"{table}: this process was forked after the recorder started, and the recorder stayed in the "
                "parent; make a Recorder in the child, with a target and data_dir of its own"
            )
        if self._state != "running":
            how = {"new": "is not started", "failed": "ended unexpectedly; its log says why"}
            return RecorderClosed(f"{table}: the recorder {how.get(self._state, 'is closed')}")
        names = ", ".join(sorted(self._tables))
        return UnknownTable(f"no table {table!r}; the loaded packs have {names}")

    # -- waiting ----------------------------------------------------------------------------------------------------

    def sync(self, timeout_s: float | None = None) -> None:
        """Wait until every accepted row of a critical table is durable.

        Raises:
            NotDurable: some are not yet; they are still on their way.
        """
        self._wait(lambda runtime: runtime.sync(), timeout_s, "durable")

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until every accepted row is queryable.

        Raises:
            NotDurable: some are not yet; they are still on their way.
        """
        self._wait(lambda runtime: runtime.flush(), timeout_s, "queryable")

    def _wait(
        self, what: Callable[[Runtime], Coroutine[Any, Any, None]], timeout_s: float | None, state: str
    ) -> None:
        runtime, loop = self._running()
        future = on_loop(lambda: what(runtime), loop)
        try:
            future.result(timeout_s)
        except concurrent.futures.CancelledError:
            raise RecorderClosed(OVERTAKEN) from None
        except TimeoutError:
            future.cancel()
            raise NotDurable(self._late(runtime, state, timeout_s)) from None

    @staticmethod
    def _late(runtime: Runtime, state: str, timeout_s: float | None) -> str:
        waiting = [
            f"{name} {pipeline.queue.waiting_rows + pipeline.flying_rows} rows"
            + (f" (held: {pipeline.why_held})" if pipeline.why_held else "")
            for name, pipeline in runtime.pipelines.items()
            if pipeline.queue.waiting_rows + pipeline.flying_rows
        ]
        return f"not all rows are {state} after {timeout_s} s; still on their way: {', '.join(waiting)}"

    def _running(self) -> tuple[Runtime, asyncio.AbstractEventLoop]:
        if self._state != "running" or self._thread is None:
            raise self._shut("recorder")
        return self._thread.runtime, self._thread.loop

    def _on_loop(self, ask: Callable[[Runtime], T]) -> T:
        """An answer of the runtime; also of one that has ended."""
        if self._state in ("new", "forked") or self._thread is None:
            raise self._shut("recorder")
        return self._thread.ask(ask)

    # -- what it tells ------------------------------------------------------------------------------------------------

    @property
    def tables(self) -> Mapping[str, Table]:
        """The tables of the loaded packs, by name."""
        return types.MappingProxyType(self._tables)

    @property
    def sink(self) -> Sink:
        """The sink in use, for questions to the database."""
        return self._running()[0].sink

    def ask(self, question: Callable[[Sink], Coroutine[Any, Any, T]], timeout_s: float | None = None) -> T:
        """Ask the sink from any thread: `rec.ask(lambda sink: sink.query("SELECT 1"))`."""
        runtime, loop = self._running()
        return asyncio.run_coroutine_threadsafe(question(runtime.sink), loop).result(timeout_s)

    def watch(self, source: str, counts: Callable[[], SourceCounts]) -> None:
        """Show in the metrics what a source left out before it made rows; `counts` is called on the recorder's loop."""
        self._running()[0].sources[source] = counts

    def balance(self) -> dict[str, Balance]:
        """Per table, where the rows of this run are; after `close`, where they ended."""
        return self._on_loop(lambda runtime: runtime.balance())

    def status(self) -> dict[str, Any]:
        """State of everything, ready for JSON: what `/status` shows. Also while it closes, but not after."""
        if self._state != "closing":
            self._running()
        return self._on_loop(lambda runtime: runtime.status())
