"""Asking the recorder's archive which rows it has: opened when it is first asked, read on a thread beside the loop.

An archive that does not answer is asked again for a while, and one that is damaged is not: a person must see to it.
Once it was given up it is not asked again for as long, so that not every batch waits for it. It decides nothing about
rows (`recorder.elsewhere`).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recorder.archive_root import FOLDER, archive_store
from recorder.aside import aside
from recorder.backoff import Backoff
from recorder.batch import Batch, local_times_ns, partition_keys
from recorder.elsewhere import Mask, Unanswered
from recorder.log import get_logger
from recorder.redact import redacted
from retention.partitions import partition_id
from schemas.table import Table

if TYPE_CHECKING:
    from recorder.settings import Settings
    from retention.archive import Store

log = get_logger("recorder")

PATIENCE_S = 30.0
"""How long an archive that does not answer is asked; afterwards as long it is not asked again."""
HURRIED_S = 2.0
"""How long where rows of now wait meanwhile."""
BACKOFF = Backoff(0.2, 5.0)


class RecorderArchive:
    """The archive of the settings, shared by all tables of a recorder. Used on its loop."""

    def __init__(self, settings: Settings, *, patience_s: float | None = None):
        self._settings = settings
        self._patience_s = PATIENCE_S if patience_s is None else patience_s
        self._store: Store | None = None
        self._failed: tuple[float, str] | None = None

    async def found(self, table: Table, batch: Batch, asked: Mask, *, others_wait: bool) -> Mask:
        """See `recorder.elsewhere.Archived`."""
        patience_s = min(self._patience_s, HURRIED_S) if others_wait else self._patience_s
        if self._failed is not None and time.monotonic() - self._failed[0] < self._patience_s:
            raise Unanswered(self._failed[1])
        why = f"it does not answer within {patience_s:g} s"
        try:
            async with asyncio.timeout(patience_s):
                for attempt in range(1_000_000):
                    answer = await aside(self._ask, table, batch, asked)
                    if not isinstance(answer, _Failed):
                        self._failed = None
                        return answer
                    why = answer.why
                    if not answer.passes:
                        break
                    await asyncio.sleep(BACKOFF.wait_s(attempt))
        except TimeoutError:
            pass
        why = (
            f"the archive at {self._named} cannot be read, so nobody knows which of them it has: {why}; see to the "
            "archive, then start the recorder again"
        )
        self._failed = (time.monotonic(), why)
        raise Unanswered(why)

    @property
    def _named(self) -> str:
        return redacted(str(self._settings.archive or self._settings.data_dir / FOLDER))

    def _ask(self, table: Table, batch: Batch, asked: Mask) -> Mask | _Failed:
        from retention.errors import ArchiveError, StoreError

        try:
            # Here, since a recorder that never asks needs none of it.
            from retention.archive import place_of
            from retention.archive.found import Wanted, found_in
            from retention.archive.rowhash import identities_of

            if self._store is None:
                self._store = archive_store(self._settings)
            logs, seqs = identities_of(batch.data)
            times_ns = local_times_ns(batch.data)
            keys = partition_keys(times_ns, table.policy.partition)
            found = np.zeros(batch.rows, np.bool_)
            for key in np.unique(keys[asked]):
                mine = asked & (keys == key)
                at = partition_id(int(times_ns[mine][0]), table.policy.partition)
                wanted = Wanted(logs[mine], seqs[mine], times_ns[mine])
                found[mine] = found_in(self._store, place_of(table.name, at), self._settings.database, wanted)
            return found
        except ArchiveError as error:
            return _Failed(redacted(str(error)), isinstance(error, StoreError))
        except Exception as error:
            log.error("asking the archive failed unexpectedly", error=repr(error), exc_info=True)
            return _Failed(redacted(repr(error)), False)


@dataclass(frozen=True)
class _Failed:
    """Why there is no answer, and whether that may pass by itself."""

    why: str
    passes: bool
