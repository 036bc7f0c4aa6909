"""Gets blocks into the target, each row once: look up, insert what lacks, and look up again before anything is re-sent.

As the recorder's own worker does it (design: "How a batch gets in, once"), but for what is written down first: a block
that a killed run sent is found by its rows. So a block counts as one of a source: before its first look-up is answered,
inserts of earlier runs have ended. What the target refuses ends the copy; a copy makes no dead letters.

A yes to what was sent before is believed when the rows were seen: a server that was killed at the wrong moment knows
the token and has not the rows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pyarrow as pa

from recorder.backoff import Backoff
from recorder.batch import Batch
from recorder.copying.errors import GO_ON, CopyStopped
from recorder.sink.base import Sink
from recorder.sink.errors import Retryable, SinkError
from recorder.subset import without

T = TypeVar("T")
BACKOFF = Backoff(0.1, 5.0)


class Writer:
    """Puts blocks into the target behind a sink that was started.

    A call that fails for a reason that passes is repeated for `patience_s` in a row; `waiting` is told why.
    `check` is called before each insert, and raises where there must be none.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        insert_timeout_s: float,
        patience_s: float,
        waiting: Callable[[str], None] = lambda _: None,
        check: Callable[[], None] = lambda: None,
    ):
        self._sink = sink
        self._insert_timeout_s = insert_timeout_s
        self._patience_s = patience_s
        self._waiting = waiting
        self._check = check
        self.inserted = 0
        """Rows that got in, of all blocks so far."""

    async def put(self, table: str, rows: pa.RecordBatch) -> int:
        """Return when the target has all rows; how many of them it lacked before.

        Raises:
            CopyStopped: it does not take them, or does not answer.
        """
        block = Batch(table, rows, time.monotonic_ns(), from_source=True)
        present = await self._asked(table, lambda: self._sink.look_up(block))
        left = without(block, present)
        lacked = left.rows if left is not None else 0
        sent = False
        since_s, attempt = time.monotonic(), 0
        while left is not None:
            batch, again = left, sent
            sent = True
            try:
                self._check()
                await self._sink.insert(batch, timeout_s=self._insert_timeout_s)
            except Retryable as error:
                await self._wait(table, error, since_s, attempt)
                attempt += 1
            except SinkError as error:
                raise _refused(table, error) from error
            else:
                if not again:
                    break
            present = await self._asked(table, lambda: self._sink.look_up(batch))  # noqa: B023 - awaited here
            left = without(batch, present)
            if again and left is batch:
                left, sent = batch.renamed(), False  # its token may be spent
            elif left is not batch:
                sent = False
        self.inserted += lacked
        return lacked

    async def _asked(self, table: str, ask: Callable[[], Awaitable[T]]) -> T:
        since_s, attempt = time.monotonic(), 0
        while True:
            try:
                return await ask()
            except Retryable as error:
                await self._wait(table, error, since_s, attempt)
                attempt += 1
            except SinkError as error:
                raise _refused(table, error) from error

    async def _wait(self, table: str, error: SinkError, since_s: float, attempt: int) -> None:
        if time.monotonic() - since_s >= self._patience_s:
            raise CopyStopped(
                f"{table}: the target took no rows for {self._patience_s:g} s: {error}; {GO_ON}"
            ) from error
        self._waiting(str(error))
        await asyncio.sleep(BACKOFF.wait_s(attempt))


def _refused(table: str, error: SinkError) -> CopyStopped:
    return CopyStopped(f"{table}: the target refuses rows: {error}; mend that; {GO_ON}")
