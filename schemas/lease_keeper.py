"""A lease that is renewed by a thread of its own, while its holder is at something that may take longer than it."""

from __future__ import annotations

import sys
import threading
import time
from typing import Self

from schemas.errors import LockLost
from schemas.lock import LEASE_S, Lease

RENEW_S = LEASE_S / 6


def awake_s() -> float:
    """A clock that goes on while the machine sleeps, where there is one, as the lease does; from an unknown time on."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class LeaseKeeper:
    """Renews a lease for a `with` block. The lease's connection is used by one thread at a time, and by nobody else."""

    def __init__(self, lease: Lease, *, name: str, renew_s: float = RENEW_S):
        self._lease, self._renew_s = lease, renew_s
        self._turn = threading.Lock()
        self._renewed_s = awake_s()
        self._lost: LockLost | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def check(self, *, fresh_s: float = 0.0) -> None:
        """See that the lease is held: asks the server where it was not renewed for `fresh_s`.

        After a sleep of the machine, of which the thread's own waiting knows nothing, it was not.

        Raises:
            LockLost: another one took it over.
            Exception: the server does not say; whatever its executor raises.
        """
        with self._turn:
            if self._lost is not None:
                raise self._lost
            if awake_s() - self._renewed_s >= fresh_s:
                self._renew()

    def _renew(self) -> None:
        at_s = awake_s()  # before the question: the server counts from when it heard it
        try:
            self._lease.renew()
        except LockLost as error:
            self._lost = error
            raise
        self._renewed_s = at_s

    def _keep(self) -> None:
        while self._lost is None and not self._ended.wait(self._renew_s):
            with self._turn:
                try:
                    self._renew()
                except Exception:  # noqa: BLE001 - lost, which `check` says, or the server is away: so it is for all
                    continue
