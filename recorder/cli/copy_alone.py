"""One copy into a database at a time: two that look up the same absent row in the same moment would both insert it.

The lock is in the target, so it holds for copies from other machines and under other spellings of the URL too. An
embedded target needs none: one process has it open.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from recorder.cli.errors import Failure
from recorder.copying import CopyStopped
from recorder.copying.errors import GO_ON
from recorder.reading.server_lock import LockForbidden, LockHeld, server_lock
from recorder.sink.errors import SinkUnavailable
from schemas.errors import LockLost
from schemas.lease_keeper import RENEW_S
from schemas.lock import LEASE_S

if TYPE_CHECKING:
    from recorder.settings import Settings

LOCK_TABLE = "recorder_copy_lock"
FRESH_S = LEASE_S / 2
"""An insert may follow for so long after the lock was renewed."""


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
    with contextlib.ExitStack() as stack:
        try:
            keeper = stack.enter_context(server_lock(settings, LOCK_TABLE, name="copy-lock", renew_s=renew_s))
        except LockHeld as error:
            raise Failure(
                f"another copy into {settings.target} is running ({error}); wait until it has ended"
            ) from error
        except LockForbidden as error:
            raise Failure(f"{settings.target}: {error}") from error

        def check() -> None:
            try:
                keeper.check(fresh_s=FRESH_S)
            except LockLost as error:
                raise CopyStopped(
                    f"{settings.target}: this copy was silent for more than {LEASE_S} s, and another one took over; "
                    f"{GO_ON}"
                ) from error
            except Exception as error:
                raise SinkUnavailable(f"the lock of this copy cannot be renewed: {error}") from error

        yield check
