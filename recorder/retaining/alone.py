"""One run of retention at a time on a database.

On a server the lock is in the database, of the kind that migrations have, under a name of its own: so it holds for
recorders and commands of all machines. A thread with a connection of its own renews it, since one action may be longer
than its lease; who is killed loses it. An embedded database has one process, and its runs a lock file in the data
folder. Two runs at once would harm nobody, for each proves for itself what it drops; they would do the work twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from recorder.errors import RecorderError
from schemas.errors import LockLost, LockTimeout
from schemas.executor import ClientExecutor, error_code
from schemas.lock import LEASE_S, Lease, MigrationLock

if TYPE_CHECKING:
    from recorder.settings import Settings

LOCK_TABLE = "recorder_retention_lock"
LOCK_FILE = "retention.lock"
RENEW_S = LEASE_S / 6
ANSWER_S = 30.0
_UNKNOWN_DATABASE = 81
_ACCESS_DENIED = 497


class RetentionBusy(RecorderError):  # noqa: N818 - says what is the case
    """Another run works on this database, or took over from this one."""


class RetentionForbidden(RecorderError):  # noqa: N818 - says what happened
    """The user may not take the lock."""


@contextlib.contextmanager
def alone(settings: Settings, *, renew_s: float = RENEW_S) -> Iterator[Callable[[], None]]:
    """Keep other runs away for a block; what it gives is called between actions.

    Raises:
        RetentionBusy: another run is at work; from what it gives: another one took over.
        RetentionForbidden: the user may not make the table that is the lock.
        SinkError: the server cannot be reached.
    """
    held = _file(settings) if settings.target.embedded else _lease(settings, renew_s)
    with held as check:
        yield check


@contextlib.contextmanager
def _file(settings: Settings) -> Iterator[Callable[[], None]]:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with (settings.data_dir / LOCK_FILE).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RetentionBusy(
                f"{settings.data_dir / LOCK_FILE}: another run of retention holds it; wait until it has ended"
            ) from None
        yield lambda: None


@contextlib.contextmanager
def _lease(settings: Settings, renew_s: float) -> Iterator[Callable[[], None]]:
    from recorder.reading.database import server_client

    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(server_client(settings, read_timeout_s=ANSWER_S))
        lock = MigrationLock(ClientExecutor(client), settings.database, owner=owner, table=LOCK_TABLE)
        held = lock.held(timeout_s=0)
        try:
            lease = held.__enter__()
        except LockTimeout as error:
            holder = lock.states()[-1]
            raise RetentionBusy(
                f"database {settings.database}: another run of retention is at work ({holder.owner}, heard of "
                f"{holder.silent_s} s ago); wait until it has ended. One that was killed on another machine counts for "
                f"{LEASE_S} s more"
            ) from error
        except Exception as error:
            if error_code(error) == _UNKNOWN_DATABASE:
                yield lambda: None  # there is nothing in it that two could do twice
                return
            if error_code(error) != _ACCESS_DENIED:
                raise
            raise RetentionForbidden(
                f"database {settings.database}: a run of retention keeps others away by a table {LOCK_TABLE}_…, and "
                f"the user may not make it; GRANT CREATE TABLE, DROP TABLE, ALTER TABLE ON {settings.database}.*, or "
                f'set retention_schedule = "off" and have another user run it ({error})'
            ) from error
        stack.callback(_give_back, held)
        keeper = _Keeper(lease, settings.database, renew_s)
        stack.callback(keeper.close)
        keeper.start()
        yield keeper.check


def _give_back(held: contextlib.AbstractContextManager[Lease]) -> None:
    with contextlib.suppress(Exception):  # it frees itself
        held.__exit__(None, None, None)


def awake_s() -> float:
    """A clock that goes on while the machine sleeps, where there is one; from an unknown time on."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class _Keeper:
    """Renews a lease in a thread of its own, which with `check` alone uses the lease's client until `close`."""

    def __init__(self, lease: Lease, database: str, renew_s: float):
        self._lease, self._database, self._renew_s = lease, database, renew_s
        self._lost = False
        self._turn = threading.Lock()
        self._renewed_s = awake_s()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="retention-lock", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def check(self) -> None:
        """See that the lock was not lost. One that could not be renewed for long shows when the server answers again.

        After a sleep of the machine, of which the thread's own waiting knows nothing, the server is asked at once.

        Raises:
            RetentionBusy: another run took over.
        """
        if awake_s() - self._renewed_s > LEASE_S:
            self._renew()
        if self._lost:
            raise RetentionBusy(
                f"database {self._database}: this run was silent for more than {LEASE_S} s, and another one took over; "
                "what was done is done, the other one does the rest"
            )

    def close(self) -> None:
        """Renew no more."""
        self._ended.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._lost and not self._ended.wait(self._renew_s):
            self._renew()

    def _renew(self) -> None:
        with self._turn:
            try:
                self._lease.renew()
                self._renewed_s = awake_s()
            except LockLost:
                self._lost = True
            except Exception:  # noqa: BLE001 - the server is away: so it is for every other run
                return
