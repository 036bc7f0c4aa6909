"""What is due for single partitions: the cases that the model of retention does not tell apart."""

from __future__ import annotations

import dataclasses

import pytest

from retention.due import Kind, Limits, due
from retention.facts import PartitionFacts, Proof, TableFacts
from retention.holds import Hold
from retention.policy import DAY_NS, RetentionPolicy
from schemas.policy import Partition

FIRST_NS = 1_723_075_200_000_000_000  # 2024-08-08
NOW_NS = FIRST_NS + 10 * DAY_NS  # midnight, UTC
HOUR_NS = DAY_NS // 24
PART = PartitionFacts(
    id="20240808",
    rows=5,
    bytes_on_disk=100,
    parts=1,
    min_ns=FIRST_NS,
    max_ns=FIRST_NS + 9,
    modified_ns=FIRST_NS + DAY_NS,
)
POLICY = RetentionPolicy(table="t", partition=Partition.DAY, keep_days=5, archive_after_days=2)
PROOF = Proof(
    table="t", partition="20240808", rows=5, sum_hash="a", max_ns=PART.max_ns, checked_ns=NOW_NS - DAY_NS
)


def _due(
    part: PartitionFacts = PART, policy: RetentionPolicy = POLICY, now_ns: int = NOW_NS, **more: object
) -> list[tuple[Kind, tuple[Kind, ...]]]:
    facts = TableFacts(table=policy.table, ttl=policy.native_ttl, partitions=(part,))
    actions = due(policy, facts, now_ns=now_ns, **more)  # type: ignore[arg-type]
    assert all(action.why for action in actions)
    return [(action.kind, action.after) for action in actions]


def _changed(**values: object) -> PartitionFacts:
    return dataclasses.replace(PART, **values)  # type: ignore[arg-type]


DROP = (Kind.DROP, ())
ARCHIVE_FIRST = [(Kind.ARCHIVE, ()), (Kind.DROP, (Kind.ARCHIVE,))]
VERIFY_FIRST = [(Kind.VERIFY_ARCHIVE, ()), (Kind.DROP, (Kind.VERIFY_ARCHIVE,))]
LATER = {"modified_ns": NOW_NS - 2 * HOUR_NS}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, [DROP]),
        ({"sum_hash": "a"}, [DROP]),
        (LATER, VERIFY_FIRST),  # merged, or other rows
        (LATER | {"sum_hash": "a"}, [DROP]),
        (LATER | {"sum_hash": "b"}, ARCHIVE_FIRST),
        (LATER | {"rows": 6}, ARCHIVE_FIRST),  # that rows are missing is known without a hash
        (LATER | {"rows": 4}, ARCHIVE_FIRST),
        ({"id": "20240809", "min_ns": FIRST_NS + DAY_NS, "max_ns": FIRST_NS + DAY_NS}, ARCHIVE_FIRST),
        ({"modified_ns": NOW_NS - HOUR_NS + 1}, [(Kind.WAIT, ())]),
    ],
)
def test_a_receipt_covers_exactly_the_rows_that_are_there(
    changed: dict[str, object], expected: list[tuple[Kind, tuple[Kind, ...]]]
) -> None:
    """Another count needs the archive again, newer parts need the hash compared; else the drop may be done."""
    assert _due(_changed(**changed), archived=[PROOF]) == expected


def test_a_receipt_of_another_table_proves_nothing() -> None:
    """A proof speaks of one table."""
    assert _due(archived=[dataclasses.replace(PROOF, table="u")]) == ARCHIVE_FIRST


def test_a_hold_leaves_the_archive_and_takes_the_drop() -> None:
    """What is held is archived and stays; a hold of another time or table changes nothing."""
    held = Hold(name="case", table="t", since_ns=FIRST_NS + DAY_NS - 1)
    assert _due(holds=[held]) == [(Kind.ARCHIVE, ()), (Kind.HELD, ())]
    assert _due(holds=[held], archived=[PROOF]) == [(Kind.HELD, ())]
    assert _due(holds=[dataclasses.replace(held, since_ns=FIRST_NS + DAY_NS)], archived=[PROOF]) == [DROP]
    assert _due(holds=[dataclasses.replace(held, table="u")], archived=[PROOF]) == [DROP]


def test_a_hold_of_a_table_holds_what_was_moved_from_it() -> None:
    """Partitions in `archived_t` are held by a hold of `t`, and expire as those of `t` do."""
    tier = RetentionPolicy(table="t", partition=Partition.DAY, keep_days=5, tier_after_days=2).of_tier()
    assert tier is not None
    assert tier.table == "archived_t"
    assert _due(policy=tier) == [DROP]
    assert _due(policy=tier, holds=[Hold(name="case", table="t")]) == [(Kind.HELD, ())]


@pytest.mark.parametrize("hour", range(24))
def test_many_small_parts_are_merged_off_peak(hour: int) -> None:
    """Within the hours, where no merge runs and the partition is not too large; outside them it is said to wait."""
    policy = RetentionPolicy(table="t", partition=Partition.DAY)
    now_ns, many = NOW_NS + hour * HOUR_NS, _changed(parts=9)
    expected = Kind.MERGE if hour in (22, 23, 0, 1) else Kind.WAIT
    limits = Limits(merge_hours=(22, 2))
    assert _due(many, policy, now_ns, limits=limits) == [(expected, ())]
    assert _due(_changed(parts=9, merges=1), policy, now_ns, limits=limits) == []
    assert _due(_changed(parts=8), policy, now_ns, limits=limits) == []
    assert _due(_changed(parts=9, bytes_on_disk=21 << 30), policy, now_ns, limits=limits) == []


@pytest.mark.parametrize(
    "changed",
    [{"id": "202408"}, {"id": "all"}, {"min_ns": FIRST_NS - 1}, {"max_ns": FIRST_NS + DAY_NS}],
)
def test_a_partition_that_is_not_what_its_id_says_is_left_alone(changed: dict[str, object]) -> None:
    """An id of another key, or rows outside its time: reported, and never dropped."""
    assert _due(_changed(**changed), archived=[PROOF]) == [(Kind.REPORT, ())]


def test_too_many_of_something_is_reported() -> None:
    """Hot partitions, tables of many parts or partitions, and rows of the future."""
    policy = RetentionPolicy(table="t", partition=Partition.DAY)
    ahead = _changed(
        id="20240820", min_ns=NOW_NS + 2 * DAY_NS, max_ns=NOW_NS + 2 * DAY_NS, parts=11
    )  # fmt: skip
    limits = Limits(hot_parts=10, table_parts=10, table_partitions=0)
    assert _due(ahead, policy, limits=limits) == [(Kind.REPORT, ())] * 4
