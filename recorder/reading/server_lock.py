"""A lock in a server's database that keeps others from the same work, on whatever machine they are.

It is of the kind that migrations have, under a name of its own. A thread with a connection of its own renews it, since
one step of the work may be longer than its lease; who is killed loses it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

from recorder.reading.database import server_client
from schemas.errors import LockTimeout
from schemas.executor import ClientExecutor, error_code
from schemas.lease_keeper import RENEW_S, LeaseKeeper
from schemas.lock import LEASE_S, Lease, MigrationLock

if TYPE_CHECKING:
    from recorder.settings import Settings

ANSWER_S = 30.0
_ACCESS_DENIED = 497


class LockHeld(Exception):  # noqa: N818 - says what is the case
    """Another one holds it; the message says who, and until when at most, to be put into brackets."""


class LockForbidden(Exception):  # noqa: N818 - says what happened
    """The user may not make the table that is the lock; the message says what to grant, and what the server said."""


@contextlib.contextmanager
def server_lock(
    settings: Settings, table: str, *, name: str, renew_s: float = RENEW_S
) -> Iterator[LeaseKeeper]:
    """Hold the lock of these tables for a block, without waiting for it; `name` is the thread's.

    Raises:
        LockHeld, LockForbidden: it cannot be had.
        Exception: the server does not answer; whatever the client raises.
    """
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(server_client(settings, read_timeout_s=ANSWER_S))
        lock = MigrationLock(ClientExecutor(client), settings.database, owner=owner, table=table)
        held = lock.held(timeout_s=0)
        try:
            lease = held.__enter__()
        except LockTimeout as error:
            holder = lock.states()[-1]
            raise LockHeld(
                f"{holder.owner}, heard of {holder.silent_s} s ago; one that was killed on another machine counts for "
                f"{LEASE_S} s"
            ) from error
        except Exception as error:
            if error_code(error) != _ACCESS_DENIED:
                raise
            raise LockForbidden(
                f"a table {table}_… keeps others away, and the user may not make it; GRANT CREATE TABLE, DROP TABLE, "
                f"ALTER TABLE ON {settings.database}.* ({error})"
            ) from error
        stack.callback(_give_back, held)
        yield stack.enter_context(LeaseKeeper(lease, name=name, renew_s=renew_s))


def _give_back(held: contextlib.AbstractContextManager[Lease]) -> None:
    with contextlib.suppress(Exception):  # it frees itself
        held.__exit__(None, None, None)
