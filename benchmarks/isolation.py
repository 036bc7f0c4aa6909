"""Keep the kernel's own work off a core for a while, as `isolcpus` and its like do at boot for a trading loop's core.

Pinning keeps other programs away; the kernel still runs its writeback and RCU threads wherever it likes, for up to a
tick of the scheduler at a time. Moved away are: unbound workqueues (`/sys/devices/virtual/workqueue`), the kernel's
threads that may be moved, and interrupts that may be. All is put back at the end.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]

WORKQUEUES = Path("/sys/devices/virtual/workqueue")
INTERRUPTS = Path("/proc/irq")
KTHREADD = 2
"""The process whose children are the kernel's threads."""


class CannotIsolate(RuntimeError):  # noqa: N818 - reads as what it is in `except CannotIsolate`
    """This system, or this user, may not."""


@contextlib.contextmanager
def kernel_on(cores: Collection[int]) -> Iterator[None]:
    """Have the kernel do its own work on these cores, where it can be told; nowhere else is changed if none are given.

    Raises:
        CannotIsolate: only root may, on Linux.
    """
    if not cores:
        yield
        return
    if not WORKQUEUES.is_dir() or os.geteuid() != 0:
        raise CannotIsolate("keeping the kernel's work off a core takes Linux and root")
    mask = f"{sum(1 << core for core in cores):x}"
    with contextlib.ExitStack() as undo:
        for path in (
            WORKQUEUES / "cpumask",
            *WORKQUEUES.glob("*/cpumask"),
            *INTERRUPTS.glob("*/smp_affinity"),
        ):
            with contextlib.suppress(OSError):  # some may not be told
                before = path.read_text().strip()
                path.write_text(mask)
                undo.callback(_put_back, path, before)
        for thread in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                if thread.ppid() == KTHREADD:
                    allowed = os.sched_getaffinity(thread.pid)
                    os.sched_setaffinity(thread.pid, cores)
                    undo.callback(_let_back, thread.pid, allowed)
        yield


def _put_back(path: Path, text: str) -> None:
    with contextlib.suppress(OSError):
        path.write_text(text)


def _let_back(thread: int, cores: Collection[int]) -> None:
    with contextlib.suppress(OSError):  # it may have ended
        os.sched_setaffinity(thread, cores)
