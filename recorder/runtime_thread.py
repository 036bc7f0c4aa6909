"""The thread a runtime lives on: one event loop, from start to close, and how other threads ask it something."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

from recorder.log import get_logger
from recorder.loop import new_loop
from recorder.runtime import Runtime

log = get_logger("recorder")
T = TypeVar("T")

ALIVE_CHECK_S = 0.1
"""How often who waits for the thread sees whether it is still there."""


class RuntimeThread:
    """Runs the runtime that `make` makes, on the loop, until `stop`; then closes it within `shutdown_timeout_s`.

    `switch_interval_s` is the interpreter's for as long as the thread lives; None leaves it alone. `ended` is called
    on the thread as its last act, whatever ended it.
    """

    def __init__(
        self,
        make: Callable[[], Runtime],
        *,
        shutdown_timeout_s: float,
        switch_interval_s: float | None,
        ended: Callable[[], None],
    ):
        self._make = make
        self._shutdown_timeout_s = shutdown_timeout_s
        self._switch_interval_s = switch_interval_s
        self._old_switch_interval_s: float | None = None
        self._ended = ended
        self._started = threading.Event()
        # Not the thread's word: a `Thread.join` that a signal interrupts may take a running thread for an ended one.
        self._finished = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self.loop: asyncio.AbstractEventLoop
        """There once `start` has returned; `runtime` too."""
        self.runtime: Runtime

    def start(self) -> None:
        """Return when the runtime has started; raise what it raised. Interrupted, it is closed before that is told."""
        if self._switch_interval_s is not None:
            self._old_switch_interval_s = sys.getswitchinterval()
            sys.setswitchinterval(self._switch_interval_s)
        self._thread.start()
        interrupted = _waited_out(self._started)
        if interrupted is not None:
            if not self._finished.is_set():
                self.stop()
            self.join()
            raise interrupted
        if self._failure is not None:
            self.join()
            raise self._failure

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return not self._finished.is_set()

    def stop(self) -> None:
        """Begin to close. From any thread."""
        with contextlib.suppress(RuntimeError):  # it failed just now, and its loop is gone
            self.loop.call_soon_threadsafe(self._stop.set)

    def hurry(self) -> None:
        """End a close that is under way: flush no more. From any thread."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.runtime.hurry)

    def join(self) -> None:
        """Return when the thread has ended. An interrupt (Ctrl-C, SIGTERM) is raised then, and not before.

        Whoever closes a recorder waits for accepted rows, for a bounded time: leaving earlier loses them uncounted.
        """
        interrupted = _waited_out(self._finished)
        before, self._old_switch_interval_s = self._old_switch_interval_s, None
        if before is not None:
            sys.setswitchinterval(before)
        self._thread.join()
        if interrupted is not None:
            raise interrupted

    def ask(self, question: Callable[[Runtime], T]) -> T:
        """An answer of the runtime, taken on its loop, where no row is between two counts; or after its end."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def answer() -> None:
            try:
                future.set_result(question(self.runtime))
            except Exception as error:  # noqa: BLE001 - it belongs to who asks
                future.set_exception(error)

        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(answer)
        while not self._finished.is_set():
            if concurrent.futures.wait([future], ALIVE_CHECK_S).done:
                return future.result()
        return question(self.runtime)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                self.loop = runner.get_loop()
                runner.run(self._live())
        except BaseException as error:
            if self._started.is_set():
                log.critical("the recorder ended unexpectedly", error=repr(error), exc_info=True)
            self._failure = error  # for the thread that called `start`
        finally:
            self._ended()
            self._started.set()
            self._finished.set()

    async def _live(self) -> None:
        self._stop = asyncio.Event()
        self.runtime = self._make()
        await self.runtime.start()
        self._started.set()
        try:
            await self._stop.wait()
            await self.runtime.close(self._shutdown_timeout_s)
        except BaseException:
            # Else its logs stay locked, and its threads go on, for as long as the process lives.
            await self.runtime.abort()
            raise


def _waited_out(event: threading.Event) -> BaseException | None:
    """Wait for an event to the end; what interrupted the wait, the first of it."""
    interrupted: BaseException | None = None
    while not event.is_set():
        try:
            event.wait()
        except BaseException as error:  # noqa: BLE001 - raised by who called, when it may be
            interrupted = interrupted or error
    return interrupted
