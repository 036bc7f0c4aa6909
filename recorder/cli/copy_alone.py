"""One copy into a database at a time: two that look up the same absent row in the same moment would both insert it.

The lock is in the target, so it holds for copies from other machines and under other spellings of the URL too; it is of
the kind that migrations have, under a name of its own. A thread renews it, since a comparison may be longer than its
lease. An embedded target needs none: one process has it open.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from recorder.cli.errors import Failure
from recorder.copying import CopyStopped
from recorder.copying.errors import GO_ON
from recorder.reading.database import server_client
from recorder.sink.errors import SinkUnavailable
from schemas.errors import LockLost, LockTimeout
from schemas.executor import ClientExecutor, error_code
from schemas.lock import LEASE_S, Lease, MigrationLock

if TYPE_CHECKING:
    from recorder.settings import Settings

LOCK_TABLE = "recorder_copy_lock"
RENEW_S = LEASE_S / 6
ANSWER_S = 30.0
_ACCESS_DENIED = 497


@contextlib.contextmanager
def alone(settings: Settings, *, renew_s: float = RENEW_S) -> Iterator[Callable[[], None]]:
    """Hold the lock of a target for a block; what it gives is called before each insert, and raises where the lock is
    lost (`CopyStopped`) or nobody can say whether it is (`SinkUnavailable`).

    Raises:
        Failure: another copy runs, or the user may not make the table that is the lock.
    """
    if settings.target.embedded:
        yield lambda: None
        return
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(server_client(settings, read_timeout_s=ANSWER_S))
        lock = MigrationLock(ClientExecutor(client), settings.database, owner=owner, table=LOCK_TABLE)
        held = lock.held(timeout_s=0)
        try:
            lease = held.__enter__()
        except LockTimeout as error:
            holder = lock.states()[-1]
            raise Failure(
                f"another copy into {settings.target} is running ({holder.owner}, heard of {holder.silent_s} s ago); "
                f"wait until it has ended; one that was killed on another machine counts for {LEASE_S} s more"
            ) from error
        except Exception as error:
            if error_code(error) != _ACCESS_DENIED:
                raise
            raise Failure(
                f"{settings.target}: a copy keeps others away by a table {LOCK_TABLE}_…, and the user may not make it; "
                f"GRANT CREATE TABLE, DROP TABLE, ALTER TABLE ON {settings.database}.* ({error})"
            ) from error
        stack.callback(_give_back, held)
        keeper = _Keeper(lease, str(settings.target), renew_s)
        stack.callback(keeper.close)
        keeper.start()
        yield keeper.check


def _now_s() -> float:
    """A clock that goes on while the machine sleeps: the lease does."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _give_back(held: contextlib.AbstractContextManager[Lease]) -> None:
    with contextlib.suppress(Exception):  # it frees itself
        held.__exit__(None, None, None)


class _Keeper:
    """Renews a lease in a thread of its own. The lease's client is used under `_mutex` alone."""

    def __init__(self, lease: Lease, target: str, renew_s: float):
        self._lease, self._target, self._renew_s = lease, target, renew_s
        self._mutex = threading.Lock()
        self._renewed_s = _now_s()
        self._lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="copy-lock", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def check(self) -> None:
        """See that the lock is still held; asks the target where it has not been renewed for long.

        Raises:
            CopyStopped: another copy took over.
            SinkUnavailable: the target does not say.
        """
        if not self._lost and _now_s() - self._renewed_s > LEASE_S / 2:
            try:
                self._renew()
            except LockLost:
                pass  # said below
            except Exception as error:
                raise SinkUnavailable(f"the lock of this copy cannot be renewed: {error}") from error
        if self._lost:
            raise CopyStopped(
                f"{self._target}: this copy was silent for more than {LEASE_S} s, and another one took over; {GO_ON}"
            )

    def close(self) -> None:
        """Renew no more."""
        self._ended.set()
        self._thread.join()

    def _renew(self) -> None:
        with self._mutex:
            at_s = _now_s()  # before the question: the server counts from when it heard it
            try:
                self._lease.renew()
            except LockLost:
                self._lost = True
                raise
            self._renewed_s = at_s

    def _keep(self) -> None:
        while not self._ended.wait(self._renew_s):
            try:
                self._renew()
            except LockLost:
                return
            except Exception:  # noqa: BLE001 - the target is away: so it is for every other copy
                continue
