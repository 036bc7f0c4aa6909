"""Keeps the lock of migrations while a table is copied: one statement may take longer than the lock's lease.

Without it another command would take the lock over amid a long INSERT, and end that. It does not take part in what is
done under the lock.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from schemas.errors import LockLost
from schemas.lock import LEASE_S, Lease
from schemas.manager import Manager

RENEW_S = LEASE_S / 6


@contextlib.contextmanager
def kept(manager: Manager, *, renew_s: float = RENEW_S) -> Iterator[Callable[[], None]]:
    """Hold the lock for a block, renewed by a thread, which uses the manager's connection: nobody else may meanwhile.

    What it gives is called before each statement.

    Raises:
        LockTimeout: another one holds it; from what it gives `LockLost`: another one took it over.
    """
    with manager.alone() as lease:
        keeper = _Keeper(lease, renew_s)
        try:
            yield keeper.check
        finally:
            keeper.close()


class _Keeper:
    """Renews a lease until `close`; its users take turns."""

    def __init__(self, lease: Lease, renew_s: float):
        self._lease, self._renew_s = lease, renew_s
        self._lost: LockLost | None = None
        self._turn = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="repartition-lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Renew it now.

        Raises:
            LockLost: another one took it over.
        """
        with self._turn:
            if self._lost is not None:
                raise self._lost
            self._lease.renew()

    def close(self) -> None:
        """Renew no more."""
        self._ended.set()
        self._thread.join()

    def _keep(self) -> None:
        while self._lost is None and not self._ended.wait(self._renew_s):
            with self._turn:
                try:
                    self._lease.renew()
                except LockLost as error:
                    self._lost = error
                except Exception:  # noqa: BLE001 - the server is away: so it is for every other one
                    continue
