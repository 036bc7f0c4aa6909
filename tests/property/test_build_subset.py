"""Parts of a batch: whatever is there, what is sent again is exactly what is absent, and nothing is sent twice."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
from harness.sink_tables import DAY_NS, START_NS
from hypothesis import given, settings

from recorder.batch import Batch, partition_keys
from recorder.subset import halves, judge, without
from schemas.policy import Partition


def batch_of(days: list[int], seqs: list[int] | None = None) -> Batch:
    rows = len(days)
    data = {
        "ts_local": pa.array([START_NS + day * DAY_NS for day in days]).cast(pa.timestamp("ns", tz="UTC")),
        "_log": pa.array([7] * rows, pa.uint64()),
        "_seq": pa.array(seqs if seqs is not None else range(rows), pa.uint64()),
    }
    return Batch("t", pa.record_batch(data), 5, from_source=True)


days_of = st.lists(st.integers(0, 3), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(days_of, st.data())
def test_a_sent_batch_is_judged_by_partition(days: list[int], data: st.DataObject) -> None:
    """A partition with any row there is in; the others are absent, in order, under the same token; one that is only
    partly there is named."""
    batch = batch_of(days)
    there = data.draw(st.sets(st.sampled_from(range(len(days)))))
    verdict = judge(batch, {(7, n) for n in there}, Partition.DAY)
    assert verdict.present_rows == len(there)
    in_table = {days[n] for n in there}
    absent = [n for n, day in enumerate(days) if day not in in_table]
    assert (verdict.absent.identities() if verdict.absent else []) == [(7, n) for n in absent]
    if verdict.absent is not None:
        assert (verdict.absent.token, verdict.absent.from_source) == (batch.token, True)
    first_day = START_NS // DAY_NS
    partly = {day for day in in_table if not all(n in there for n, of in enumerate(days) if of == day)}
    assert set(verdict.partly) == {first_day + day for day in partly}
    if not partly:
        assert verdict.present_rows + len(absent) == len(days)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=12), st.sets(st.integers(0, 8)))
def test_rows_of_a_source_go_once(seqs: list[int], present: set[int]) -> None:
    """What the table has and what the batch names twice is left out; the rest keeps its order."""
    batch = batch_of([0] * len(seqs), seqs)
    rest = without(batch, {(7, seq) for seq in present})
    expected = [seq for seq in dict.fromkeys(seqs) if seq not in present]
    assert (rest.identities() if rest else []) == [(7, seq) for seq in expected]
    if expected == seqs:
        assert rest is batch
    elif rest is not None:
        assert rest.token != batch.token, "other rows, another token"
        assert (rest.accepted_ns, rest.from_source) == (5, True)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 50))
def test_halves_are_the_batch(rows: int) -> None:
    """Neither is empty, together they are all, each has a token of its own."""
    batch = batch_of([0] * rows)
    left, right = halves(batch)
    assert left.rows
    assert right.rows
    assert left.identities() + right.identities() == batch.identities()
    assert len({left.token, right.token, batch.token}) == 3


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20))
def test_partitions_are_days_and_months_of_utc(times: list[int]) -> None:
    """As ClickHouse cuts them, for any time there is."""
    array = np.array(times, dtype=np.int64)
    stamps = array.astype("datetime64[ns]")
    assert (
        partition_keys(array, Partition.DAY).tolist() == stamps.astype("datetime64[D]").astype(int).tolist()
    )
    assert (
        partition_keys(array, Partition.MONTH).tolist() == stamps.astype("datetime64[M]").astype(int).tolist()
    )
