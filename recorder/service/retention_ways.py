"""How a recorder carries out a run of retention, so that it does not slow recording.

On a server: in a process of its own (`recorder.retaining.child`), with a low priority. On an embedded database this
process is the only one that can: in a thread, with a low priority, on handles of its own. Either may be stopped at any
moment, and ended by `kill -9`: the next run goes on.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from recorder.log import get_logger
from recorder.redact import redacted
from recorder.retaining.book import End, Ended, Told

if TYPE_CHECKING:
    from recorder.settings import Settings
    from schemas.pack import Pack

log = get_logger("recorder.retention")

CHILD: tuple[str, ...] = ("-P", "-m", "recorder.retaining.child")
END_S = 10.0
"""How long a process may take to end that has said how its run ended."""
NICE = 10
TOLD_TO_END = (128 + signal.SIGTERM, -signal.SIGTERM)


class Way(abc.ABC):
    """One run after the other: `run`, and from elsewhere on its loop `stop` and `kill`."""

    @abc.abstractmethod
    async def run(self, told: Callable[[Told], None]) -> End:
        """Carry out what is due; `told` hears of each action, on the loop.

        Raises:
            OSError: it cannot begin.
        """

    @abc.abstractmethod
    def stop(self) -> None:
        """Have the run end soon, between two steps."""

    @abc.abstractmethod
    def kill(self) -> None:
        """Have it end now, where that can be had."""

    @property
    @abc.abstractmethod
    def stuck(self) -> bool:
        """Whether a run goes on that does not end though it was told to."""


def way_for(settings: Settings, packs: Sequence[Pack]) -> Way:
    """The way for the target of these settings, which a run has as they are."""
    return InThread(settings, packs) if settings.target.embedded else InProcess(settings)


class InProcess(Way):
    """In a process of its own."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._stopped = False

    async def run(self, told: Callable[[Told], None]) -> End:
        """See `Way`."""
        from recorder.retaining.child import LINE_BYTES, read_line, sent

        self._stopped = False
        # In a session of its own: Ctrl-C is for the recorder, which then ends its child once.
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            *CHILD,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=LINE_BYTES,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        if self._stopped:  # meanwhile
            self._send(signal.SIGTERM)
        assert process.stdin is not None
        assert process.stdout is not None
        end: End | None = None
        try:
            with contextlib.suppress(ConnectionError):  # it has ended: its code says so
                process.stdin.write(sent(self._settings))
                await process.stdin.drain()
            async for line in process.stdout:
                said = read_line(line)
                if isinstance(said, End):
                    end = said
                    break
                told(said)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await process.wait()
        finally:
            process.stdin.close()
            self.kill()
            code = await process.wait()
            self._process = None
        if end is not None:
            return end
        if self._stopped or code in TOLD_TO_END:  # by this recorder, or by whoever ends it too
            return End(how=Ended.STOPPED)
        return End(how=Ended.FAILED, why=_died(code))

    def stop(self) -> None:
        """See `Way`."""
        self._stopped = True
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """See `Way`."""
        self._send(signal.SIGKILL)

    @property
    def stuck(self) -> bool:
        """See `Way`; a process can always be killed."""
        return False

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


def _died(code: int) -> str:
    if code < 0:
        name = next((number.name for number in signal.Signals if number == -code), f"signal {-code}")
        return f"its process was ended by {name} before the run was; the next one goes on"
    return f"its process ended with code {code} before the run did; the log has its last words"


class InThread(Way):
    """In a thread of this process, on the embedded engine that is open in it."""

    def __init__(self, settings: Settings, packs: Sequence[Pack]):
        self._settings, self._packs = settings, packs
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    async def run(self, told: Callable[[Told], None]) -> End:
        """See `Way`."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[End] = loop.create_future()
        self._stop.clear()

        def tell(said: Told | End) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
                loop.call_soon_threadsafe(self._hear, said, told, ended)

        # A daemon: one that does not end must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, args=(tell,), name="retention", daemon=True)
        self._thread.start()
        return await ended

    def stop(self) -> None:
        """See `Way`."""
        self._stop.set()

    def kill(self) -> None:
        """See `Way`; a thread cannot be."""
        self._stop.set()

    @property
    def stuck(self) -> bool:
        """See `Way`."""
        return self._stop.is_set() and self._thread is not None and self._thread.is_alive()

    @staticmethod
    def _hear(said: Told | End, told: Callable[[Told], None], ended: asyncio.Future[End]) -> None:
        if isinstance(said, Told):
            told(said)
        elif not ended.done():
            ended.set_result(said)

    def _work(self, tell: Callable[[Told | End], None]) -> None:
        try:
            from recorder.retaining.run import runner_beside, said

            _lower_priority()
            opened = runner_beside(self._settings, self._packs, self._check)
            for one in said(self._settings, self._packs, opened, self._check):
                tell(one)
        except BaseException as error:  # as when the code was replaced below a recorder that runs
            tell(End(how=Ended.FAILED, why=redacted(str(error) or repr(error))))
            raise

    def _check(self) -> None:
        if self._stop.is_set():
            raise SystemExit  # no `Exception`: the runner takes those for what becomes of one action


def _lower_priority() -> None:
    if sys.platform == "linux":  # elsewhere a priority is the whole process's
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
