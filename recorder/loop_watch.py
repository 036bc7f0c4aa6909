"""Sees whether an event loop turns: a thread beside it looks, because a loop that stands still cannot say so itself.

The loop leaves a beat every so often. Where none came for `stall_s`, the thread says where the loop's thread stands,
once a stall, and counts it; that it turns again is said too. It tells and does nothing else: what blocks the loop may
be about to end, and killing it would lose what memory holds.

A process that was stopped as a whole (SIGSTOP, a suspended machine) is no stall of its loop: the thread notices that it
did not run either, and gives the loop its time anew. A thread that holds the interpreter's lock stops this one, too; it
is found once it lets go.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from dataclasses import dataclass, replace

from recorder.log import get_logger

log = get_logger("recorder")

LOOKS = 5
"""Beats and looks in the time after which a loop counts as stalled."""
LONGEST_LOOK_S = 1.0
FRAMES = 30
"""Innermost frames of the loop's thread that are shown."""
JOIN_S = 1.0


@dataclass(frozen=True)
class Glance:
    """What the last look saw; all times on the monotonic clock."""

    looked_s: float
    from_s: float
    """Beats are missed from here on: the thread itself did not run before."""
    stalled: bool = False


def look(before: Glance, *, now_s: float, beat_s: float, every_s: float, stall_s: float) -> Glance:
    """The next glance, of a loop whose last beat was at `beat_s`; looks are meant to be `every_s` apart. Pure."""
    slept_s = now_s - before.looked_s
    from_s = now_s if slept_s > every_s + stall_s / 2 else before.from_s
    if before.stalled and beat_s <= before.from_s:
        return replace(before, looked_s=now_s)  # no beat yet, whoever ran meanwhile
    stalled = now_s - max(beat_s, from_s) >= stall_s
    return Glance(now_s, max(beat_s, from_s) if stalled else from_s, stalled)


class LoopWatch:
    """See the module. `start` and `close` on the loop; `stalls` and `last_s` may be read from any thread."""

    def __init__(self, *, stall_s: float, name: str = "recorder"):
        self.stalls = 0
        """How often the loop stood still."""
        self.last_s = 0.0
        """How long it did the last time, as far as is known; 0 while it still does."""
        self._stall_s = stall_s
        self.name = name
        self._every_s = min(stall_s / LOOKS, LONGEST_LOOK_S)
        self._beat_s = 0.0
        self._watched = 0
        self._closing = threading.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watch the running loop from now on."""
        self._watched = threading.get_ident()
        self._beat()
        self._thread = threading.Thread(target=self._watch, name=f"watch {self.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Watch no more. Idempotent."""
        self._closing.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._thread is not None:
            self._thread.join(JOIN_S)  # not longer: it may be held up by a log handler

    def _beat(self) -> None:
        self._beat_s = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._beat)

    def _watch(self) -> None:
        now_s = time.monotonic()
        glance, began_s = Glance(now_s, now_s), now_s
        while not self._closing.wait(self._every_s):
            now_s, beat_s = time.monotonic(), self._beat_s
            before, glance = glance, look(
                glance, now_s=now_s, beat_s=beat_s, every_s=self._every_s, stall_s=self._stall_s
            )  # fmt: skip
            if glance.stalled and not before.stalled:
                began_s = glance.from_s
                self.last_s = 0.0
                self.stalls += 1
                log.critical(
                    "the event loop stands still",
                    loop=self.name,
                    for_s=round(now_s - began_s, 3),
                    stack=self._stack(),
                )
            elif before.stalled and not glance.stalled:
                self.last_s = beat_s - began_s
                log.warning("the event loop turns again", loop=self.name, stood_s=round(self.last_s, 3))

    def _stack(self) -> str:
        """Where the loop's thread stands, the innermost frame last."""
        frame = sys._current_frames().get(self._watched)
        return "".join(traceback.format_stack(frame, FRAMES)) if frame is not None else "its thread is gone"
