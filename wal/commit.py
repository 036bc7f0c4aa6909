"""The threads that write and sync the logs of a process, so that nobody who appends ever waits for a disk.

One thread keeps time: it sleeps until something is appended anywhere, waits `group_ms` from the first append, and then
hands every log that has something to a worker: each log encodes, writes, syncs and tells by itself, beside the others.
So one that fails or hangs holds up nobody: it is left out until it comes back, and where it takes a worker with it,
another one is started.

Invariants: a log is in the hands of one worker at a time. No error of a log ends a thread. It knows nothing of files.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Protocol

from wal.errors import LogClosed

STUCK_S = 0.25
"""A worker that is that long at one thing counts as stuck when others wait."""
END_S = 1.0
"""How long threads that do nothing may take to end."""

log = logging.getLogger("wal.commit")


class Member(Protocol):
    """A log, as its commit sees it."""

    @property
    def name(self) -> str:
        """For messages."""

    def round(self) -> float | None:
        """Write what there is to write. When the next round is due by itself, of the monotonic clock; None: never."""

    def close(self, timeout_s: float) -> bool:
        """End it; whether all is on disk."""


Job = Callable[[], None]

_live: weakref.WeakSet[GroupCommit] = weakref.WeakSet()


def _forked() -> None:
    """In a forked child: its threads are the parent's."""
    for commit in _live:
        commit._forked = True


os.register_at_fork(after_in_child=_forked)


class GroupCommit:
    """For all logs of a process. `threads` work side by side while none of them is stuck; then as many more as needed.

    Its threads start with the first log that is opened.
    """

    def __init__(self, *, group_ms: float = 10.0, threads: int = 4):
        if not 0 <= group_ms <= 60_000:
            raise ValueError(f"group_ms={group_ms}; 0 to 60,000")
        if threads < 1:
            raise ValueError(f"threads={threads}; at least one")
        self._group_s = group_ms / 1_000
        self._threads = threads
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        """For the thread that keeps time."""
        self._work = threading.Condition(lock)
        """For workers."""
        self._members: list[Member] = []
        self._due: dict[Member, float] = {}
        self._busy: set[Member] = set()
        self._group_at_s = 0.0
        self._wakes_at_s = math.inf
        self._jobs: deque[tuple[Member, Job | None]] = deque()
        self._workers = 0
        self._since_s: dict[int, float] = {}
        """Of each worker that has something in hand: since when."""
        self._started = False
        self._ended = False
        self._forked = False
        _live.add(self)

    # -- for logs ------------------------------------------------------------------------------------------------

    def join(self, member: Member) -> None:
        """Take a log in.

        Raises:
            LogClosed: it is closed, or the process forked after it was made.
        """
        if self._forked:
            raise LogClosed(
                f"{member.name}: the process forked after its GroupCommit was made; make another one"
            )
        with self._changed:
            if self._ended:
                raise LogClosed(f"{member.name}: its GroupCommit is closed; make another one")
            self._members.append(member)
            if not self._started:
                self._started = True
                threading.Thread(target=self._keep_time, name="wal-commit", daemon=True).start()

    def leave(self, member: Member) -> None:
        """A log has ended."""
        with self._changed:
            if member in self._members:
                self._members.remove(member)
            self._due.pop(member, None)

    def due(self, member: Member, *, now: bool = False) -> None:
        """A log has something to write: with the next group, or now."""
        now_s = time.monotonic()
        with self._changed:
            if self._group_at_s <= now_s:
                self._group_at_s = now_s + self._group_s
            self._set_due(member, now_s if now else self._group_at_s)

    def submit(self, member: Member, job: Job) -> None:
        """Something of a log that may take long, beside its rounds."""
        with self._changed:
            self._jobs.append((member, job))
            self._staff(time.monotonic())
            # Whoever keeps time looks whether somebody took it.
            self._changed.notify()

    def _set_due(self, member: Member, at_s: float) -> None:
        if at_s < self._due.get(member, math.inf):
            self._due[member] = at_s
        if at_s < self._wakes_at_s and member not in self._busy:
            self._wakes_at_s = at_s
            self._changed.notify()

    # -- threads -------------------------------------------------------------------------------------------------

    def _keep_time(self) -> None:
        with self._changed:
            while not self._ended:
                now_s = time.monotonic()
                for member in [m for m, at_s in self._due.items() if at_s <= now_s and m not in self._busy]:
                    del self._due[member]
                    self._busy.add(member)
                    self._jobs.append((member, None))
                self._staff(now_s)
                waits = [at_s for member, at_s in self._due.items() if member not in self._busy]
                if self._jobs:
                    waits.append(now_s + STUCK_S)
                self._wakes_at_s = min(waits, default=math.inf)
                self._changed.wait(None if not waits else max(0.0, self._wakes_at_s - now_s))

    def _staff(self, now_s: float) -> None:
        """As many workers as there is work for, and no more than `threads` that are not stuck."""
        idle = self._workers - len(self._since_s)
        room = self._threads + self._stuck(now_s) - self._workers
        for _ in range(min(len(self._jobs) - idle, room)):
            try:
                threading.Thread(target=self._worker, name="wal-commit-worker", daemon=True).start()
            except RuntimeError:  # the system has no thread for us: those that are there do it, later
                log.warning("no thread can be started; %d work for the logs", self._workers)
                break
            self._workers += 1
        if self._jobs:
            self._work.notify(len(self._jobs))

    def _stuck(self, now_s: float) -> int:
        return sum(now_s - since_s >= STUCK_S for since_s in self._since_s.values())

    def _worker(self) -> None:
        me = threading.get_ident()
        while True:
            with self._work:
                while not self._jobs:
                    if self._ended or self._workers > self._threads + self._stuck(time.monotonic()):
                        self._workers -= 1
                        return
                    self._work.wait()
                member, job = self._jobs.popleft()
                self._since_s[me] = time.monotonic()
            again_s = self._do(member, job)
            with self._work:
                del self._since_s[me]
                if job is None:
                    self._busy.discard(member)
                    if again_s is not None and not self._ended:
                        self._set_due(member, again_s)
                    if (at_s := self._due.get(member)) is not None:
                        self._set_due(member, at_s)
                if self._ended and member in self._due and member not in self._busy:
                    # Nobody keeps time any more, and it hung: it is to let go of its log.
                    del self._due[member]
                    self._busy.add(member)
                    self._jobs.append((member, None))

    def _do(self, member: Member, job: Job | None) -> float | None:
        try:
            if job is None:
                return member.round()
            job()
        except Exception:
            # A log handles its own errors: this is one of ours. The others go on, and this one tries again.
            log.exception("%s: unexpected error in its commit; going on in a second", member.name)
            return time.monotonic() + 1.0
        return None

    # -- the end -------------------------------------------------------------------------------------------------

    def close(self, timeout_s: float) -> bool:
        """Close the logs that are still open, all at once, and end the threads; whether all is on disk. Idempotent.

        A thread that hangs in a call of the system is left behind; when it comes back it lets go of its log, and does
        nothing more.
        """
        if self._forked:
            return False
        end_s = time.monotonic() + timeout_s
        with self._changed:
            members = list(self._members)
        outcome: list[bool] = []

        def end(member: Member) -> None:
            outcome.append(member.close(timeout_s))

        closing = [threading.Thread(target=end, args=[member], daemon=True) for member in members]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join(max(0.0, end_s - time.monotonic()) + END_S)
        with self._changed:
            self._ended = True
            self._changed.notify_all()
            self._work.notify_all()
        while self._workers and time.monotonic() < end_s + END_S:
            time.sleep(0.001)
            if self._since_s and time.monotonic() > end_s:
                break
        return len(outcome) == len(members) and all(outcome) and not self._since_s
