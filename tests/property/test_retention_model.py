"""What retention may drop, and must: a model of a table whose rows come, late ones too, while plans are carried out.

The model knows each row. It carries plans out as a runner does (read facts, do the first that is due, read again), lets
steps fail, and crashes between any two of them, after which only the facts are left.
"""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from retention.due import Action, Kind, Limits, due, next_due
from retention.facts import PartitionFacts, Proof, TableFacts
from retention.holds import Hold
from retention.policy import RetentionPolicy
from schemas.policy import Partition

S_NS = 1_000_000_000
DAY_S = 86_400
START_S = 1_723_000_000  # in August 2024
LIMITS = Limits(settle_s=600, merge_parts=2, merge_hours=(1, 5))
TTL = "toDateTime(ts_local) + toIntervalDay(7)"


@dataclass
class Rows:
    """A partition as it is on the server: number and time of each row."""

    times: dict[int, int] = field(default_factory=dict)
    parts: int = 0
    modified_s: int = 0

    @property
    def hash(self) -> str:
        return hashlib.sha256(repr(sorted(self.times.items())).encode()).hexdigest()


@st.composite
def policies(draw: st.DrawFn) -> RetentionPolicy:
    """Few days, so that rows expire often; by month too."""
    keep = draw(st.sampled_from([None, 1, 1, 2, 3, 3, 40]))
    archive = draw(st.none() | st.integers(1, keep or 3))
    bars = draw(st.booleans())
    tier = None
    if archive is None and not bars and keep != 1:
        tier = draw(st.none() | st.integers(1, (keep or 3) - 1))
    return RetentionPolicy(
        table="t",
        partition=draw(st.sampled_from([Partition.DAY, Partition.DAY, Partition.MONTH])),
        keep_days=keep,
        archive_after_days=archive,
        bars=bars,
        tier_after_days=tier,
        native_ttl=TTL if keep else "",
    )


AGES_S = st.sampled_from([-3 * DAY_S, -60, 0, 60, 3_600]) | st.integers(0, 5).map(lambda days: days * DAY_S)
"""Whole days too: a row is then just not, or just, too old."""
FAR_AGES_S = AGES_S | st.integers(30, 45).map(lambda days: days * DAY_S + 7)
FAILING = st.sampled_from(
    [Kind.ARCHIVE, Kind.ARCHIVE, Kind.BUILD_BARS, Kind.VERIFY_ARCHIVE, Kind.VERIFY_BARS, Kind.DROP_TTL]
)
STEPS_S = st.sampled_from(
    [1, 60, 300, 599, 600, 601, 601, 3_600, DAY_S, DAY_S, 2 * DAY_S, 3 * DAY_S, 31 * DAY_S]
)


def span_s(partition_id: str, partition: Partition) -> tuple[int, int]:
    """First second of a partition, and of the next one; counted in another way than the code under test does."""
    year, month, day = int(partition_id[:4]), int(partition_id[4:6]), int(partition_id[6:] or 1)
    first = datetime.datetime(year, month, day, tzinfo=datetime.UTC)
    after = first + datetime.timedelta(days=1)
    while partition is Partition.MONTH and after.month == first.month:
        after += datetime.timedelta(days=1)
    return int(first.timestamp()), int(after.timestamp())


class Retention(RuleBasedStateMachine):
    @initialize(policy=policies(), ttl=st.sampled_from(["", TTL, "toDateTime(ts_local) + toIntervalDay(1)"]))
    def begin(self, policy: RetentionPolicy, ttl: str) -> None:
        self.policy = policy
        self.now_s = START_S
        self.number = 0
        tier = policy.of_tier()
        self.policies = {"t": policy} | ({tier.table: tier} if tier else {})
        self.tables: dict[str, dict[str, Rows]] = {name: {} for name in self.policies}
        self.ttl = dict.fromkeys(self.policies, ttl)
        self.holds: dict[str, Hold] = {}
        self.archive: dict[int, int] = {}
        self.bars: dict[str, dict[int, int]] = {}
        self.archived: list[Proof] = []
        self.barred: list[Proof] = []
        self.pending_s: int | None = None
        self.gone: dict[int, int] = {}

    # -- what happens by itself --

    @rule(ages_s=st.lists(FAR_AGES_S, min_size=1, max_size=4))
    def rows_come(self, ages_s: list[int]) -> None:
        """New ones, late ones, and ones of a clock that is ahead."""
        for age_s in ages_s:
            self.insert(self.now_s - age_s)

    @rule(step_s=STEPS_S)
    def time_goes_by(self, step_s: int) -> None:
        self.now_s += step_s

    @rule(data=st.data())
    def the_server_merges(self, data: st.DataObject) -> None:
        if there := self.somewhere(data):
            there.parts, there.modified_s = 1, self.now_s

    @rule(data=st.data())
    def a_row_takes_the_place_of_another(self, data: st.DataObject) -> None:
        """As many rows as before, and not the same."""
        there = self.somewhere(data)
        if there and there.times:
            _, at_s = there.times.popitem()
            self.number += 1
            there.times[self.number] = at_s
            there.parts, there.modified_s = there.parts + 1, self.now_s

    @rule(age_s=st.none() | FAR_AGES_S)
    def rows_wait_in_the_log(self, age_s: int | None) -> None:
        self.pending_s = None if age_s is None else self.now_s - age_s

    @rule(
        name=st.sampled_from("ab"),
        table=st.sampled_from([None, "t", "other"]),
        age_s=st.none() | FAR_AGES_S,
        length_s=st.none() | st.sampled_from([1, 3_600, DAY_S, 3 * DAY_S]),
    )
    def someone_holds(self, name: str, table: str | None, age_s: int | None, length_s: int | None) -> None:
        since_s = None if age_s is None else self.now_s - age_s
        until_s = None if length_s is None else (since_s or self.now_s - 60 * DAY_S) + length_s
        self.holds[name] = Hold(
            name=name,
            table=table,
            since_ns=None if since_s is None else since_s * S_NS,
            until_ns=None if until_s is None else until_s * S_NS,
        )

    @precondition(lambda self: self.holds)
    @rule()
    def someone_lifts(self) -> None:
        self.holds.popitem()

    # -- plans --

    @rule(
        steps=st.integers(0, 12),
        fails=st.lists(FAILING, max_size=3),
        meanwhile=st.lists(AGES_S, max_size=3),
    )
    def a_run_is_broken_off(self, steps: int, fails: list[Kind], meanwhile: list[int]) -> None:
        """Some steps fail, rows come between steps, and after some it crashes."""
        self.carry_out(steps, frozenset(fails), list(meanwhile))

    @rule(step_s=st.just(0) | STEPS_S)
    def a_run_is_complete(self, step_s: int) -> None:
        """Nothing is due after it; nothing is kept that had to go; no TTL is where only a receipt may drop."""
        self.now_s += step_s
        failed = self.carry_out(1_000, frozenset(), [])
        assert not failed
        assert [action for action in self.plan({}) if action.kind.is_work] == []
        for name, policy in self.policies.items():
            held = any(hold.table in (None, "t") for hold in self.holds.values())
            assert self.ttl[name] == ("" if policy.proof_first or held else policy.native_ttl)
            for partition_id, there in self.tables[name].items():
                assert self.may_stay(policy, partition_id, there), f"{name} {partition_id} is kept too long"

    def may_stay(self, policy: RetentionPolicy, partition_id: str, there: Rows) -> bool:
        start_s, end_s = span_s(partition_id, policy.partition)
        keep = policy.keep_days
        return (
            keep is None
            or max(there.times.values()) + keep * DAY_S >= self.now_s
            or end_s > self.now_s
            or self.now_s - there.modified_s <= LIMITS.settle_s
            or (self.pending_s is not None and self.pending_s < end_s)
            or self.held(start_s, end_s)
        )

    def carry_out(self, steps: int, fails: frozenset[Kind], meanwhile: list[int]) -> list[Action]:
        hashes: dict[tuple[str, str], tuple[int, int, str]] = {}
        tried: list[Action] = []
        failed = []
        while len(tried) < steps and (action := next_due(self.plan(hashes), tried)) is not None:
            tried.append(action)
            if action.kind in fails:
                failed.append(action)
            else:
                self.do(action, hashes, meanwhile)
            if meanwhile:
                self.insert(self.now_s - meanwhile.pop())
        return failed

    def plan(self, hashes: dict[tuple[str, str], tuple[int, int, str]]) -> list[Action]:
        actions = []
        for name, policy in self.policies.items():
            facts = TableFacts(
                table=name,
                ttl=self.ttl[name],
                partitions=tuple(
                    self.facts(name, partition_id, hashes) for partition_id in self.tables[name]
                ),
                pending_oldest_ns=None if self.pending_s is None else self.pending_s * S_NS,
            )
            actions += due(
                policy,
                facts,
                now_ns=self.now_s * S_NS,
                holds=list(self.holds.values()),
                archived=self.archived,
                barred=self.barred,
                limits=LIMITS,
            )
        return actions

    def facts(self, name: str, partition_id: str, hashes: dict[Any, Any]) -> PartitionFacts:
        there = self.tables[name][partition_id]
        rows, modified_s, known = hashes.get((name, partition_id), (0, 0, None))
        return PartitionFacts(
            id=partition_id,
            rows=len(there.times),
            bytes_on_disk=100,
            parts=there.parts,
            min_ns=min(there.times.values()) * S_NS,
            max_ns=max(there.times.values()) * S_NS,
            modified_ns=(there.modified_s + 1) * S_NS - 1,
            sum_hash=known if (rows, modified_s) == (len(there.times), there.modified_s) else None,
        )

    def do(self, action: Action, hashes: dict[Any, Any], meanwhile: list[int]) -> None:
        if action.kind in (Kind.DROP_TTL, Kind.MODIFY_TTL):
            self.ttl[action.table] = "" if action.kind is Kind.DROP_TTL else self.policy.native_ttl
            return
        partition_id = action.partition
        there = self.tables[action.table][partition_id]
        proof = Proof(
            table="t",
            partition=partition_id,
            rows=len(there.times),
            sum_hash=there.hash,
            max_ns=max(there.times.values()) * S_NS,
            checked_ns=self.now_s * S_NS,
        )
        if action.kind is Kind.ARCHIVE:
            self.archive |= there.times
            self.archived.append(proof)
            if meanwhile:  # a row comes after the rows were read, and before the receipt is written
                self.insert(self.now_s - meanwhile.pop())
        elif action.kind is Kind.BUILD_BARS:
            self.bars[partition_id] = dict(there.times)
            self.barred.append(proof)
        elif action.kind in (Kind.VERIFY_ARCHIVE, Kind.VERIFY_BARS):
            hashes[action.table, partition_id] = (len(there.times), there.modified_s, there.hash)
        elif action.kind is Kind.DROP:
            self.drop(action.table, partition_id)
        elif action.kind is Kind.MOVE:
            self.move(action.table, partition_id)
        else:
            assert action.kind is Kind.MERGE
            assert 1 <= self.now_s // 3_600 % 24 < 5
            there.parts, there.modified_s = 1, self.now_s

    # -- what must hold whenever rows go --

    def drop(self, table: str, partition_id: str) -> None:
        there = self.tables[table].pop(partition_id)
        times, keep = there.times, self.policy.keep_days
        assert keep is not None, "rows are dropped that are kept for ever"
        assert max(times.values()) + keep * DAY_S < self.now_s, "a row is dropped before its time"
        self.goes(partition_id, there)
        if self.policy.archive_after_days is not None:
            assert times.items() <= self.archive.items(), "rows are dropped that no receipt covers"
        if self.policy.bars:
            assert times == self.bars.get(partition_id), "rows are dropped that no verified bar is of"

    def move(self, table: str, partition_id: str) -> None:
        there = self.tables[table].pop(partition_id)
        days = self.policy.tier_after_days
        assert days is not None
        assert max(there.times.values()) + days * DAY_S < self.now_s, "a row is moved before its time"
        keep = self.policy.keep_days
        newest_s = max(there.times.values())
        assert keep is None or newest_s + keep * DAY_S >= self.now_s, "what is to be dropped is moved"
        self.goes(partition_id, there)
        to = self.tables[f"archived_{table}"].setdefault(partition_id, Rows())
        to.times |= there.times
        to.parts, to.modified_s = to.parts + there.parts, self.now_s

    def goes(self, partition_id: str, there: Rows) -> None:
        _, end_s = span_s(partition_id, self.policy.partition)
        assert end_s <= self.now_s, "an open partition goes"
        assert not any(self.held(at_s, at_s + 1) for at_s in there.times.values()), "rows go that are held"
        assert self.now_s - there.modified_s >= LIMITS.settle_s, "a partition goes that was just written"
        assert self.pending_s is None or self.pending_s >= end_s, "a partition goes that rows still wait for"

    def held(self, start_s: int, end_s: int) -> bool:
        return any(
            hold.table in (None, "t")
            and (hold.since_ns is None or hold.since_ns < end_s * S_NS)
            and (hold.until_ns is None or hold.until_ns > start_s * S_NS)
            for hold in self.holds.values()
        )

    # -- the server --

    def insert(self, at_s: int) -> None:
        day = datetime.datetime.fromtimestamp(at_s, datetime.UTC)
        partition_id = day.strftime("%Y%m%d" if self.policy.partition is Partition.DAY else "%Y%m")
        there = self.tables["t"].setdefault(partition_id, Rows())
        self.number += 1
        there.times[self.number] = at_s
        there.parts, there.modified_s = there.parts + 1, self.now_s

    def somewhere(self, data: st.DataObject) -> Rows | None:
        there = [rows for table in self.tables.values() for rows in table.values()]
        return data.draw(st.sampled_from(there)) if there else None


TestRetention = Retention.TestCase
TestRetention.settings = settings(
    max_examples=600, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
