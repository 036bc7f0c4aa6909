"""The steps of a row's way through the log, in a process that is killed at one of them, and where it was when it died.

What is marked stands in memory that the process shares with the one that forked it, and so outlives it.
"""

from __future__ import annotations

import functools
import inspect
import mmap
import os
import signal
import struct
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from recorder.flush_worker import FlushWorker
from recorder.log_done import LogDone
from recorder.log_earlier import EarlierRows
from recorder.sink.client_sink import ClientSink
from recorder.table_log import TableLog
from wal import purge as purging
from wal.checkpoint import CheckpointFile
from wal.log_disk import LogDisk
from wal.replay import Replay
from wal.segment_writer import SegmentWriter
from wal.writer import LogWriter

PLACES: dict[str, tuple[Any, str]] = {
    "append": (LogWriter, "append"),
    "write": (SegmentWriter, "write"),
    "sync": (SegmentWriter, "sync"),
    "seal": (TableLog, "seal"),
    "insert": (ClientSink, "insert"),
    "confirm": (LogDone, "confirm"),
    "new checkpoint": (CheckpointFile, "_write_new"),
    "checkpoint": (CheckpointFile, "write"),
    "rotate": (LogDisk, "rotate"),
    "purge": (purging, "remove"),
    "replay": (EarlierRows, "next"),
    "replay of a seal": (Replay, "_sealed"),
    "look-up": (ClientSink, "look_up"),
    "take-up": (FlushWorker, "_take_up"),
}
"""Class or module, and function, by what it does."""


class When(Enum):
    """When a process dies: by its own hand before or after a call, or by another's some moments after it began."""

    BEFORE = "before"
    AFTER = "after"
    AMID = "amid"


class Step(NamedTuple):
    """A place, and when."""

    place: str
    when: When
    at_once: bool = False
    """It may be come to before rows flow: in what the run before left."""


STEPS: dict[str, Step] = {
    "after append": Step("append", When.AFTER),
    "during write": Step("write", When.AMID),
    "during sync": Step("sync", When.AMID),
    "after sync": Step("sync", When.AFTER),
    "before seal": Step("seal", When.BEFORE),
    "after seal": Step("seal", When.AFTER),
    "during insert": Step("insert", When.AMID),
    "after insert": Step("insert", When.AFTER),
    "before confirm": Step("confirm", When.BEFORE),
    "after confirm": Step("confirm", When.AFTER),
    "during checkpoint": Step("new checkpoint", When.AFTER),
    "after checkpoint": Step("checkpoint", When.AFTER),
    "before rotate": Step("rotate", When.BEFORE),
    "during rotate": Step("rotate", When.AMID),
    "before purge": Step("purge", When.BEFORE),
    "after purge": Step("purge", When.AFTER),
    "before replay": Step("replay", When.BEFORE, at_once=True),
    "during replay": Step("replay", When.AFTER, at_once=True),
    "during replay of a seal": Step("replay of a seal", When.BEFORE, at_once=True),
    "look-up": Step("take-up", When.BEFORE, at_once=True),
    "after look-up": Step("take-up", When.AFTER, at_once=True),
}
"""Where a run is killed on purpose."""

AFTER_A_KILL = {
    "before replay": "after seal",
    "during replay": "during insert",
    "during replay of a seal": "before confirm",
    "look-up": "after insert",
    "after look-up": "after insert",
}
"""Steps that only a run comes to whose predecessor was killed, and where that one is: where rows are sealed, and so on
the log, and are not confirmed."""

_NUMBERS = struct.Struct("<QQQ")


class Marks:
    """Where a process is, how many rows it has recorded, how many of them it was told are durable, and whether it came
    to its step. Written by the process, read by the one that made this."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    def clear(self) -> None:
        """As it was made."""
        self._memory[:] = bytes(len(self._memory))

    def rows(self, recorded: int, durable: int) -> None:
        """Tell how many rows there are."""
        _NUMBERS.pack_into(self._memory, 0, recorded, durable, 0)

    def read(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        recorded, durable, _ = _NUMBERS.unpack_from(self._memory)
        inside = [place for n, place in enumerate(PLACES) if self._memory[64 + n]]
        return {"recorded": recorded, "durable": durable, "came": bool(self._memory[32]), "inside": inside}

    def came(self) -> None:
        """It is at its step."""
        self._memory[32] = 1

    def enter(self, number: int) -> None:
        """It is at a place."""
        self._memory[64 + number] = min(255, self._memory[64 + number] + 1)

    def leave(self, number: int) -> None:
        """It is there no more."""
        self._memory[64 + number] = max(0, self._memory[64 + number] - 1)


class Killer:
    """Marks every place of this process, and ends it at its step, once `armed`. `ask` has another kill it soon."""

    def __init__(self, marks: Marks, step: Step | None, nth: int, ask: Callable[[], object]):
        self._marks = marks
        self._step = step
        self._left = nth
        self._ask = ask
        self.armed = step is not None and step.at_once
        for number, (place, (owner, name)) in enumerate(PLACES.items()):
            setattr(owner, name, self._watched(number, place, getattr(owner, name)))

    def _watched(self, number: int, place: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def called(*args: Any, **kwargs: Any) -> Any:
            mine = self._enter(number, place, args)
            result = original(*args, **kwargs)
            self._leave(number, mine)
            return result

        @functools.wraps(original)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            mine = self._enter(number, place, args)
            result = await original(*args, **kwargs)
            self._leave(number, mine)
            return result

        return awaited if inspect.iscoroutinefunction(original) else called

    def _enter(self, number: int, place: str, args: tuple[Any, ...]) -> bool:
        """Whether it is the call to die at."""
        step = self._step
        if place == "purge" and not args[0]:
            return False  # nothing is removed
        self._marks.enter(number)
        if step is None or step.place != place or not self.armed:
            return False
        self._left -= 1
        if self._left:
            return False
        if step.when is When.AMID:
            self._marks.came()
            self._ask()
        elif step.when is When.BEFORE:
            self._die()
        return True

    def _leave(self, number: int, mine: bool) -> None:
        if mine and self._step is not None and self._step.when is When.AFTER:
            self._die()
        self._marks.leave(number)

    def _die(self) -> None:
        self._marks.came()
        os.kill(os.getpid(), signal.SIGKILL)
