"""One retry at a time on a server, by the same lock in the database that migrations have, under a name of its own.

Two retries that look up the same absent row in the same moment would both insert it, in batches that need not be the
same, so that no token says that they are. The lock is renewed while the retry runs; one that is lost ends the retry. A
holder that was asleep for longer than the lease may overlap with its successor for the insert it was at.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable

from recorder.errors import RecorderError
from schemas.errors import LockLost, LockTimeout
from schemas.executor import SqlExecutor, error_code
from schemas.lock import LEASE_S, MigrationLock

LOCK_TABLE = "recorder_retry_lock"
RENEW_S = LEASE_S / 6
POLL_S = 0.3
_ACCESS_DENIED = 497


class RetryBusy(RecorderError):  # noqa: N818 - says what happened
    """Another retry works on this database, or took over from this one."""


class RetryForbidden(RecorderError):  # noqa: N818 - says what happened
    """The user may not take the lock."""


@contextlib.asynccontextmanager
async def one_at_a_time(
    executor: SqlExecutor,
    database: str,
    *,
    wait_s: float,
    on_wait: Callable[[str], None] = lambda who: None,
    renew_s: float = RENEW_S,
) -> AsyncIterator[None]:
    """Hold the lock for a block, in which nobody else uses `executor`; waits at most `wait_s` for whoever has it.

    Raises:
        RetryBusy: another retry goes on for longer, or took the lock over.
        RetryForbidden: the user may not make the table that is the lock.
    """
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    lock = MigrationLock(executor, database, owner=owner, table=LOCK_TABLE)
    deadline_s = time.monotonic() + wait_s
    told = False
    while True:
        held = lock.held(timeout_s=0)  # asked again here: a thread that waits cannot be interrupted
        try:
            lease = await asyncio.to_thread(held.__enter__)
            break
        except LockTimeout as error:
            holder = (await asyncio.to_thread(lock.states))[-1].owner
            if time.monotonic() >= deadline_s:
                raise RetryBusy(
                    f"database {database}: another retry of dead letters is at work ({holder}); waited {wait_s:g} s: "
                    "run again when it has ended"
                ) from error
        except Exception as error:
            if error_code(error) != _ACCESS_DENIED:
                raise
            raise RetryForbidden(
                f"database {database}: a retry keeps others away by a table {LOCK_TABLE}_…, and the user may not make "
                f"it; GRANT CREATE TABLE, DROP TABLE, ALTER TABLE ON {database}.* ({error})"
            ) from error
        if not told:
            on_wait(holder)
            told = True
        await asyncio.sleep(POLL_S)
    main = asyncio.current_task()
    assert main is not None
    lost = False
    ended = asyncio.Event()

    async def renew() -> None:
        nonlocal lost
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(renew_s):
                    await ended.wait()
                return
            try:
                await asyncio.to_thread(lease.renew)
            except LockLost:
                lost = True
                main.cancel()
                return
            except Exception:  # noqa: BLE001 - the database is away: so it is for every other retry
                continue

    renewing = asyncio.create_task(renew())
    try:
        yield
    except asyncio.CancelledError:
        if lost:
            main.uncancel()
            raise RetryBusy(
                f"database {database}: this retry was silent for more than {LEASE_S} s and another took over; what is "
                "in is in once: run again"
            ) from None
        raise
    finally:
        ended.set()  # not cancelled: its thread would go on using the executor
        await asyncio.gather(renewing, return_exceptions=True)
        with contextlib.suppress(Exception):  # it frees itself
            await asyncio.to_thread(held.__exit__, None, None, None)
