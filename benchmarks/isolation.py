"""Keep a core for a producer alone for a while, as `isolcpus` and its like do at boot for a trading loop's core.

Pinning the producer, and what the benchmark starts, leaves everybody else: other programs, and the kernel, whose
writeback and RCU threads run wherever they like, for up to a tick of the scheduler at a time. Moved away are all
threads of others that may be moved, the kernel's among them, unbound workqueues (`/sys/devices/virtual/workqueue`) and
interrupts. All is put back at the end. What stays are the core's own kernel threads: with a database on a local disk,
the one that hands requests to the disk.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

WORKQUEUES = Path("/sys/devices/virtual/workqueue")
INTERRUPTS = Path("/proc/irq")
PROCESSES = Path("/proc")


class CannotIsolate(RuntimeError):  # noqa: N818 - reads as what it is in `except CannotIsolate`
    """This system, or this user, may not."""


@contextlib.contextmanager
def others_on(cores: Collection[int]) -> Iterator[None]:
    """Have all other programs, and the kernel, run on these cores, as far as they can be told to; where none are given,
    nothing is changed.

    Raises:
        CannotIsolate: only root may, on Linux.
    """
    if not cores:
        yield
        return
    if not WORKQUEUES.is_dir() or os.geteuid() != 0:
        raise CannotIsolate("keeping everybody else off a core takes Linux and root")
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
        for thread in threads_of_others():
            with contextlib.suppress(OSError):  # bound to a core, or ended
                allowed = os.sched_getaffinity(thread)
                os.sched_setaffinity(thread, cores)
                undo.callback(_let_back, thread, allowed)
        yield


def threads_of_others() -> list[int]:
    """Every thread of the system but this process's own."""
    own = os.getpid()
    return [
        int(task.name)
        for process in PROCESSES.iterdir()
        if process.name.isdecimal() and int(process.name) != own
        for task in _tasks(process)
    ]


def _tasks(process: Path) -> list[Path]:
    try:
        return list((process / "task").iterdir())
    except OSError:  # it has ended
        return []


def _put_back(path: Path, text: str) -> None:
    with contextlib.suppress(OSError):
        path.write_text(text)


def _let_back(thread: int, cores: Collection[int]) -> None:
    with contextlib.suppress(OSError):  # it may have ended
        os.sched_setaffinity(thread, cores)
