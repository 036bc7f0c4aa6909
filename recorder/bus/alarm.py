"""A timer that one thread waits for and others put off, without the interpreter's lock changing hands.

While a process publishes, its calls serve the socket and put the alarm off each time; a thread waits for it, and wakes
only when they have stopped. A thread that woke to look whether they have would need the interpreter's lock for it, and
take it from the very call that must not wait: beside busy cores a millisecond each time.

On Linux it is a timer of the kernel's (timerfd_create(2)), set by a call that keeps the lock, and waited for by a read
that lets go of it. Elsewhere the waiting thread looks every `LOOK_S`.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from typing import Any, Protocol

LOOK_S = 0.05
_CLOEXEC = 0o2000000


class Alarm(Protocol):
    """Goes off once, so long after it was last set."""

    def set(self, after_ns: int) -> None:
        """Go off so much later than now, at least 1 ns, and not when it was set for before. From any thread."""

    def wait(self) -> None:
        """Return when it has gone off since the last call. One thread's."""

    def close(self) -> None:
        """Let go of it, by the thread that waits. Setting it does nothing then."""


class KernelAlarm:
    """The kernel's timer.

    Raises:
        OSError: there is none to be had.
    """

    def __init__(self) -> None:
        # Not CDLL: that would let go of the interpreter's lock around a call that takes less than a microsecond.
        library = ctypes.PyDLL(None, use_errno=True)
        self._settime: Any = library.timerfd_settime
        self._specs: dict[int, Any] = {}
        self._fd: int = library.timerfd_create(time.CLOCK_MONOTONIC, _CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), f"timerfd_create: {os.strerror(ctypes.get_errno())}")

    def set(self, after_ns: int) -> None:
        """See `Alarm`."""
        spec = self._specs.get(after_ns)
        if spec is None:
            # struct itimerspec: no repetition, then seconds and nanoseconds. Kept: callers set few different times,
            # and no two threads may fill in the same one.
            spec = self._specs[after_ns] = (ctypes.c_long * 4)(0, 0, *divmod(after_ns, 1_000_000_000))
        self._settime(self._fd, 0, spec, None)

    def wait(self) -> None:
        """See `Alarm`."""
        os.read(self._fd, 8)

    def close(self) -> None:
        """See `Alarm`."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class LookingAlarm:
    """A time, and a thread that looks whether it has come."""

    def __init__(self) -> None:
        self._due_ns = 0
        self._gone_off_ns = 0

    def set(self, after_ns: int) -> None:
        """See `Alarm`."""
        self._due_ns = time.monotonic_ns() + after_ns

    def wait(self) -> None:
        """See `Alarm`."""
        while True:
            due_ns = self._due_ns
            if due_ns != self._gone_off_ns and time.monotonic_ns() >= due_ns:
                self._gone_off_ns = due_ns
                return
            time.sleep(
                LOOK_S
            )  # not until it is due: it is put off all the time, and each look takes the lock

    def close(self) -> None:
        """See `Alarm`."""


def make_alarm() -> Alarm:
    """The kernel's timer, where there is one."""
    if sys.platform == "linux":
        try:
            return KernelAlarm()
        except (OSError, AttributeError):  # no descriptor is left, or the C library has no such function
            pass
    return LookingAlarm()
