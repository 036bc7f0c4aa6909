"""One run of retention at a time on a database.

On a server the lock is in the database, so it holds for recorders and commands of all machines. An embedded database
has one process, and its runs a lock file in the data folder. Two runs at once would harm nobody, for each proves for
itself what it drops; they would do the work twice.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from recorder.errors import RecorderError
from schemas.errors import LockLost
from schemas.executor import error_code
from schemas.lease_keeper import RENEW_S
from schemas.lock import LEASE_S

if TYPE_CHECKING:
    from recorder.settings import Settings

LOCK_TABLE = "recorder_retention_lock"
LOCK_FILE = "retention.lock"
_UNKNOWN_DATABASE = 81


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
    from recorder.reading.server_lock import LockForbidden, LockHeld, server_lock

    where = f"database {settings.database}"
    with contextlib.ExitStack() as stack:
        try:
            keeper = stack.enter_context(
                server_lock(settings, LOCK_TABLE, name="retention-lock", renew_s=renew_s)
            )
        except LockHeld as error:
            raise RetentionBusy(
                f"{where}: another run of retention is at work ({error}); wait until it has ended"
            ) from error
        except LockForbidden as error:
            raise RetentionForbidden(
                f'{where}: {error}; or set retention_schedule = "off" and have another user run it'
            ) from error
        except Exception as error:
            if error_code(error) != _UNKNOWN_DATABASE:
                raise
            yield lambda: None  # there is nothing in it that two could do twice
            return

        def check() -> None:
            try:
                keeper.check(fresh_s=LEASE_S)
            except LockLost as error:
                raise RetentionBusy(
                    f"{where}: this run was silent for more than {LEASE_S} s, and another one took over; "
                    "what was done is done, the other one does the rest"
                ) from error
            except Exception:  # noqa: BLE001 - the server is away: so it is for every other run
                return

        yield check
