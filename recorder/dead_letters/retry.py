"""Inserts what dead letters make now, each row once, through the recorder's own `FlushWorker`.

- The rows of a portion of letters are looked up by identity; what is absent goes to its table's worker, which looks up
  again before its first insert, inserts with a token, and looks up after every error and before every re-send.
- Nothing is written down about a retry. One that is killed and run again finds what is in; what was not goes in then.
- What a table refuses again stays the dead letter that it is, and makes no new one.
- One retry at a time works on a server (`one_at_a_time`); an embedded database has one process anyway. A recorder that
  is given the same rows by its bus or from a file in the same moment looks them up too, as it does everywhere.

A table that is held is left: its letters stay open, and say why.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from recorder.backoff import Backoff
from recorder.batch import Batch
from recorder.dead_letters.columns import Place, build
from recorder.dead_letters.examine import Examined, Examiner
from recorder.dead_letters.letter import Letter
from recorder.dead_letters.rebuild import Fault
from recorder.dead_letters.store import Store
from recorder.flush_worker import FlushWorker, WorkerPolicy, WorkerState
from recorder.settings import Settings
from recorder.sink.base import Sink
from recorder.sink.errors import DataError, SinkError

SETTLE_S = 0.5


@dataclass
class Told:
    """What a retry did so far. Every letter of the portions that are done is in `outcomes` once."""

    inserted: dict[str, int] = field(default_factory=dict)
    """Rows by table."""
    there: int = 0
    """Rows that were in their tables already."""
    outcomes: dict[str, int] = field(default_factory=lambda: {"done": 0, "closed": 0, "open": 0})
    """Letters: all of what they make is in now, was in before, or some of it is not."""
    open: list[tuple[Letter, Sequence[Fault]]] = field(default_factory=list)
    """What stays a dead letter, without its payload, and why."""

    @property
    def letters(self) -> int:
        """How many were taken up."""
        return sum(self.outcomes.values())

    @property
    def inserted_rows(self) -> int:
        """Rows inserted, in all tables."""
        return sum(self.inserted.values())


@dataclass
class _Events:
    """What the worker of a table tells: `WorkerEvents`."""

    table: str
    told: Told
    waiting: Callable[[str], None]
    refused: dict[Place, Fault] = field(default_factory=dict)
    held: asyncio.Future[str] | None = None

    def inserted(self, batch: Batch, rows: int, seconds: float) -> None:
        """Rows are in."""
        self.told.inserted[self.table] = self.told.inserted.get(self.table, 0) + rows

    def found(self, batch: Batch, rows: int) -> None:
        """Rows are in, by an insert whose answer was lost."""
        self.told.inserted[self.table] = self.told.inserted.get(self.table, 0) + rows

    def duplicates(self, rows: int) -> None:
        """Rows that somebody else brought since they were looked up."""
        self.told.there += rows

    def dead_letter(self, row: pa.RecordBatch, error: DataError) -> None:
        """The table refuses the row: it stays the dead letter that it is."""
        identity = (row["_log"][0].as_py(), row["_seq"][0].as_py())
        self.refused[self.table, identity] = Fault(f"refused_{error.code}", str(error), self.table)

    def error(self, error: SinkError) -> None:
        """An attempt failed; the state says what comes of it."""

    def state_changed(self, state: WorkerState, why: str) -> None:
        """Nobody waits here for a table to be mended; for a database to come back, yes."""
        if state is WorkerState.HELD and self.held is not None and not self.held.done():
            self.held.set_result(why)
        elif state is WorkerState.RETRYING:
            self.waiting(f"{self.table}: {why}")


class Retry:
    """See the module. `told` is complete up to the last portion, also where `run` was cancelled.

    `waiting` is told what is waited for.
    """

    def __init__(
        self,
        sink: Sink,
        settings: Settings,
        store: Store,
        examiner: Examiner,
        *,
        waiting: Callable[[str], None] = lambda why: None,
    ):
        self.told = Told()
        self._sink = sink
        self._settings = settings
        self._store = store
        self._examiner = examiner
        self._waiting = waiting
        self._workers: dict[str, tuple[FlushWorker, _Events]] = {}
        self._held: dict[str, str] = {}

    async def run(
        self, letters: Sequence[Letter], progress: Callable[[int], None] = lambda done: None
    ) -> None:
        """Retry the letters; `progress` is told how many are done.

        Raises:
            SinkError: the letters or their rows cannot be asked for.
        """
        async for part in self._store.read(letters):
            await self._portion(await self._examiner.examine(part))
            progress(self.told.letters)

    async def _portion(self, found: Sequence[Examined]) -> None:
        rebuilder = self._examiner.rebuilder
        rows = [row for one in found for row in one.absent]
        built = build(rows, rebuilder.tables, ignore_unknown=rebuilder.ignore_unknown)
        failed: dict[Place, Fault] = dict(built.refused)
        for batch in built.batches:
            failed |= await self._flush(batch)
        for one in found:
            places = [(row.table, row.identity) for row in one.absent]
            faults = [*one.faults, *(failed[place] for place in places if place in failed)]
            self.told.there += len(one.there)
            self.told.outcomes["open" if faults else "done" if places else "closed"] += 1
            if faults:
                self.told.open.append((replace(one.letter, payload=None), faults))

    async def _flush(self, batch: Batch) -> dict[Place, Fault]:
        """Get a batch in; by place, the rows that are not."""
        table = batch.table
        if table in self._held:
            return self._all_held(batch)
        worker, events = self._worker(table)
        events.held = asyncio.get_running_loop().create_future()
        flush = asyncio.create_task(worker.flush(batch))
        try:
            either: set[asyncio.Future[Any]] = {flush, events.held}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not flush.done():
                self._held[table] = events.held.result()
                return await self._given_up(flush, worker, batch)
            flush.result()
        finally:
            if not flush.done():
                flush.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await flush
                await worker.settle(SETTLE_S)  # what an interrupted insert brought is counted
        refused, events.refused = events.refused, {}
        return refused

    async def _given_up(
        self, flush: asyncio.Task[None], worker: FlushWorker, batch: Batch
    ) -> dict[Place, Fault]:
        """Stop for a held table; what of the batch was in before is not told as held."""
        flush.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await flush
        await worker.settle(SETTLE_S)
        held = self._all_held(batch)
        there = await self._store.present({batch.table: batch.identities()})
        return {place: fault for place, fault in held.items() if place[1] not in there[batch.table]}

    def _all_held(self, batch: Batch) -> dict[Place, Fault]:
        fault = Fault("held", self._held[batch.table], batch.table)
        return {(batch.table, identity): fault for identity in batch.identities()}

    def _worker(self, table: str) -> tuple[FlushWorker, _Events]:
        if table not in self._workers:
            settings = self._settings
            events = _Events(table, self.told, self._waiting)
            policy = WorkerPolicy(
                partition=self._examiner.rebuilder.tables[table].policy.partition,
                insert_timeout_s=settings.insert_timeout_s,
                backoff=Backoff(settings.retry_initial_s, settings.retry_max_s),
                hold_probe_s=settings.hold_probe_s,
                unknown_retries=settings.unknown_retries,
                dead_letter_ratio=1.0,  # all were refused once: that many are again does not say the table is wrong
            )
            self._workers[table] = FlushWorker(self._sink, policy, events), events
        return self._workers[table]
