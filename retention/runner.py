"""Carries out what is due: reads the facts, does the first action, reads the facts again, until nothing is due.

Rows go by the names of the parts that were looked at (`retention.live_parts`), under the lock of migrations and holds:
a row that comes late is in another part and stays. Where an archive is due, these very parts were read and every
identity in them found in pieces with a receipt, in this run; each of these pieces was read back whole in this run, too,
since a receipt may be of long ago, and that they are still there is looked at again right before. So a run may be
killed anywhere, and two may run at once: the next one finds what is left and goes on.

Where bars come first, they were built and verified of these very parts, in this run (`retention.bars_first`).

Partitions that are to move do so by `retention.tiers`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

import pyarrow as pa

from retention.archive import Place, Source, Store, partition_of, place_of, write_partition
from retention.archive.pieces import Partition
from retention.archive.server_export import Exporter
from retention.archive.verify import read_back
from retention.barred import Barring
from retention.bars_first import BarsFirst, name_of_parts
from retention.due import Action, Kind, Limits, due, next_due
from retention.errors import ManifestError, RetentionError, StoreError
from retention.facts import PartitionFacts, Proof, TableFacts
from retention.holds import Hold, holding
from retention.live_facts import read_facts, server_time_ns
from retention.live_holds import holds_of, read_holds
from retention.live_parts import LivePart, active_parts, drop_part, must_see_all, parts_at, sums_of_parts
from retention.partitions import span_of
from retention.policy import RetentionPolicy, older_than
from retention.tiers import move_partition, set_ttl
from schemas.executor import SqlExecutor, error_code
from schemas.live import read_tables
from schemas.policy import TablePolicy
from schemas.quote import quote_name, quote_text

_CANNOT_ASSIGN_OPTIMIZE = 388


class State(enum.StrEnum):
    """What became of an action."""

    DONE = "done"
    LEFT = "left"
    """Not done, and why; nothing is wrong."""
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """An action, what became of it, and what is to be said of that."""

    action: Action
    state: State
    told: str


@dataclass(frozen=True)
class Subject:
    """A table: what is asked of it, and how it is kept."""

    policy: RetentionPolicy
    kept: TablePolicy


@dataclass(frozen=True)
class _Proved:
    """Each row of these parts is in pieces with a receipt."""

    parts: tuple[LivePart, ...]
    rows: int


class Renewing(Protocol):
    """A lock that is held, and says so before each step."""

    def renew(self) -> None:
        """Raises where another holds it by now."""


class Runner:
    """One run over some tables, in one thread.

    `source_of` gives the rows of parts of a partition, by their names; `exporter_of`, where the database is to write
    their file itself, who has it do that. `alter_ttl` gives a table the TTL that it should have. `lock` keeps holds
    and migrations out. `merges` False: the engine merges nothing now. `now_ns` is the server's clock unless given.
    `barring` makes bars. `pending_oldest_ns` gives the time of the oldest row of a table that waits in a log, None
    for none.
    """

    def __init__(
        self,
        executor: SqlExecutor,
        database: str,
        *,
        store: Store,
        source_of: Callable[[Place, Sequence[str]], Source],
        exporter_of: Callable[[Place, Sequence[str]], Exporter] | None = None,
        alter_ttl: Callable[[str], object],
        lock: Callable[[], AbstractContextManager[Renewing]],
        recorder_version: str,
        merges: bool = True,
        limits: Limits | None = None,
        now_ns: Callable[[], int] | None = None,
        barring: Barring | None = None,
        pending_oldest_ns: Callable[[str], int | None] = lambda table: None,
    ):
        self._executor, self._database, self._store = executor, database, store
        self._source_of, self._alter_ttl, self._lock = source_of, alter_ttl, lock
        self._exporter_of = exporter_of
        self._version, self._merges, self._limits = recorder_version, merges, limits or Limits()
        self._now_ns = now_ns or (lambda: server_time_ns(executor))
        self._proved: dict[tuple[str, str], _Proved] = {}
        self._pending_oldest_ns = pending_oldest_ns
        self._bars = BarsFirst(executor, database, store, barring)
        self._archived: dict[Place, Partition] = {}  # until this run writes there
        self._read_back: set[str] = set()  # sha256 of manifests

    def plan(self, subject: Subject) -> list[Action]:
        """What is due for a table now, with the receipts that the archive has. Nothing where the table is not there.

        Raises:
            RetentionError: the archive or the holds cannot be read.
        """
        looked = self.look(subject)
        return [] if looked is None else looked[1]

    def look(self, subject: Subject) -> tuple[TableFacts, list[Action]] | None:
        """The facts of a table with what is due for it; None where the table is not there. Raises as `plan`."""
        facts = self._facts(subject)
        if facts is None:
            return None
        now_ns = self._now_ns()
        proofs = [
            proof for part in facts.partitions for proof in self._proofs(subject.policy, facts, part, now_ns)
        ]
        barred = [
            proof for part in facts.partitions for proof in self._bars.proofs(subject.policy, part, now_ns)
        ]
        actions = due(
            subject.policy,
            facts,
            now_ns=now_ns,
            holds=self.holds(),
            archived=proofs,
            barred=barred,
            limits=self._limits,
        )
        return facts, [self._possible(action) for action in actions]

    def _possible(self, action: Action) -> Action:
        """An action, as waiting where this run could not do it."""
        if action.kind is not Kind.MERGE or self._merges:
            return action
        why = f"{action.why}; the embedded engine merges while a recorder has it open"
        return replace(action, kind=Kind.WAIT, why=why)

    def run(self, subject: Subject) -> Iterator[Outcome]:
        """Do what is due for a table, each action at most once; then tell what is left of it.

        Raises nothing: what goes wrong with the facts, the holds, the archive or one action is told as an outcome.
        """
        tried: list[Action] = []
        while True:
            try:
                actions = self.plan(subject)
            except Exception as error:  # noqa: BLE001 - one table's trouble must not keep the others
                what = "its archive" if isinstance(error, StoreError) else "what is due for it"
                unread = Action(kind=Kind.REPORT, table=subject.policy.table, why=f"{what} cannot be read")
                yield Outcome(unread, State.FAILED, _text(error))
                return
            action = next_due(actions, tried)
            if action is None:
                break
            tried.append(action)
            yield self._outcome(subject, action)
        for action in actions:
            if action.kind is Kind.HELD:
                yield Outcome(action, State.LEFT, action.why)
            elif action.kind.is_work and action.after and action not in tried:
                waits = ", ".join(kind.replace("_", " ") for kind in action.after)
                yield Outcome(action, State.LEFT, f"{action.why}, but not before: {waits}")

    def holds(self) -> list[Hold]:
        """The holds in force. Raises as `plan`."""
        return holds_of(read_holds(self._executor, self._database))

    def now_ns(self) -> int:
        """The time that this run goes by, nanoseconds since 1970."""
        return self._now_ns()

    # -- facts --

    def _facts(self, subject: Subject) -> TableFacts | None:
        live = read_tables(self._executor, self._database).get(subject.policy.table)
        if live is None:
            return None
        (facts,) = read_facts(self._executor, self._database, [(live, subject.kept)])
        partitions = tuple(self._with_hash(facts.table, part) for part in facts.partitions)
        waits_ns = self._pending_oldest_ns(subject.policy.logical)
        return replace(facts, partitions=partitions, pending_oldest_ns=waits_ns)

    def _with_hash(self, table: str, part: PartitionFacts) -> PartitionFacts:
        """A partition with the name of its proof, where it consists of the parts that were proven."""
        proved = self._proved.get((table, part.id))
        known = {parts for parts in (proved and proved.parts, self._bars.parts(table, part.id)) if parts}
        if not known or (active := active_parts(self._executor, self._database, table, part.id)) not in known:
            return part
        return replace(part, sum_hash=name_of_parts(active))

    def _proofs(
        self, policy: RetentionPolicy, facts: TableFacts, part: PartitionFacts, now_ns: int
    ) -> Iterator[Proof]:
        """What is proven: by this run, or, short of the hash, by receipts of as many rows."""
        span = span_of(part.id, policy.partition)
        if span is None or not older_than(part.max_ns, policy.archive_after_days, now_ns):
            return
        known = Proof(
            table=policy.logical, partition=part.id, rows=0, sum_hash="", max_ns=part.max_ns, checked_ns=0
        )
        if (proved := self._proved.get((policy.table, part.id))) is not None:
            yield replace(known, rows=proved.rows, sum_hash=name_of_parts(proved.parts))
        place = _place(policy, part.id)
        try:
            archived = self._archived.get(place) or partition_of(self._store, place)
        except ManifestError:
            return  # archiving it says what is wrong
        self._archived[place] = archived
        # Symbol groups of a day are archived together: so many rows as all of them have say something of each.
        at_place = sum(one.rows for one in facts.partitions if _time_of(one.id) == _time_of(part.id))
        if archived.verified and archived.sums.rows == at_place:
            # Their own times are of another clock than the parts', so that they never prove alone.
            yield replace(known, rows=part.rows, sum_hash="receipts")

    # -- actions --

    def _outcome(self, subject: Subject, action: Action) -> Outcome:
        try:
            return self._do(subject, action)
        except Exception as error:  # noqa: BLE001 - one partition's trouble must not keep the others
            return Outcome(action, State.FAILED, _text(error))

    def _do(self, subject: Subject, action: Action) -> Outcome:
        match action.kind:
            case Kind.DROP_TTL | Kind.MODIFY_TTL if subject.policy.table != subject.policy.logical:
                return self._tier_ttl(subject.policy, action)
            case Kind.DROP_TTL | Kind.MODIFY_TTL:
                self._alter_ttl(action.table)
                return Outcome(action, State.DONE, action.why)
            case Kind.MERGE:
                return self._merge(action)
            case Kind.ARCHIVE | Kind.VERIFY_ARCHIVE:
                return self._prove(subject, action)
            case Kind.BUILD_BARS | Kind.VERIFY_BARS:
                proved, told = self._bars.prove(subject.policy, subject.kept, action)
                return Outcome(action, State.DONE if proved else State.LEFT, told)
            case Kind.DROP:
                return self._drop(subject, action)
            case Kind.MOVE:
                return self._move(subject, action)
        return Outcome(
            action, State.LEFT, f"{action.why}; this version does not {action.kind.replace('_', ' ')}"
        )

    def _merge(self, action: Action) -> Outcome:
        try:
            self._executor.command(
                f"OPTIMIZE TABLE {self._name(action.table)} PARTITION ID {quote_text(action.partition)} FINAL "
                "SETTINGS optimize_throw_if_noop = 1"
            )
        except Exception as error:
            if error_code(error) != _CANNOT_ASSIGN_OPTIMIZE:
                raise
            # Its parts went or are merged by the engine meanwhile, or there is no room: later is as good.
            return Outcome(action, State.LEFT, _text(error))
        return Outcome(action, State.DONE, action.why)

    def _prove(self, subject: Subject, action: Action) -> Outcome:
        """Have the archive hold every row of the parts that are there now; archives what it lacks.

        A day that is parted into symbol groups is one partition of the archive: all its groups are archived and proven
        together, and what the archive has is compared with all of them.
        """
        there = parts_at(self._executor, self._database, action.table, _time_of(action.partition))
        sums = {
            partition: sums_of_parts(
                self._executor,
                self._database,
                action.table,
                parts,
                time_column=subject.kept.partition_column,
                identity=True,
            )
            for partition, parts in there.items()
        }
        if action.partition not in sums or sums[action.partition].rows != action.rows:
            return Outcome(action, State.LEFT, "its rows changed meanwhile; the next run looks again")
        for partition, parts in there.items():
            must_see_all(action.table, parts, sums[partition])
        rows = sum(one.rows for one in sums.values())
        identity_sum = sum(one.identity_sum or 0 for one in sums.values()) % 2**64
        place = _place(subject.policy, action.partition)
        self._archived.pop(place, None)
        known = partition_of(self._store, place)
        added = 0
        if (known.sums.rows, known.sums.identity_sum) != (rows, identity_sum) or not self._whole(known):
            names = [part.name for parts in there.values() for part in parts]
            source = _Counted(self._source_of(place, names))
            exporter = None if self._exporter_of is None else self._exporter_of(place, names)
            done = write_partition(source, self._store, recorder_version=self._version, exporter=exporter)
            # A merge meanwhile, or a replica that lags, gives fewer rows: these parts are then not proven.
            if {*source.counts, *([] if exporter is None else exporter.counts)} != {rows}:
                return Outcome(action, State.LEFT, "its parts changed meanwhile; the next run looks again")
            added = sum(receipt.sums.rows for receipt in done.new)
            self._read_back.update(receipt.manifest_sha256 for receipt in done.new)
        for partition, parts in there.items():
            self._proved[action.table, partition] = _Proved(parts, sums[partition].rows)
        return Outcome(
            action,
            State.DONE,
            f"{rows:,} rows are in the archive, {added:,} of them new, read back and verified",
        )

    def _drop(self, subject: Subject, action: Action) -> Outcome:
        policy = subject.policy
        if policy.archive_after_days is not None:
            parts = self._proven_parts(policy, action)
        else:
            parts = active_parts(self._executor, self._database, action.table, action.partition)
        if policy.bars:
            barred = self._bars.proven_parts(action)
            if policy.archive_after_days is not None and parts != barred:
                return Outcome(action, State.LEFT, "its parts changed meanwhile; the next run looks again")
            parts = barred
        if not self._is_as_planned(subject, action, parts, policy.keep_days):
            return Outcome(action, State.LEFT, "its rows changed meanwhile; the next run looks again")
        with self._lock() as lock:
            # Whoever holds writes first and then takes this lock: no hold can come between this look and the drops.
            if (hold := self._hold(policy, action)) is not None:
                return Outcome(action, State.LEFT, f"held by {hold.name} meanwhile")
            there = set(active_parts(self._executor, self._database, action.table, action.partition))
            if policy.bars and there != set(parts):
                # Once the others are gone, bars cannot be made with a row that came late: they are first made again.
                return Outcome(action, State.LEFT, "its parts changed meanwhile; the next run looks again")
            dropped = 0
            for part in parts:
                lock.renew()
                if part in there:
                    dropped += drop_part(self._executor, self._database, action.table, part)
        if dropped < len(parts):
            return Outcome(
                action,
                State.LEFT,
                f"{dropped} of {len(parts)} parts dropped, the others were merged or dropped by another run meanwhile",
            )
        if policy.bars:
            self._bars.gone(action)
        return Outcome(action, State.DONE, f"{action.rows:,} rows dropped (parts: {dropped}): {action.why}")

    def _is_as_planned(
        self, subject: Subject, action: Action, parts: tuple[LivePart, ...], days: int | None
    ) -> bool:
        """Whether these parts have the rows that were planned with, all older than so many days, and all are shown."""
        live = sums_of_parts(
            self._executor, self._database, action.table, parts, time_column=subject.kept.partition_column
        )
        if live.rows != action.rows or not older_than(live.newest_ns, days, self._now_ns()):
            return False
        must_see_all(action.table, parts, live)
        return True

    def _move(self, subject: Subject, action: Action) -> Outcome:
        """Move a partition to the table of older ones."""
        policy = subject.policy
        parts = active_parts(self._executor, self._database, action.table, action.partition)
        if not self._is_as_planned(subject, action, parts, policy.tier_after_days):
            return Outcome(action, State.LEFT, "its rows changed meanwhile; the next run looks again")
        with self._lock() as lock:
            if (hold := self._hold(policy, action)) is not None:
                return Outcome(action, State.LEFT, f"held by {hold.name} meanwhile")
            moved = move_partition(
                self._executor, self._database, action.table, action.partition, renew=lock.renew
            )
        return Outcome(action, State.DONE, f"{moved}: {action.why}")

    def _tier_ttl(self, policy: RetentionPolicy, action: Action) -> Outcome:
        """Set the TTL of a table of moved partitions, which is of no pack."""
        ttl = policy.native_ttl if action.kind is Kind.MODIFY_TTL else ""
        with self._lock() as lock:
            if ttl and any(hold.concerns(policy.logical) for hold in self.holds()):
                return Outcome(action, State.LEFT, "held meanwhile")
            lock.renew()
            set_ttl(self._executor, self._database, action.table, ttl)
        return Outcome(action, State.DONE, action.why)

    def _proven_parts(self, policy: RetentionPolicy, action: Action) -> tuple[LivePart, ...]:
        """The parts that this run has proven, after another look at what it was proven by.

        Raises:
            RetentionError: nothing is proven, or pieces of the archive are gone or damaged.
        """
        proved = self._proved.get((action.table, action.partition))
        known = partition_of(self._store, _place(policy, action.partition))
        if proved is None or not self._whole(known) or known.sums.rows < proved.rows:
            raise RetentionError(
                f"{action.table} {action.partition}: nothing is dropped without its archive: expected verified pieces "
                f"of {action.rows:,} rows, found {known.sums.rows:,}; see recorder archive verify"
            )
        for piece in known.pieces:
            # A disk may have changed since the receipt what it keeps, and the rows are here still.
            if piece.receipt is not None and piece.receipt.manifest_sha256 not in self._read_back:
                read_back(piece.manifest, self._store)
                self._read_back.add(piece.receipt.manifest_sha256)
        return proved.parts

    def _whole(self, known: Partition) -> bool:
        """Whether each piece has its receipt and its files, by name and size."""
        sizes = {entry.name: entry.nbytes for entry in self._store.files(known.place.folder)}
        return known.verified and all(
            sizes.get(f"{known.place.folder}/{file.name}") == file.nbytes
            for piece in known.pieces
            for file in piece.manifest.files
        )

    def _hold(self, policy: RetentionPolicy, action: Action) -> Hold | None:
        span = span_of(action.partition, policy.partition)
        if span is None:
            raise RetentionError(f"{action.table}: {action.partition!r} is the id of no day and no month")
        return holding(self.holds(), policy.logical, span)

    def _name(self, table: str) -> str:
        return f"{quote_name(self._database)}.{quote_name(table)}"


class _Counted:
    """A source that counts the rows of each time it was read to the end."""

    def __init__(self, source: Source):
        self.database, self.place = source.database, source.place
        self.order_by, self.columns = source.order_by, source.columns
        self.counts: list[int] = []
        self._source = source

    def batches(self) -> Iterator[pa.RecordBatch]:
        """As the source."""
        return self._counting(self._source.batches())

    def identities(self) -> Iterator[pa.RecordBatch]:
        """As the source."""
        return self._counting(self._source.identities())

    def _counting(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = 0
        for batch in batches:
            rows += batch.num_rows
            yield batch
        self.counts.append(rows)


def _text(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _time_of(partition: str) -> str:
    """The day or month of a partition's id, without its symbol group."""
    return partition.partition("-")[0]


def _place(policy: RetentionPolicy, partition: str) -> Place:
    return place_of(policy.logical, _time_of(partition))
