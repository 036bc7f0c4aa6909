"""What is due for a table at a given time, in order, each with its why. Pure: no clock, no SQL, nothing is done.

Laws, each of them checked by a model:

- A partition is dropped only when it is closed and settled, its newest row is older than `keep_days`, no hold overlaps
  it, and what must come first is proven of exactly the rows that it has now.
- Where an archive, bars or a hold apply the table carries no TTL: taking it away comes first.
- When everything due was done, nothing is due at the same time.

An action with `after` waits for others of its partition. Whoever carries a plan out reads the facts, does `next_due`,
and reads the facts again, until there is none; so a crash between any two actions costs nothing but the time. A hash
that it computed on the way stays in the facts for as long as rows and `modified_ns` are what they were.
"""

from __future__ import annotations

import enum
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from retention.facts import PartitionFacts, Proof, Proven, TableFacts, proven
from retention.holds import Hold, holding
from retention.partitions import Span, span_of
from retention.policy import DAY_NS, TIER_PREFIX, RetentionPolicy, older_than

S_NS = 1_000_000_000
HOUR_NS = 3_600 * S_NS


class Kind(enum.StrEnum):
    """What there is to do; the last three only tell."""

    DROP_TTL = "drop_ttl"
    MODIFY_TTL = "modify_ttl"
    BUILD_BARS = "build_bars"
    ARCHIVE = "archive"
    VERIFY_BARS = "verify_bars"
    VERIFY_ARCHIVE = "verify_archive"
    DROP = "drop"
    MOVE = "move"
    MERGE = "merge"
    WAIT = "wait"
    HELD = "held"
    REPORT = "report"

    @property
    def is_work(self) -> bool:
        """Whether something is to be done."""
        return self not in (Kind.WAIT, Kind.HELD, Kind.REPORT)


@dataclass(frozen=True, kw_only=True)
class Action:
    """One thing to do, or to tell. `partition` is empty where it is about the table.

    `after` are the kinds that must be done for this partition, or its table, before; empty: it may be done now.
    """

    kind: Kind
    table: str
    why: str = field(compare=False)
    partition: str = ""
    rows: int = field(default=0, compare=False)
    bytes_on_disk: int = field(default=0, compare=False)
    after: tuple[Kind, ...] = field(default=(), compare=False)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """From when on something is too many, too young or too large.

    A partition is settled when nothing was written to it for `settle_s`. Merged are closed partitions of more than
    `merge_parts` parts and at most `merge_bytes`, within the hours (UTC) from the first to before the second of
    `merge_hours`; equal ones allow any time.
    """

    settle_s: float = 3_600.0
    merge_parts: int = 8
    merge_bytes: int = 20 << 30
    merge_hours: tuple[int, int] = (1, 5)
    hot_parts: int = 300
    table_parts: int = 3_000
    table_partitions: int = 500


def due(
    policy: RetentionPolicy,
    facts: TableFacts,
    *,
    now_ns: int,
    holds: Sequence[Hold] = (),
    archived: Sequence[Proof] = (),
    barred: Sequence[Proof] = (),
    limits: Limits = Limits(),
) -> list[Action]:
    """What is due for one table, in the order in which to do it.

    `archived` and `barred` are the proofs of archive and bars, of any tables.
    """
    actions = list(_of_table(policy, facts, holds, limits))
    # A merge deletes by the TTL that is there: rows that are held, not archived yet, or to be kept for longer now.
    ttl = tuple(action.kind for action in actions if action.kind in (Kind.DROP_TTL, Kind.MODIFY_TTL))
    for part in sorted(facts.partitions, key=lambda part: part.id):
        actions += (
            replace(action, after=ttl) if action.kind is Kind.MERGE else action
            for action in _Partition(policy, facts, part, now_ns, limits).due(holds, archived, barred)
        )
    return actions


def next_due(actions: Iterable[Action], tried: Container[Action] = ()) -> Action | None:
    """The first action that may be done now and was not tried yet; None where there is none.

    Two actions of the same kind for the same partition count as the same, whatever their why.
    """
    for action in actions:
        if action.kind.is_work and not action.after and action not in tried:
            return action
    return None


def _of_table(
    policy: RetentionPolicy, facts: TableFacts, holds: Sequence[Hold], limits: Limits
) -> Iterator[Action]:
    hold = next((hold for hold in holds if hold.concerns(policy.logical)), None)
    wanted, reason = policy.native_ttl, "its policy"
    if policy.proof_first:
        wanted, reason = "", "rows go only with a receipt"
    elif hold is not None:
        wanted, reason = "", f"hold {hold.name}"
    elif not wanted:
        reason = "its rows are kept until someone drops them"
    if facts.ttl and not wanted:
        why = f"{reason}, and the table would delete rows by itself: {facts.ttl}"
        yield Action(kind=Kind.DROP_TTL, table=policy.table, why=why)
    elif facts.ttl != wanted:
        why = f"{reason} says {wanted}, the table has {facts.ttl or 'none'}"
        yield Action(kind=Kind.MODIFY_TTL, table=policy.table, why=why)
    parts = sum(part.parts for part in facts.partitions)
    for what, count, most in (
        ("parts", parts, limits.table_parts),
        ("partitions", len(facts.partitions), limits.table_partitions),
    ):
        if count > most:
            why = f"{count:,} {what}, more than {most:,}: inserts and starts get slow; keep less, or cut by month"
            yield Action(kind=Kind.REPORT, table=policy.table, why=why)


@dataclass(frozen=True)
class _Partition:
    """One partition, and what is to become of it."""

    policy: RetentionPolicy
    facts: TableFacts
    part: PartitionFacts
    now_ns: int
    limits: Limits

    def due(self, holds: Sequence[Hold], archived: Sequence[Proof], barred: Sequence[Proof]) -> list[Action]:
        part, now_ns = self.part, self.now_ns
        span = span_of(part.id, self.policy.partition) if self.facts.by_time else None
        if span is None or not span.covers(part.min_ns, part.max_ns):
            return [self._action(Kind.REPORT, self._no_time(span))]
        told = list(self._reports())
        expired = older_than(part.max_ns, self.policy.keep_days, now_ns)
        if span.end_ns > now_ns:
            if expired:
                told.append(
                    self._action(Kind.WAIT, "expired, but the partition is open: rows go to it still")
                )
            return told
        return told + self._closed(span, expired, holding(holds, self.policy.logical, span), archived, barred)

    def _closed(
        self, span: Span, expired: bool, hold: Hold | None, archived: Sequence[Proof], barred: Sequence[Proof]
    ) -> list[Action]:
        policy, part = self.policy, self.part
        in_archive = in_bars = Proven.YES
        if older_than(part.max_ns, policy.archive_after_days, self.now_ns):
            in_archive = proven(part, policy.logical, archived)
        if policy.bars:
            in_bars = proven(part, policy.logical, barred)
        moves = not expired and older_than(part.max_ns, policy.tier_after_days, self.now_ns)
        if Proven.NO not in (in_archive, in_bars) and not (expired or moves):
            return list(self._merge())
        if (expired or moves) and hold is not None:
            held = [self._action(Kind.HELD, f"{self._age(expired)}, but held by {hold.name}")]
        else:
            held = []
        if unsettled := self._unsettled(span):
            return held or [self._action(Kind.WAIT, unsettled)]
        first: list[Action] = []
        if in_bars is Proven.NO:
            first.append(
                self._action(Kind.BUILD_BARS, "closed, and its bars are not verified for these rows")
            )
        if in_archive is Proven.NO:
            why = f"newest row older than {policy.archive_after_days} days, and no receipt for these rows"
            first.append(self._action(Kind.ARCHIVE, why))
        if held or not (expired or moves):
            return first + held
        if moves:
            return [self._action(Kind.MOVE, f"{self._age(expired)}: to {TIER_PREFIX}{policy.table}")]
        for kind, state in ((Kind.VERIFY_BARS, in_bars), (Kind.VERIFY_ARCHIVE, in_archive)):
            if state is Proven.UNSURE:
                first.append(
                    self._action(kind, "parts were made since it was proven; compare the hash of the rows")
                )
        proof = " and a receipt covers these rows" if policy.archive_after_days is not None else ""
        why = f"{self._age(expired)}{'' if first else proof}"
        return [*first, self._action(Kind.DROP, why, tuple(action.kind for action in first))]

    def _age(self, expired: bool) -> str:
        days = self.policy.keep_days if expired else self.policy.tier_after_days
        return f"newest row older than {days} days"

    def _unsettled(self, span: Span) -> str:
        """Why the partition may still get rows; empty where it may not."""
        pending = self.facts.pending_oldest_ns
        if pending is not None and pending < span.end_ns:
            return "rows for it may wait in a log; they go in first"
        quiet_s = (self.now_ns - self.part.modified_ns) / S_NS
        if quiet_s < self.limits.settle_s:
            return f"written {max(0.0, quiet_s):,.0f} s ago; settled after {self.limits.settle_s:,.0f} s"
        return ""

    def _merge(self) -> Iterator[Action]:
        part, limits = self.part, self.limits
        if part.parts <= limits.merge_parts or part.bytes_on_disk > limits.merge_bytes or part.merges:
            return
        why = f"{part.parts:,} parts in a closed partition, more than {limits.merge_parts:,}"
        first, end = limits.merge_hours
        hour = self.now_ns // HOUR_NS % 24
        if first == end or (first <= hour < end if first < end else hour >= first or hour < end):
            yield self._action(Kind.MERGE, why)
        else:
            yield self._action(Kind.WAIT, f"{why}; merged from {first:02}:00 to {end:02}:00 UTC")

    def _reports(self) -> Iterator[Action]:
        part, limits = self.part, self.limits
        if part.parts > limits.hot_parts:
            why = f"{part.parts:,} parts, more than {limits.hot_parts:,}: inserts are too small, or merges too slow"
            yield self._action(Kind.REPORT, why)
        if part.max_ns > self.now_ns + DAY_NS:
            why = "its newest row is of the future, so it is kept longer; look at that producer's clock"
            yield self._action(Kind.REPORT, why)

    def _no_time(self, span: Span | None) -> str:
        if span is None:
            return (
                f"its id is none of a partition by {self.policy.partition}, as the policy has it; nothing is done to "
                'it until the table is rebuilt: see "recorder migrate check"'
            )
        return "rows outside the time that its id means; nothing is done to it: look at the partition key"

    def _action(self, kind: Kind, why: str, after: tuple[Kind, ...] = ()) -> Action:
        part = self.part
        return Action(
            kind=kind,
            table=self.policy.table,
            why=why,
            partition=part.id,
            rows=part.rows,
            bytes_on_disk=part.bytes_on_disk,
            after=after,
        )
