"""Applies packs to a database: plan, up, status, check.

`up` may be run at any time, by any number of recorders: what is done is skipped, a lock lets one work at a time, and
a statement that failed is where the next `up` goes on. The manager is synchronous and keeps no connection of its own.
"""

from __future__ import annotations

import datetime as dt
import os
import socket
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from schemas.check import Difference, compare
from schemas.errors import ChecksumChanged, HistoryGap, MigrationFailed
from schemas.executor import SqlExecutor
from schemas.history import DONE, FAILED, TTL_SETTING, Applied, Attempt, History, bootstrap_statements
from schemas.live import LiveTable, read_tables
from schemas.lock import LEASE_S, Lease, MigrationLock
from schemas.pack import Migration, Pack
from schemas.quote import quote_name
from schemas.render import RenderContext, render
from schemas.rerun import was_done
from schemas.statements import blank_comments
from schemas.table import Table

SLOW_S = 0.25
"""A statement that took so long is recorded at once: it should not have to be run again."""

_MODIFY_TTL = "MODIFY TTL "
_REMOVE_TTL = "REMOVE TTL"


@dataclass(frozen=True)
class PlannedStatement:
    """One statement that `up` would run.

    `label` says of what: `core/0001_market`, a table whose policy changed, or the manager's own tables.
    `statement` counts from 1 within a migration of `total`.
    """

    label: str
    statement: int
    total: int
    sql: str
    migration: Migration | None = None


@dataclass(frozen=True)
class MigrationStatus:
    """One migration and how far it is.

    `state` is applied, pending, partial, changed, or ahead (the database knows it, the pack does not). `done` of
    `total` statements are applied; `error` is the last failure's.
    """

    pack: str
    number: int
    name: str
    state: str
    done: int
    total: int
    applied_at: dt.datetime | None = None
    error: str = ""


@dataclass(frozen=True)
class PackStatus:
    """One pack's migrations."""

    pack: str
    migrations: tuple[MigrationStatus, ...]

    @property
    def pending(self) -> int:
        """How many migrations `up` would go on with."""
        return sum(migration.state in ("pending", "partial") for migration in self.migrations)

    @property
    def applied(self) -> int:
        """How many migrations are wholly applied."""
        return sum(migration.state in ("applied", "ahead") for migration in self.migrations)


class Manager:
    """Brings a database to what its packs say.

    `ttl` counts only when the database is first made; then the database remembers it. `keep_days` overrides the
    policies' retention (None keeps for ever). `held` is asked, each time anew, which of the tables named to it must
    carry no TTL whatever their policy says. `on_wait` is told who holds the lock, about once a second.
    """

    def __init__(
        self,
        executor: SqlExecutor,
        packs: Sequence[Pack],
        database: str,
        *,
        cluster: str | None = None,
        ttl: bool = True,
        keep_days: Mapping[str, int | None] | None = None,
        held: Callable[[Collection[str]], Collection[str]] = lambda _: (),
        lease_s: int = LEASE_S,
        lock_timeout_s: float = 120.0,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        on_wait: Callable[[str], None] | None = None,
    ):
        self._executor = executor
        self._packs = tuple(packs)
        self._database = database
        self._cluster = cluster
        self._ttl_at_creation = ttl
        self._keep_days = dict(keep_days or {})
        self._held = held
        self._lock_timeout_s = lock_timeout_s
        self._on_wait = on_wait
        self._monotonic = monotonic
        self._history = History(executor, database)
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._lock = MigrationLock(
            executor, database, owner=self._owner, lease_s=lease_s, monotonic=monotonic, sleep=sleep
        )

    @property
    def tables(self) -> dict[str, Table]:
        """The tables of all packs, by name."""
        return {table.name: table for pack in self._packs for table in pack.tables}

    def ttl_enabled(self) -> bool:
        """Whether tables of this database carry a TTL: what it remembers, else what it would be made with."""
        remembered = self._history.setting(TTL_SETTING)
        return self._ttl_at_creation if remembered is None else remembered == "on"

    def set_ttl(self, enabled: bool) -> None:
        """Change what the database remembers; the next `up` changes the tables."""
        self._bootstrap()
        self._history.remember(TTL_SETTING, "on" if enabled else "off")

    def plan(self) -> list[PlannedStatement]:
        """What `up` would run now, in order, rendered. Changes nothing.

        Raises:
            ChecksumChanged: an applied migration's text has changed.
            HistoryGap: the database lacks a migration below one that it has.
        """
        own: list[PlannedStatement] = []
        if not self._history.exists():
            statements = bootstrap_statements(self._database, self._context().on_cluster)
            own = [
                PlannedStatement("recorder", i, len(statements), sql) for i, sql in enumerate(statements, 1)
            ]
        return own + self._pending() + self._policy_changes()

    def up(self, on_progress: Callable[[PlannedStatement], None] | None = None) -> list[PlannedStatement]:
        """Apply what is pending and return it; `on_progress` is called before each statement.

        Raises:
            ChecksumChanged, HistoryGap: as `plan`; nothing was run.
            MigrationFailed: a statement failed; those before it are applied and recorded.
            LockTimeout: another migration holds the lock and goes on.
            LockLost: this one was silent for longer than its lease.
        """
        if not self.plan():
            return []
        self._bootstrap()
        applied: list[PlannedStatement] = []
        with self._lock.held(timeout_s=self._lock_timeout_s, on_wait=self._on_wait) as lease:
            if self._history.setting(TTL_SETTING) is None:
                self._history.remember(TTL_SETTING, "on" if self._ttl_at_creation else "off")
            unrecorded: list[Attempt] = []
            try:
                for step in self._pending():
                    if not (creates := _creates(step.sql)):
                        self._record(unrecorded)
                    lease.renew(at_once=not creates)
                    self._run(step, on_progress, unrecorded)
                    applied.append(step)
                    if not creates:
                        self._record(unrecorded)
            finally:
                self._record(unrecorded)
            # Read again: a table that was just made already has its policy.
            for step in self._policy_changes():
                lease.renew(at_once=True)
                self._run(step, on_progress, [])
                applied.append(step)
        return applied

    def take_held_ttl(
        self, on_progress: Callable[[PlannedStatement], None] | None = None
    ) -> list[PlannedStatement]:
        """Take the TTL from the tables that are held and still carry one; change nothing else. Returns what was run.

        When it returns, no other manager that began before the tables were held can still give them one back.

        Raises:
            MigrationFailed: a statement failed; the tables before it have no TTL.
            LockTimeout, LockLost: as `up`.
        """
        return self._alter_ttl(lambda: self._held(self.tables), on_progress)

    def apply_ttl(
        self, tables: Collection[str], on_progress: Callable[[PlannedStatement], None] | None = None
    ) -> list[PlannedStatement]:
        """Give these tables the TTL that policy and holds say; change nothing else. Raises as `take_held_ttl`."""
        return self._alter_ttl(lambda: tables, on_progress)

    @contextmanager
    def alone(self) -> Iterator[Lease]:
        """Hold the lock for a block, for what no migration and no new hold may come between.

        Raises:
            LockTimeout: as `up`.
        """
        with self._lock.held(timeout_s=self._lock_timeout_s, on_wait=self._on_wait) as lease:
            yield lease

    def status(self) -> list[PackStatus]:
        """Every migration of every pack, and those the database knows beyond. Raises nothing of its own."""
        history = self._history.read()
        return [PackStatus(pack.name, tuple(_statuses(pack, history))) for pack in self._packs]

    def check(self) -> list[Difference]:
        """Where the live tables differ from the packs; empty when nothing does."""
        live = read_tables(self._executor, self._database)
        return compare(list(self.tables.values()), live, self._context())

    def _context(self) -> RenderContext:
        keep_days = self._keep_days | dict.fromkeys(self._held(self.tables), None)
        return RenderContext(
            database=self._database, cluster=self._cluster, ttl=self.ttl_enabled(), keep_days=keep_days
        )

    def _bootstrap(self) -> None:
        if not self._history.exists():
            for sql in bootstrap_statements(self._database, self._context().on_cluster):
                self._executor.command(sql)

    def _pending(self) -> list[PlannedStatement]:
        """Statements of migrations that are not done, after verifying those that are."""
        history = self._history.read()
        context = self._context()
        steps: list[PlannedStatement] = []
        for pack in self._packs:
            _verify(pack, history)
            tables = {table.name: table for table in pack.tables}
            for migration in pack.migrations:
                done = history[key].statements if (key := (pack.name, migration.number)) in history else {}
                for index, statement in enumerate(migration.statements, start=1):
                    if index not in done:
                        where = f"{migration.label}, line {statement.line}"
                        sql = render(statement.text, tables, context, where=where)
                        steps.append(
                            PlannedStatement(
                                migration.label, index, len(migration.statements), sql, migration
                            )
                        )
        return steps

    def _policy_changes(self) -> list[PlannedStatement]:
        """ALTERs that bring the TTL and settings of existing tables to their policies."""
        live = read_tables(self._executor, self._database)
        context = self._context()
        steps = []
        for table in self.tables.values():
            if (there := live.get(table.name)) is not None:
                changes = _alterations(table, there, context)
                name = f"{quote_name(self._database)}.{quote_name(table.name)}"
                head = f"ALTER TABLE {name} {context.on_cluster}".rstrip()
                steps += [
                    PlannedStatement(_policy_label(table.name), i, len(changes), f"{head} {change}")
                    for i, change in enumerate(changes, start=1)
                ]
        return steps

    def _alter_ttl(
        self,
        tables: Callable[[], Collection[str]],
        on_progress: Callable[[PlannedStatement], None] | None,
    ) -> list[PlannedStatement]:
        altered: list[PlannedStatement] = []
        with self.alone() as lease:
            labels = {_policy_label(name) for name in tables()}
            for step in self._policy_changes():
                if step.label in labels and (step.sql.endswith(_REMOVE_TTL) or _MODIFY_TTL in step.sql):
                    lease.renew(at_once=True)
                    self._run(step, on_progress, [])
                    altered.append(step)
        return altered

    def _run(
        self,
        step: PlannedStatement,
        on_progress: Callable[[PlannedStatement], None] | None,
        unrecorded: list[Attempt],
    ) -> None:
        """Run a statement. Consecutive ones that create something are recorded together, when the last of a migration
        is done, one took long or one failed: recording takes longer than most of them, and they may be run again in
        one go. Of others each may be run again by itself, and not what came before it as well.
        """
        began_s = self._monotonic()
        if on_progress is not None:
            on_progress(step)
        try:
            self._executor.command(step.sql)
        except Exception as error:
            if step.migration is None or not was_done(
                step.migration.statements[step.statement - 1].text, error
            ):
                raise self._failed(step, error, unrecorded) from error
        if step.migration is not None:
            unrecorded.append(Attempt(step.migration, step.statement, DONE))
            if step.statement == step.total or self._monotonic() - began_s >= SLOW_S:
                self._record(unrecorded)

    def _failed(self, step: PlannedStatement, error: Exception, unrecorded: list[Attempt]) -> MigrationFailed:
        """What to raise of a statement that failed, which is recorded."""
        text = " ".join(str(error).split())[:1000]
        migration = step.migration
        if migration is None:
            return MigrationFailed(
                f"{step.label}: {step.sql} failed: {text}; mend the cause and run up again",
                pack="",
                number=0,
                statement=step.statement,
            )
        unrecorded.append(Attempt(migration, step.statement, FAILED, text))
        self._record(unrecorded)
        return MigrationFailed(
            f"{step.label}: statement {step.statement} of {step.total} (line "
            f"{migration.statements[step.statement - 1].line}) failed: {text}. Statements before it are applied "
            "and recorded, it and those after it are not; mend the cause, or this statement if it was never "
            "released, and run up again: it goes on from here",
            pack=migration.pack,
            number=migration.number,
            statement=step.statement,
        )

    def _record(self, attempts: list[Attempt]) -> None:
        """Record attempts, and forget them."""
        if attempts:
            self._history.record(attempts, self._owner)
            attempts.clear()


def _policy_label(table: str) -> str:
    return f"policy of {table}"


def _creates(sql: str) -> bool:
    """Whether a statement makes what is not there, or a view anew: `schemas.rerun` lets no other one begin so."""
    return blank_comments(sql).split(maxsplit=1)[0].upper() == "CREATE"


def _verify(pack: Pack, history: Mapping[tuple[str, int], Applied]) -> None:
    known = sorted(number for name, number in history if name == pack.name)
    for number in range(1, known[-1] if known else 0):
        if number not in known or not history[pack.name, number].complete:
            raise HistoryGap(
                f"pack {pack.name}: the database has migration {known[-1]:04} but not {number:04} before it; "
                "migrations are applied in order, so rows of recorder_migrations were lost or another pack has the "
                "same name: restore them, or name the right database"
            )
    for migration in pack.migrations:
        applied = history.get((pack.name, migration.number))
        if applied is None:
            continue
        if applied.complete:
            changed = applied.checksum != migration.checksum
        else:
            # Not wholly applied yet, so its author may still mend what failed, but not what was run.
            changed = any(
                index > len(migration.statements) or migration.statement_checksum(index) != checksum
                for index, checksum in applied.statements.items()
            )
        if changed:
            raise ChecksumChanged(
                f"{migration.label}: its text has changed since it was applied (checksum {migration.checksum[:12]}, "
                f"applied {applied.checksum[:12]}); a released migration never changes: put its text back and write "
                "the change as a new migration"
            )


def _statuses(pack: Pack, history: Mapping[tuple[str, int], Applied]) -> list[MigrationStatus]:
    statuses = []
    for migration in pack.migrations:
        total = len(migration.statements)
        applied = history.get((pack.name, migration.number))
        if applied is None:
            statuses.append(MigrationStatus(pack.name, migration.number, migration.name, "pending", 0, total))
            continue
        state = "partial"
        if applied.complete:
            state = "applied" if applied.checksum == migration.checksum else "changed"
        statuses.append(
            MigrationStatus(
                pack.name,
                migration.number,
                migration.name,
                state,
                len(applied.statements),
                total,
                applied.last_at,
                applied.error,
            )
        )
    last = len(pack.migrations)
    statuses += [
        MigrationStatus(
            pack.name, number, applied.name, "ahead", len(applied.statements), applied.total, applied.last_at
        )
        for (name, number), applied in sorted(history.items())
        if name == pack.name and number > last
    ]
    return statuses


def _alterations(table: Table, live: LiveTable, context: RenderContext) -> list[str]:
    changes = []
    expected = context.ttl_expression(table)
    if expected != live.ttl:
        changes.append(f"{_MODIFY_TTL}{expected}" if expected else _REMOVE_TTL)
    settings = {
        name: value
        for name, value in context.table_settings(table).items()
        if live.settings.get(name) != value
    }
    if settings:
        changes.append("MODIFY SETTING " + ", ".join(f"{name} = {value}" for name, value in settings.items()))
    if dropped := [name for name in context.dropped_settings(table) if name in live.settings]:
        changes.append("RESET SETTING " + ", ".join(dropped))
    return changes
