"""When rows that were handed over are durable: what acknowledgements of a bus wait for.

A `Handover` is what one call handed to one table. It is settled when all its rows are inserted, duplicates or *kept*
dead letters, or were shed. Where the dead letters may not have been kept (no room for them) it is `unkept`: what it is
of is not to be acknowledged but taken again, when there is room. Each table has one line of handovers, in the order of
their queue positions, and one task that waits for its head: a table that is held keeps its own line waiting and no
other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from recorder.own_rows import DEAD_LETTERS
from recorder.pipeline import TablePipeline


class Handover:
    """Rows handed to one table in one call. `settled` is set once, on the recorder's loop; `unkept` before it."""

    __slots__ = (
        "bad_before", "comes_again", "letters", "position", "rows", "settled", "table", "unkept", "unkept_before"
    )  # fmt: skip

    def __init__(self, table: str, rows: int, bad_before: int, unkept_before: int = 0):
        self.table = table
        self.rows = rows
        self.bad_before = bad_before
        """Bad rows of the table before these came: more of them later may be of these, and their letters count."""
        self.unkept_before = unkept_before
        """Dead letters that found no room before these came (`unkept_letters`)."""
        self.letters = table == DEAD_LETTERS
        """Whether the rows are dead letters themselves."""
        self.position = 0
        """Queue position of the last of the rows, or of a later one."""
        self.settled = False
        self.unkept = False
        """Whether dead letters of its rows may have found no room."""
        self.comes_again = False
        """Whether its source delivers what is not acknowledged again."""


Told = Callable[[Sequence[Handover]], None]
"""Called on the recorder's loop with handovers that are settled; must not block."""


def unkept_letters(dead: TablePipeline) -> int:
    """Dead letters that found no room so far, at the door or later; `dead` is their pipeline. From any thread."""
    return dead.queue.refused_rows + dead.queue.displaced_rows + dead.lost_rows


class Settling:
    """See the module. Built and used on the recorder's loop."""

    def __init__(self, pipelines: Mapping[str, TablePipeline]):
        self._pipelines = pipelines
        self._lines: dict[str, deque[tuple[Handover, Told]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()

    def track(self, handovers: Iterable[Handover], told: Told) -> None:
        """Wait for handovers, whose rows are in the queues; `told` is called for each of them once."""
        for handover in handovers:
            handover.position = self._pipelines[handover.table].position
            self._enqueue(handover, told)

    def displaced(self, handover: Handover, told: Told) -> None:
        """Its rows were shed while they waited. From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody acknowledges any more
            self._loop.call_soon_threadsafe(self._settle, handover, told)

    async def close(self) -> None:
        """Wait for no more; who waits is not told."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _settle(self, handover: Handover, told: Told) -> None:
        if handover.settled:
            return
        handover.settled = True
        handover.unkept = handover.letters
        told([handover])

    def waiting_rows(self, table: str, *, comes_again: bool) -> int:
        """Rows at most of a table that are not settled, of sources that deliver them again or that do not."""
        return sum(
            handover.rows
            for handover, _ in self._lines.get(table, ())
            if not handover.settled and handover.comes_again is comes_again
        )

    def _enqueue(self, handover: Handover, told: Told) -> None:
        table = handover.table
        self._lines.setdefault(table, deque()).append((handover, told))
        if table not in self._tasks:
            self._tasks[table] = asyncio.create_task(self._wait(table), name=f"settle {table}")

    async def _wait(self, table: str) -> None:
        """Tell of a table's handovers until its line is empty."""
        line, pipeline = self._lines[table], self._pipelines[table]
        try:
            while line:
                head = line[0][0]
                if not head.settled:
                    await pipeline.durable(head.position, hurry=False)
                self._tell(self._resolved(line, pipeline))
        finally:
            del self._tasks[table]

    def _resolved(
        self, line: deque[tuple[Handover, Told]], pipeline: TablePipeline
    ) -> dict[Told, list[Handover]]:
        """Take from the line what is settled now, by whom it is for."""
        done: dict[Told, list[Handover]] = {}
        while line and (line[0][0].settled or line[0][0].position <= pipeline.durable_upto):
            handover, told = line.popleft()
            if handover.settled:
                continue
            if handover.table != DEAD_LETTERS and pipeline.dead_rows != handover.bad_before:
                # Some of its rows may be among the bad ones: their dead letters must be in too.
                handover.table = DEAD_LETTERS
                handover.position = self._pipelines[DEAD_LETTERS].position
                self._enqueue(handover, told)
                continue
            handover.settled = True
            handover.unkept = (
                not handover.letters and handover.table == DEAD_LETTERS and self._lost_letters(handover)
            )
            done.setdefault(told, []).append(handover)
        return done

    def _lost_letters(self, handover: Handover) -> bool:
        """Whether letters found no room since its rows came: some may be of these."""
        return unkept_letters(self._pipelines[DEAD_LETTERS]) != handover.unkept_before

    @staticmethod
    def _tell(done: Mapping[Told, Sequence[Handover]]) -> None:
        for told, handovers in done.items():
            told(handovers)
