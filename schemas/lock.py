"""A lock on a database's schema, kept in the database, that a crashed holder does not keep for ever.

ClickHouse has one atomic step that only one of many can win: `CREATE TABLE` of a name that must not exist. So the
lock is a chain of tables `recorder_migration_lock_<generation>`, whose highest one counts:

- *Free* is: no such table, or the highest one's comment says `free`, or its holder has not renewed it for `lease_s`, or
  its holder was a process of this machine that is gone (an embedded engine that was killed starts again at once).
- *Take*: create generation + 1, then list again. Who created the highest generation holds the lock; who finds a
  higher one drops its own and waits. The holder drops all lower ones. The highest is never dropped, so generations
  never go down, and two who both saw the same crashed holder try to create the same name: one wins.
- *Renew*, before each statement (before one that creates, where a tenth of a lease has passed since the last time):
  list; a higher generation means that the lock was taken over (`LockLost`). Else rewrite the comment, which has the
  server's time in it and moves the table's modification time (the database `default` of an embedded engine has none).
- *Release*: rewrite the comment to `free`.

Lease times are judged by the server's clock alone. A holder that sleeps past its lease inside one statement can
overlap with its successor for that one statement; every statement may be run twice, so this does no harm.

On a cluster the lock lives on the node that the executor talks to: all migrations go through the same node.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from schemas.errors import LockLost, LockTimeout
from schemas.executor import SqlExecutor, error_code
from schemas.process import identity, is_dead
from schemas.quote import quote_name, quote_text

LEASE_S = 60
"""How long a holder may be silent before others take the lock over."""
RENEWALS_A_LEASE = 10
LOCK_TABLE = "recorder_migration_lock"
_TABLE_ALREADY_EXISTS = 57
_UNKNOWN_TABLE = 60
_POLL_S = 0.05
_POLL_MAX_S = 1.0


@dataclass(frozen=True)
class LockState:
    """One generation of the lock as the server has it; `silent_s` is the time since it was renewed.

    `dead` is true where the holder is known to be gone.
    """

    generation: int
    owner: str
    free: bool
    lease_s: int
    silent_s: int
    dead: bool = False

    @property
    def is_takeable(self) -> bool:
        """Whether the next generation may be created. Strictly more than the lease: the server counts whole seconds."""
        return self.free or self.dead or self.silent_s > self.lease_s


class Lease:
    """The lock while it is held."""

    def __init__(self, lock: MigrationLock, generation: int, monotonic: Callable[[], float]):
        self._lock = lock
        self._monotonic = monotonic
        self._said_s = monotonic()
        self.generation = generation

    def renew(self, *, at_once: bool = True) -> None:
        """Say that the holder lives. With `at_once` False not where it has just said so: for a statement that does no
        harm though another holds the lock by now, as after the machine was asleep, when no time seems to have passed.

        Raises:
            LockLost: another holder took the lock over.
        """
        if at_once or self._monotonic() - self._said_s >= self._lock.renew_s:
            self._lock.touch(self.generation, free=False)
            self._said_s = self._monotonic()


class MigrationLock:
    """Takes and releases the lock of one database; another `table` is another lock."""

    def __init__(
        self,
        executor: SqlExecutor,
        database: str,
        *,
        owner: str,
        lease_s: int = LEASE_S,
        table: str = LOCK_TABLE,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._executor = executor
        self._database = database
        self._table = table
        self._owner = owner
        self._lease_s = lease_s
        self.renew_s = lease_s / RENEWALS_A_LEASE
        """How long after a renewal the next one is due."""
        self._monotonic = monotonic
        self._sleep = sleep

    @contextmanager
    def held(self, *, timeout_s: float, on_wait: Callable[[str], None] | None = None) -> Iterator[Lease]:
        """Hold the lock for a block; waits at most `timeout_s` and tells `on_wait` who holds it.

        Raises:
            LockTimeout: the holder goes on for longer.
        """
        lease = self._acquire(timeout_s, on_wait)
        try:
            yield lease
        except BaseException as error:
            try:
                self._release(lease.generation)
            except Exception as second:  # noqa: BLE001 - what failed first is what the caller must hear
                error.add_note(f"the migration lock was not given back ({second}); it frees itself")
            raise
        self._release(lease.generation)

    def states(self) -> list[LockState]:
        """All generations that are there, lowest first."""
        rows = self._executor.query(
            "SELECT name, comment, toInt64(toUnixTimestamp(now())), "
            "toInt64(toUnixTimestamp(metadata_modification_time)) FROM system.tables "
            "WHERE database = {db:String} AND startsWith(name, {prefix:String})",
            {"db": self._database, "prefix": f"{self._table}_"},
        )
        states = []
        for name, comment, now_s, modified_s in rows:
            generation = str(name).removeprefix(f"{self._table}_")
            if generation.isdigit():
                states.append(_state(int(generation), str(comment), int(now_s), int(modified_s)))
        return sorted(states, key=lambda state: state.generation)

    def touch(self, generation: int, *, free: bool) -> None:
        """Rewrite the comment of a generation that is ours.

        Raises:
            LockLost: a higher generation is there, or ours is gone.
        """
        highest = max((state.generation for state in self.states()), default=0)
        if highest == generation:
            try:
                self._executor.command(
                    f"ALTER TABLE {self._name(generation)} MODIFY COMMENT {quote_text(self._comment(free))}"
                )
                return
            except Exception as error:
                if error_code(error) != _UNKNOWN_TABLE:
                    raise
        raise LockLost(
            f"database {self._database}: the migration lock (generation {generation}, {self._owner}) was taken over by "
            f"generation {highest} because this migration was silent for more than {self._lease_s} s; what it applied "
            "is recorded: run up again"
        )

    def _acquire(self, timeout_s: float, on_wait: Callable[[str], None] | None) -> Lease:
        deadline = self._monotonic() + timeout_s
        pause_s = _POLL_S
        while True:
            states = self.states()
            holder = states[-1] if states else None
            if holder is None or holder.is_takeable:
                generation = holder.generation + 1 if holder else 1
                if self._take(generation):
                    return Lease(self, generation, self._monotonic)
                holder = None
            if holder is not None and self._monotonic() >= deadline:
                raise LockTimeout(
                    f"database {self._database}: another migration holds the lock: {holder.owner}, renewed "
                    f"{holder.silent_s} s ago; waited {timeout_s:g} s. It frees itself {holder.lease_s} s after its "
                    "holder dies: wait for it, or raise the timeout"
                )
            if holder is not None and on_wait is not None and pause_s >= _POLL_MAX_S:
                on_wait(f"waiting for the migration lock of {holder.owner}")
            self._sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(pause_s * 2, _POLL_MAX_S)

    def _take(self, generation: int) -> bool:
        """Create the generation; whether it is ours and the highest."""
        try:
            self._executor.command(
                f"CREATE TABLE {self._name(generation)} (unused UInt8) ENGINE = Null "
                f"COMMENT {quote_text(self._comment(free=False))}"
            )
        except Exception as error:
            if error_code(error) != _TABLE_ALREADY_EXISTS:
                raise
            return False
        states = self.states()
        if states[-1].generation > generation:
            self._drop(generation)
            return False
        for state in states:
            if state.generation < generation:
                self._drop(state.generation)
        return True

    def _release(self, generation: int) -> None:
        try:
            self.touch(generation, free=True)
        except LockLost:
            return  # the successor has it; there is nothing to give back

    def _drop(self, generation: int) -> None:
        self._executor.command(f"DROP TABLE IF EXISTS {self._name(generation)} SYNC")

    def _name(self, generation: int) -> str:
        return f"{quote_name(self._database)}.{self._table}_{generation:06}"

    def _comment(self, free: bool) -> str:
        fields = {
            "owner": self._owner,
            "free": free,
            "lease_s": self._lease_s,
            "process": identity(),
            "said_s": int(self._executor.query("SELECT toInt64(toUnixTimestamp(now()))")[0][0]),
        }
        return json.dumps(fields)


def _state(generation: int, comment: str, now_s: int, modified_s: int) -> LockState:
    silent_s = now_s - modified_s
    try:
        fields = json.loads(comment)
        silent_s = now_s - max(modified_s, int(fields.get("said_s", 0)))
        dead = is_dead(str(fields.get("process", "")))
        return LockState(
            generation, str(fields["owner"]), bool(fields["free"]), int(fields["lease_s"]), silent_s, dead
        )
    except (ValueError, KeyError, TypeError):
        return LockState(generation, "somebody who wrote no name", False, LEASE_S, silent_s)
