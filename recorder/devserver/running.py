"""The statements that run now: how many may, by which query id each is known, and how one is ended."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from recorder.devserver.errors import Code, StatementError

T = TypeVar("T")
UNCOUNTED = 8
"""Statements about the others that run beside as many as may; more of them count like any."""
_NUMBERS = itertools.count(1)


class Run:
    """A statement under way. `mark` tells it from all others in the engine's list of processes.

    `timezone` is the one it runs in, once that is known; empty for the server's. `types` are those of its columns,
    where they had to be asked for before it ran.
    """

    def __init__(self, query_id: str):
        self.query_id = query_id
        self.mark = f"recorder-{os.getpid()}-{next(_NUMBERS)}"
        self.cancelled = False
        self.timezone = ""
        self.types: list[str] | None = None

    def check(self) -> None:
        """Raise where nobody waits for it any more.

        Raises:
            StatementError: it was cancelled.
        """
        if self.cancelled:
            raise StatementError.ours(Code.QUERY_WAS_CANCELLED, "Query was cancelled.")


class Running:
    """The statements of a server, at most `limit` that count, and `UNCOUNTED` beside them."""

    def __init__(self, limit: int):
        self._limit = limit
        self._runs: dict[str, Run] = {}
        self._counted: set[str] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def begin(self, run: Run, *, counts: bool) -> None:
        """Take a statement in.

        Raises:
            StatementError: there are too many, or its query id is in use.
        """
        if run.query_id in self._runs:
            raise StatementError.ours(
                Code.QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING,
                f"Query with id = {run.query_id} is already running.",
            )
        if counts or len(self._runs) - len(self._counted) >= UNCOUNTED:
            if len(self._counted) >= self._limit:
                raise StatementError.ours(
                    Code.TOO_MANY_SIMULTANEOUS_QUERIES,
                    f"Too many simultaneous queries. Maximum: {self._limit}.",
                )
            self._counted.add(run.query_id)
        self._runs[run.query_id] = run
        self._idle.clear()

    def end(self, run: Run) -> None:
        """It has ended."""
        if self._runs.get(run.query_id) is run:
            del self._runs[run.query_id]
            self._counted.discard(run.query_id)
            if not self._runs:
                self._idle.set()

    def by_id(self, query_id: str) -> Run | None:
        """The statement of this query id."""
        return self._runs.get(query_id)

    async def idle(self) -> None:
        """Return when none runs."""
        await self._idle.wait()

    def all(self) -> list[Run]:
        """Those under way."""
        return list(self._runs.values())


def on_thread(name: str, work: Callable[[], T], *, nice: int = 0) -> asyncio.Future[T]:
    """Run `work` on a thread of its own, which does not keep the process from exiting.

    With `nice`, it and the threads it starts have that priority, on Linux.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def done(setter: Callable[[Any], None], value: Any) -> None:
        if not future.done():
            setter(value)

    def run() -> None:
        try:
            _lower_priority(nice)
            result = work()
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the future
            _tell(loop, done, future.set_exception, error)
        else:
            _tell(loop, done, future.set_result, result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def _lower_priority(nice: int) -> None:
    if nice == 0 or sys.platform != "linux":  # elsewhere a priority is the whole process's
        return
    thread = threading.get_native_id()
    with contextlib.suppress(OSError):  # a system that forbids it serves at the priority it has
        if os.getpriority(os.PRIO_PROCESS, thread) < nice:
            os.setpriority(os.PRIO_PROCESS, thread, nice)


def _tell(loop: asyncio.AbstractEventLoop, *call: Any) -> None:
    try:
        loop.call_soon_threadsafe(*call)
    except RuntimeError:
        if not loop.is_closed():
            raise
