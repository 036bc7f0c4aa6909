"""Asking the recorder's archive which rows it has: opened when it is first asked, read on a thread beside the loop.

An archive that does not answer is asked again for a while, and one that is damaged is not: a person must see to it.
Once it was given up it is not asked again for as long, so that not every batch waits for it. One that goes on reading
is waited for. It decides nothing about rows (`recorder.elsewhere`).
"""

from __future__ import annotations

import asyncio
import itertools
import time
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from recorder.archive_root import FOLDER, archive_store
from recorder.aside import begun
from recorder.backoff import Backoff
from recorder.batch import Batch, local_times_ns, partition_keys
from recorder.elsewhere import Mask, Unanswered
from recorder.log import get_logger
from recorder.redact import redacted
from retention.partitions import partition_id
from schemas.table import Table

if TYPE_CHECKING:
    from recorder.settings import Settings
    from retention.archive.found import Known
    from retention.archive.marked import MarkedStore

log = get_logger("recorder")

PATIENCE_S = 30.0
"""How long an archive that does not answer is asked, and may give nothing; as long it is not asked again."""
HURRIED_S = 2.0
"""How long where rows of now wait meanwhile."""
BACKOFF = Backoff(0.2, 5.0)
HUNG_MAX = 4
"""So many questions may hang at once; a thread waits in each, so that no more are asked."""
KNOWN_S = 60.0
"""What was read is kept so long after the last question: whoever asks has more of them, or no more at all."""


class RecorderArchive:
    """The archive of the settings, shared by all tables of a recorder. Used on its loop."""

    def __init__(self, settings: Settings, *, patience_s: float | None = None):
        self._settings = settings
        self._patience_s = PATIENCE_S if patience_s is None else patience_s
        self._store: MarkedStore | None = None
        self._known: Known | None = None
        self._forgetting: asyncio.TimerHandle | None = None
        self._failed: _GivenUp | None = None
        self._hung: list[Future[Mask | _Failed]] = []

    async def found(self, table: Table, batch: Batch, asked: Mask, *, others_wait: bool) -> Mask:
        """See `recorder.elsewhere.Archived`."""
        patience_s = min(self._patience_s, HURRIED_S) if others_wait else self._patience_s
        failed = self._failed
        # That somebody in a hurry gave it up says nothing to who has patience.
        if failed is not None and failed.patience_s >= patience_s and time.monotonic() < failed.until_s:
            raise Unanswered(failed.why)
        if self._forgetting is not None:
            self._forgetting.cancel()
        try:
            return await self._asked(table, batch, asked, patience_s)
        finally:
            self._forgetting = asyncio.get_running_loop().call_later(KNOWN_S, self._forget)

    def _forget(self) -> None:
        self._known = None

    async def _asked(self, table: Table, batch: Batch, asked: Mask, patience_s: float) -> Mask:
        began_s, said = time.monotonic(), ""
        for attempt in itertools.count():
            answer = await self._answer(table, batch, asked, began_s, patience_s)
            if not isinstance(answer, _Failed):
                self._failed = None
                return answer
            if answer.silent and said:
                answer = replace(answer, why=said)
            said = answer.why
            wait_s = BACKOFF.wait_s(attempt)
            if not answer.passes or time.monotonic() + wait_s - began_s >= patience_s:
                raise Unanswered(self._given_up(answer, patience_s))
            await asyncio.sleep(wait_s)
        raise AssertionError

    def _given_up(self, answer: _Failed, patience_s: float) -> str:
        why = (
            f"the archive at {self._named} cannot be read, so nobody knows which of them it has: {answer.why}; see to "
            "the archive, then start the recorder again"
        )
        if answer.passes:  # what is damaged says so at once, and may be of one partition alone
            self._failed = _GivenUp(why, patience_s, time.monotonic() + self._patience_s)
        return why

    async def _answer(
        self, table: Table, batch: Batch, asked: Mask, began_s: float, patience_s: float
    ) -> Mask | _Failed:
        """What the archive says, or why it does not; waited for until it gave nothing for so long."""
        self._hung = [call for call in self._hung if not call.done()]
        if len(self._hung) >= HUNG_MAX:
            return _Failed(f"{len(self._hung)} questions to it hang", True)
        reading = _Reading(began_s)
        call = begun(partial(self._ask, table, batch, asked, reading))
        waiting = asyncio.wrap_future(call)
        try:
            while (left_s := reading.moved_s + patience_s - time.monotonic()) > 0:
                if (await asyncio.wait({waiting}, timeout=left_s))[0]:
                    return waiting.result()
        finally:
            if not call.done():
                self._hung.append(call)
                waiting.cancel()
        return _Failed(f"it does not answer within {patience_s:g} s", True, silent=True)

    @property
    def _named(self) -> str:
        return redacted(str(self._settings.archive or self._settings.data_dir / FOLDER))

    def _ask(self, table: Table, batch: Batch, asked: Mask, reading: _Reading) -> Mask | _Failed:
        from retention.errors import ArchiveError, StoreError

        try:
            # Here, since a recorder that never asks needs none of it.
            from retention.archive import place_of
            from retention.archive.found import Known, Wanted, found_in
            from retention.archive.rowhash import identities_of

            reading.moved()  # it was not the archive that this took so long
            if self._store is None:
                self._store = archive_store(self._settings)
            self._store.see()  # each time: its disk may have gone
            reading.moved()
            if self._known is None:
                self._known = Known()
            logs, seqs = identities_of(batch.data)
            times_ns = local_times_ns(batch.data)
            keys = partition_keys(times_ns, table.policy.partition)
            found = np.zeros(batch.rows, np.bool_)
            for key in np.unique(keys[asked]):
                mine = asked & (keys == key)
                at = partition_id(int(times_ns[mine][0]), table.policy.partition)
                wanted = Wanted(logs[mine], seqs[mine], times_ns[mine])
                place = place_of(table.name, at)
                found[mine] = found_in(
                    self._store,
                    place,
                    self._settings.database,
                    wanted,
                    known=self._known,
                    moved=reading.moved,
                )
            if not found[asked].all():
                self._store.see()  # it may have gone meanwhile, and then it seems to lack what it has
            return found
        except ArchiveError as error:
            return _Failed(redacted(str(error)), isinstance(error, StoreError))
        except Exception as error:
            log.error("asking the archive failed unexpectedly", error=repr(error), exc_info=True)
            return _Failed(redacted(repr(error)), False)


@dataclass(frozen=True)
class _GivenUp:
    """Why it was given up by somebody of such patience; until then (monotonic) it is not asked again."""

    why: str
    patience_s: float
    until_s: float


@dataclass
class _Reading:
    """When a question last got something (monotonic); told by its thread."""

    moved_s: float

    def moved(self) -> None:
        self.moved_s = time.monotonic()


@dataclass(frozen=True)
class _Failed:
    """Why there is no answer, and whether that may pass by itself; `silent`: it did not say anything."""

    why: str
    passes: bool
    silent: bool = False
