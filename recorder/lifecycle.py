"""A recorder's life: from new to closed, and what may end it otherwise: a fork, a fault, the interpreter's exit.

It owns the recorder's thread and its doors. The doors are one mapping for life, filled while the recorder runs and
empty at all other times: who finds no door asks `shut` why, so that a producer's call never looks at the state.

       new ──start──► running ──close──► closing ──► closed
        │                │└──its thread ended──► failed
        └──close──► closed └──in a forked child──► forked
"""

from __future__ import annotations

import asyncio
import atexit
import enum
import os
import weakref
from collections.abc import Callable, Iterable
from typing import TypeVar

from recorder.door import Door
from recorder.errors import RecorderClosed, RecorderForked, UnknownTable
from recorder.log import get_logger
from recorder.runtime import Runtime
from recorder.runtime_thread import RuntimeThread

log = get_logger("recorder")
T = TypeVar("T")

_live: weakref.WeakSet[Lifecycle] = weakref.WeakSet()


def _forked() -> None:
    """In a forked child: the recorder's thread is not here, so its doors are shut."""
    for life in _live:
        life._after_fork()


os.register_at_fork(after_in_child=_forked)


class State(enum.Enum):
    """Where a recorder stands."""

    NEW = "new"
    RUNNING = "running"
    CLOSING = "closing"
    CLOSED = "closed"
    FORKED = "forked"
    FAILED = "failed"


class Lifecycle:
    """See the module. Any thread may call; `tables` are the names that `shut` tells of."""

    def __init__(self, tables: Iterable[str]):
        self.state = State.NEW
        self.doors: dict[str, Door] = {}
        self.thread: RuntimeThread | None = None
        """There once it has started, also after its end."""
        self._tables = tables

    def start(self, make: Callable[[Callable[[], None]], RuntimeThread]) -> None:
        """Start the thread that `make` makes, and open the doors. The thread is to call what `make` gets as it ends.

        Raises:
            RecorderClosed: it was started before.
            SinkError, SchemaError: as `Runtime.start`.
        """
        if self.state is not State.NEW:
            raise RecorderClosed(f"this recorder is {self.state.value}; make a new Recorder to start again")
        thread = make(self._thread_ended)
        try:
            thread.start()
        except BaseException:
            self.state = State.CLOSED
            raise
        self.thread = thread
        self.state = State.RUNNING
        self.doors.update(thread.runtime.doors)
        _live.add(self)
        # After the sink's own guard, so before it: the last comes first. Threads that are no daemons have ended then.
        atexit.register(self._close_at_exit)

    def close(self) -> None:
        """As `Recorder.close`."""
        if self.state is State.FORKED:
            return
        if self.state is State.NEW:
            self.state = State.CLOSED
        if self.state is State.RUNNING:
            self.state = State.CLOSING
            self.doors.clear()
            assert self.thread is not None
            self.thread.stop()
        try:
            if self.thread is not None:
                self.thread.join()
        finally:
            if self.state is State.CLOSING:
                self.state = State.CLOSED
            _live.discard(self)
            atexit.unregister(self._close_at_exit)

    def abort(self) -> None:
        """End a `close` that is under way in another thread now."""
        if self.thread is not None and self.state is State.CLOSING:
            self.thread.hurry()

    def running(self) -> tuple[Runtime, asyncio.AbstractEventLoop]:
        """The runtime and its loop.

        Raises:
            RecorderClosed, RecorderForked: it does not run.
        """
        if self.state is not State.RUNNING or self.thread is None:
            raise self.shut("recorder")
        return self.thread.runtime, self.thread.loop

    def ask(self, question: Callable[[Runtime], T]) -> T:
        """An answer of the runtime, taken on its loop; also of one that has ended.

        Raises:
            RecorderClosed, RecorderForked: there never was one here.
        """
        if self.state in (State.NEW, State.FORKED) or self.thread is None:
            raise self.shut("recorder")
        return self.thread.ask(question)

    def shut(self, table: str) -> Exception:
        """Why there is no door for a table."""
        if self.state is State.FORKED:
            return RecorderForked(
                f"{table}: this process was forked after the recorder started, and the recorder stayed in the "
                "parent; make a Recorder in the child, with a target and data_dir of its own"
            )
        if self.state is not State.RUNNING:
            how = {State.NEW: "is not started", State.FAILED: "ended unexpectedly; its log says why"}
            return RecorderClosed(f"{table}: the recorder {how.get(self.state, 'is closed')}")
        names = ", ".join(sorted(self._tables))
        return UnknownTable(f"no table {table!r}; the loaded packs have {names}")

    def _thread_ended(self) -> None:
        if self.state is State.RUNNING:
            self.doors.clear()
            self.state = State.FAILED

    def _close_at_exit(self) -> None:
        if self.state is State.RUNNING:
            log.warning("the recorder was not closed; closing it as the interpreter exits")
        self.close()

    def _after_fork(self) -> None:
        self.doors.clear()
        self.state = State.FORKED
