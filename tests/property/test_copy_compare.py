"""What a copy decides without a database: which rows lack, which slices are looked at, how blocks are cut."""

from __future__ import annotations

import collections

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.copying import Part
from recorder.copying import compare as comparing
from recorder.copying.blocks import bounded
from recorder.copying.compare import Rows, compare
from recorder.copying.digest import RUN_ROWS, Digest, differing_runs, slices_of

IDENTITIES = st.tuples(st.sampled_from([0, 1, 2**64 - 1]), st.integers(0, 5))
ROWS = st.lists(st.tuples(IDENTITIES, st.integers(0, 2)), max_size=30)
Listed = list[tuple[tuple[int, int], int]]


def arrays(rows: Listed) -> Rows:
    columns = ([one[0][0] for one in rows], [one[0][1] for one in rows], [one[1] for one in rows])
    return Rows(*(np.array(column, dtype=np.uint64) for column in columns))


def grouped(rows: Listed) -> dict[tuple[int, int], list[int]]:
    groups = collections.defaultdict(list)
    for identity, content in rows:
        groups[identity].append(content)
    return groups


@settings(deadline=None)
@given(ROWS, ROWS)
def test_rows_are_told_apart_by_identity_and_content(source: Listed, target: Listed) -> None:
    """A comparison counts what a dictionary of identities says, whatever the order and however often rows are there."""
    there, here = grouped(source), grouped(target)
    found = compare(arrays(source), arrays(target))
    missing = there.keys() - here.keys()
    differing = {name for name in there if len({*there[name], *here.get(name, [])}) > 1}
    assert found.missing == len(missing)
    assert found.missing_ids == missing
    assert found.extra == len(here.keys() - there.keys())
    assert found.differing == len(differing)
    assert set(found.differing_ids) <= differing
    assert len(found.differing_ids) == min(len(differing), comparing.SHOWN)
    assert found.doubled == sum(len(contents) > 1 for contents in here.values())
    assert found.source_doubled == sum(len(contents) > 1 for contents in there.values())


@settings(deadline=None)
@given(ROWS, ROWS, ROWS, ROWS)
def test_comparisons_of_several_passes_add_up(a: Listed, b: Listed, c: Listed, d: Listed) -> None:
    """Compared in two passes that share no identity, rows come to the same as in one."""

    def even(rows: Listed) -> Listed:
        return [one for one in rows if one[0][1] % 2 == 0]

    def odd(rows: Listed) -> Listed:
        return [one for one in rows if one[0][1] % 2]

    source, target = a + c, b + d
    whole = compare(arrays(source), arrays(target))
    parts = compare(arrays(even(source)), arrays(even(target))) + compare(
        arrays(odd(source)), arrays(odd(target))
    )
    names = ("missing", "extra", "differing", "doubled", "source_doubled", "missing_ids")
    assert [getattr(whole, name) for name in names] == [getattr(parts, name) for name in names]


DIGESTS = st.dictionaries(
    st.integers(-1, 12), st.builds(Digest, st.integers(1, RUN_ROWS), st.integers(0, 2)), max_size=14
)


@settings(deadline=None)
@given(DIGESTS, DIGESTS, st.integers(-(10**18), 10**18), st.integers(12, 10**15))
def test_runs_hold_the_slices_that_differ_and_no_others(
    source: dict[int, Digest], target: dict[int, Digest], first_ns: int, length_ns: int
) -> None:
    """Every slice that differs is in one run, none that is equal is in any; runs are in order and bounded."""
    part = Part("fills", "202408", 12 * 16_384, 0, first_ns, first_ns + length_ns - 1)
    slices = slices_of(part)
    assert slices.count == 12
    assert slices.first_ns + slices.count * slices.width_ns > part.last_ns
    runs = differing_runs(source, target, slices)
    none = Digest(0, 0)
    for number in range(-1, 13):
        span = slices.span(number, number)
        within = [
            run
            for run in runs
            if (
                run.span.since_ns is None
                or (span.since_ns is not None and run.span.since_ns <= span.since_ns)
            )
            and (
                run.span.until_ns is None
                or (span.until_ns is not None and span.until_ns <= run.span.until_ns)
            )
        ]
        assert len(within) == (source.get(number, none) != target.get(number, none))
    for rows, side in (
        (sum(run.source_rows for run in runs), source),
        (sum(run.target_rows for run in runs), target),
    ):
        different = [side[n].rows for n in side if source.get(n, none) != target.get(n, none)]
        assert rows == sum(different)
    assert all(max(run.source_rows, run.target_rows) <= RUN_ROWS for run in runs)


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 30), st.integers(64, 2_000))
def test_blocks_are_the_same_rows_in_bounds(sizes: list[int], rows: int, nbytes: int) -> None:
    """Blocks hold every row once, in order; none is empty, has more rows than the bound, or more bytes unless one row
    has."""
    numbers = iter(range(1_000))
    batches = [
        pa.record_batch({"n": pa.array([next(numbers) for _ in range(size)], pa.int64())}) for size in sizes
    ]
    blocks = list(bounded(batches, rows, nbytes))
    assert [n for block in blocks for n in block["n"].to_pylist()] == list(range(sum(sizes)))
    assert all(0 < block.num_rows <= rows for block in blocks)
    assert all(block.nbytes <= nbytes or block.num_rows == 1 for block in blocks)
