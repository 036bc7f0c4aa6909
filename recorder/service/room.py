"""How much of a bus may be taken now: by how the tables of its messages fare (`Brake`), and what they hold of its
window.

A table that is held while others flow may use half of the window: beyond it its new rows are shed as its queue sheds
them, so that it cannot stop the rows of the others.
"""

from __future__ import annotations

import time

from recorder.flush_worker import WorkerState
from recorder.own_rows import DEAD_LETTERS
from recorder.recorder import Recorder
from recorder.service.brake import FULL, MANY, Brake
from recorder.service.receipts import Receipts

LETTER = "dead letter"
"""The place of a message's own dead letter: no table has a blank in its name."""
HELD_SHARE = 0.5


class Room:
    """See the module. `window` are the bus's bounds in messages and bytes; `keeps`: what is not read stays on it."""

    def __init__(self, recorder: Recorder, receipts: Receipts, window: tuple[int, int], *, keeps: bool):
        self._recorder = recorder
        self._receipts = receipts
        self._window = window
        self._keeps = keeps
        self._brake = Brake()

    def allowed(self) -> int:
        """How many messages may be taken now. A bus that keeps nothing is read whatever happens."""
        if not self._keeps:
            return MANY
        names = [name for name in self._receipts.uses if name != LETTER]
        loads = {name: self._recorder.load_of(name) for name in names}
        letters = self._recorder.load_of(DEAD_LETTERS)
        if letters.usage:  # any table may make some; while there are none they say nothing of the database
            loads[DEAD_LETTERS] = letters._replace(keeps=True)
        return self._brake.allows(loads, time.monotonic())

    def overdrawn(self) -> frozenset[str]:
        """Tables that are held, while others flow, and use so much of the window that they would stop those."""
        messages, size = self._window
        uses = {name: use for name, use in self._receipts.uses.items() if name != LETTER}
        over = [
            name
            for name, use in uses.items()
            if use.messages > HELD_SHARE * messages or use.bytes > HELD_SHARE * size
        ]
        state_of = self._recorder.state_of
        if not over or all(state_of(name) is not WorkerState.FLOWING for name in uses):
            return frozenset()
        return frozenset(name for name in over if state_of(name) is WorkerState.HELD)

    def for_letters(self) -> int:
        """For how many dead letters there is room, `MANY` at most."""
        recorder = self._recorder
        free = FULL - recorder.load_of(DEAD_LETTERS).usage
        rows = recorder.settings.for_table(recorder.tables[DEAD_LETTERS]).queue_rows
        return min(MANY, max(1, int(free * rows))) if free > 0 else 0

    def keeps_letters(self) -> bool:
        """Whether dead letters are recorded at all."""
        recorder = self._recorder
        return recorder.settings.for_table(recorder.tables[DEAD_LETTERS]).enabled
