"""Replay: what is sealed comes as it was sealed, the rest once and in order, in bounded memory, whatever is lost."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from harness.wal_making import EPOCH, SCHEMA, Piece, make_segment, rows_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wal.checkpoint import Checkpoint
from wal.damage import Harm
from wal.format import Kind
from wal.places import PlaceSet, Range
from wal.reader import LogReader
from wal.replay import Replay, ReplayBatch
from wal.rows import pack_rows, schema_hash
from wal.seals import Seal, pack_seal, pack_void

OTHER = 99
Place = tuple[int, int]


def seal(token: str, *spans: tuple[int, int], epoch: int = EPOCH) -> Seal:
    ranges = tuple(Range(epoch, first, stop) for first, stop in spans)
    return Seal(token, ranges, sum(one.rows for one in ranges), 0, 0)


def sealed(one: Seal) -> Piece:
    return Kind.SEAL, pack_seal(one)


def void(*tokens: str) -> Piece:
    return Kind.VOID, pack_void(tokens)


def replay(
    folder: Path,
    done: Iterable[Range] = (),
    *,
    batch_rows: int = 1_000,
    memory_bytes_max: int = 10**9,
    only: Iterable[Range] | None = None,
) -> Replay:
    return Replay(
        LogReader([folder]),
        PlaceSet(done),
        batch_rows=batch_rows,
        memory_bytes_max=memory_bytes_max,
        only=only,
    )


def places(ranges: Iterable[Range]) -> list[Place]:
    return [(epoch, sequence) for epoch, first, stop in ranges for sequence in range(first, stop)]


def told(batch: ReplayBatch) -> list[Place]:
    """Places by what the rows themselves say."""
    epochs, numbers = (column.to_pylist() for column in batch.rows.columns)
    return list(zip(epochs, numbers, strict=True))


def taken(made: Replay) -> list[tuple[str, list[tuple[int, int]]]]:
    """All batches in short: token, ~token or nothing, and the ranges; each held to what it must be."""
    found = []
    for batch in made.batches():
        assert told(batch) == places(batch.ranges), "its rows stand where it says"
        assert {one.epoch for one in batch.ranges} == {batch.epoch}
        assert all(left.stop <= right.first for left, right in itertools.pairwise(batch.ranges))
        assert batch.schema_hash == schema_hash(batch.rows.schema)
        if batch.seal is not None:
            assert batch.ranges == batch.seal.ranges
            assert batch.rows.num_rows == batch.seal.rows
        label = batch.seal.token if batch.seal else f"~{batch.broken_seal.token}" if batch.broken_seal else ""
        found.append((label, [(one.first, one.stop) for one in batch.ranges]))
    assert (made.rows_to_go, made.bytes_to_go) == (0, 0)
    return found


# -- what comes, and as what --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "done", "expected"),
    [
        ([], [], []),
        ([10, 10], [], [("", [(0, 20)])]),
        ([10, 10], [(0, 20)], []),
        ([10, 10], [(5, 12), (18, 19)], [("", [(0, 5), (12, 18), (19, 20)])]),
        ([10, 10, sealed(seal("a", (3, 12)))], [], [("", [(0, 3)]), ("a", [(3, 12)]), ("", [(12, 20)])]),
        ([10, 10, sealed(seal("a", (3, 12)))], [(0, 5), (11, 20)], [("a", [(3, 12)])]),
        ([10, 10, sealed(seal("a", (3, 12)))], [(3, 12)], [("", [(0, 3), (12, 20)])]),
        (
            [10, sealed(seal("a", (0, 5))), sealed(seal("b", (5, 10)))],
            [],
            [("a", [(0, 5)]), ("b", [(5, 10)])],
        ),
        (
            [10, sealed(seal("b", (5, 10))), sealed(seal("a", (0, 5)))],
            [],
            [("a", [(0, 5)]), ("b", [(5, 10)])],
        ),
        (
            [10, sealed(seal("p", (0, 10))), void("p"), sealed(seal("a", (0, 4))), 5],
            [],
            [("a", [(0, 4)]), ("", [(4, 15)])],
        ),
        ([10, sealed(seal("p", (0, 10))), void("p")], [], [("", [(0, 10)])]),
        (
            [9, sealed(seal("odd", (0, 2), (4, 6), (8, 9))), sealed(seal("even", (2, 4)))],
            [],
            [("odd", [(0, 2), (4, 6), (8, 9)]), ("even", [(2, 4)]), ("", [(6, 8)])],
        ),
        ([10, (Kind.SEAL, b"no seal"), (Kind.VOID, b"{}")], [], [("", [(0, 10)])]),
        ([10, sealed(seal("e", (0, 4), epoch=OTHER))], [], [("", [(0, 10)])]),
    ],
    ids=[
        "an-empty-log",
        "what-was-not-sealed",
        "all-done",
        "around-what-is-done",
        "around-a-seal",
        "a-seal-whole-where-one-row-is-open",
        "a-seal-that-is-done",
        "seals-in-order",
        "seals-by-place",
        "a-half-of-a-voided-one",
        "nothing-sealed-any-more",
        "seals-that-interleave",
        "seals-that-nobody-can-read",
        "a-seal-of-rows-that-were-purged",
    ],
)
def test_what_comes(
    pieces: Sequence[Piece], done: list[tuple[int, int]], expected: object, tmp_path: Path
) -> None:
    """All that is not done, each row once; seals whole; the rest cut at seals."""
    make_segment(tmp_path, 1, pieces)
    made = replay(tmp_path, [Range(EPOCH, *span) for span in done])
    assert taken(made) == expected
    assert made.lost == ()
    assert taken(made) == [], "all batches come once"


def test_only_what_is_asked_for(tmp_path: Path) -> None:
    """Rows, by range; a seal that is touched comes whole, one that is not does not come."""
    make_segment(tmp_path, 1, [10, 10, sealed(seal("a", (3, 8))), sealed(seal("b", (8, 12)))])
    assert taken(replay(tmp_path, only=[Range(EPOCH, 5, 6), Range(EPOCH, 15, 17), Range(OTHER, 0, 9)])) == [
        ("a", [(3, 8)]),
        ("", [(15, 17)]),
    ]
    assert taken(replay(tmp_path, [Range(EPOCH, 15, 17)], only=[Range(EPOCH, 15, 18)])) == [("", [(17, 18)])]
    assert taken(replay(tmp_path, only=[])) == []


def test_epochs_come_as_the_log_has_them_and_never_together(tmp_path: Path) -> None:
    """Their numbers say nothing of their age; a seal may stand in a younger epoch than its rows."""
    make_segment(tmp_path, 1, [10], epoch=OTHER)
    make_segment(tmp_path, 2, [5, sealed(seal("old", (2, 6), epoch=OTHER))], epoch=EPOCH)
    make_segment(tmp_path, 3, [5], epoch=EPOCH, first=5)
    found = [(batch.epoch, told(batch)) for batch in replay(tmp_path).batches()]
    assert found == [
        (OTHER, places([Range(OTHER, 0, 2)])),
        (OTHER, places([Range(OTHER, 2, 6)])),
        (OTHER, places([Range(OTHER, 6, 10)])),
        (EPOCH, places([Range(EPOCH, 0, 10)])),
    ]


def test_schemas_are_never_mixed(tmp_path: Path) -> None:
    """Each batch has its own, and the hash of it; a seal over two of them cannot be one batch any more."""
    wider = pa.schema([*SCHEMA, pa.field("more", pa.string())])

    def of_wider(epoch: int, first: int, rows: int) -> bytes:
        narrow = rows_of(epoch, first, rows)
        return pack_rows([pa.record_batch([*narrow.columns, pa.array(["x"] * rows)], schema=wider)], None)

    make_segment(tmp_path, 1, [10])
    make_segment(tmp_path, 2, [10, sealed(seal("ab", (8, 12)))], first=10, schema=wider, payload_of=of_wider)
    made = replay(tmp_path)
    found = [
        (batch.ranges[0][1:], batch.rows.schema, batch.broken_seal is not None) for batch in made.batches()
    ]
    assert found == [
        ((0, 8), SCHEMA, False),
        ((8, 10), SCHEMA, True),
        ((10, 12), wider, True),
        ((12, 20), wider, False),
    ]
    assert [one.harm for one in made.damage] == [Harm.SEAL]


def test_metadata_of_a_schema_does_not_count(tmp_path: Path) -> None:
    """Two versions of Arrow may write it differently: rows of one epoch still make one batch."""
    make_segment(tmp_path, 1, [10])
    make_segment(tmp_path, 2, [10], first=10, schema=SCHEMA.with_metadata({"written": "by another"}))
    assert taken(replay(tmp_path)) == [("", [(0, 20)])]


@given(
    frames=st.lists(st.integers(0, 9), max_size=12),
    cuts=st.sets(st.integers(0, 60), max_size=8),
    holding=st.lists(st.booleans(), min_size=9, max_size=9),
    done=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=5),
    batch_rows=st.integers(1, 20),
    run_bytes=st.integers(1, 600),
    split=st.integers(0, 12),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_open_row_comes_once(
    frames: list[int],
    cuts: set[int],
    holding: list[bool],
    done: list[tuple[int, int]],
    batch_rows: int,
    run_bytes: int,
    split: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """However rows stand in frames and segments, whatever is sealed and done: seals whole, the rest in order."""
    folder = tmp_path_factory.mktemp("log")
    total = sum(frames)
    bounds = sorted(cuts & set(range(total + 1)))
    seals = [
        seal(f"{a}-{b}", (a, b))
        for (a, b), hold in zip(itertools.pairwise(bounds), holding, strict=False)
        if hold
    ]
    head, tail = frames[:split], frames[split:]
    make_segment(folder, 1, head)
    make_segment(folder, 2, [*tail, *map(sealed, seals)], first=sum(head))
    settled = PlaceSet(Range(EPOCH, a, min(total, a + rows)) for a, rows in done)
    made = Replay(LogReader([folder]), settled, batch_rows=batch_rows, memory_bytes_max=run_bytes)
    left = made.rows_to_go
    given_out: list[Place] = []
    for batch in made.batches():
        assert told(batch) == places(batch.ranges)
        assert batch.broken_seal is None
        if batch.seal is None:
            assert batch.rows.num_rows <= batch_rows
            assert batch.rows.nbytes <= max(run_bytes // 3, 16)
        given_out += told(batch)
        left -= batch.rows.num_rows
        assert made.rows_to_go == left
    assert given_out == sorted(set(given_out))
    whole = [one for one in seals if not all(settled.covers(part) for part in one.ranges)]
    expected = set(places(settled.missing_of(Range(EPOCH, 0, total)))) | {
        place for one in whole for place in places(one.ranges)
    }
    assert set(given_out) == expected
    assert (left, made.bytes_to_go, made.lost, made.damage) == (0, 0, (), [])


# -- what is lost -------------------------------------------------------------------------------------------------


def spoil(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def test_a_seal_that_lost_rows_is_told_and_what_is_left_of_it_flagged(tmp_path: Path) -> None:
    """It is never sent again as it was; the other rows come in its place; the lost ones are named, to be settled."""
    log = make_segment(tmp_path, 1, [10, 10, 10, sealed(seal("a", (5, 25))), sealed(seal("b", (25, 30)))])
    spoil(log.path, log.frames[1].offset + 40)
    made = replay(tmp_path)
    assert made.rows_to_go == 20
    assert made.lost == (Range(EPOCH, 10, 20),)
    assert taken(made) == [("", [(0, 5)]), ("~a", [(5, 10), (20, 25)]), ("b", [(25, 30)])]
    assert [one.harm for one in made.damage] == [Harm.PAYLOAD, Harm.SEAL]
    assert "token a, 20 rows, 10 of them gone" in str(made.damage[1])
    again = replay(tmp_path, [*made.lost, Range(EPOCH, 5, 10)])
    assert taken(again) == [("", [(0, 5)]), ("~a", [(20, 25)]), ("b", [(25, 30)])]
    assert again.lost == ()
    everything = replay(tmp_path, [Range(EPOCH, 0, 30)])
    assert taken(everything) == []
    assert [one.harm for one in everything.damage] == [Harm.PAYLOAD]


def test_rows_that_only_a_seal_speaks_of_are_lost_too(tmp_path: Path) -> None:
    """At the end of an epoch nothing else says that they were there."""
    log = make_segment(tmp_path, 1, [10, 10])
    make_segment(tmp_path, 2, [sealed(seal("a", (5, 20))), 3], epoch=OTHER)
    log.write(log.data[: log.frames[1].offset])
    made = replay(tmp_path)
    assert made.lost == (Range(EPOCH, 10, 20),)
    assert taken(made) == [("", [(0, 5)]), ("~a", [(5, 10)]), ("", [(0, 3)])]


def test_what_was_purged_is_not_lost(tmp_path: Path) -> None:
    """A log begins where it was purged, also when its checkpoint is lost; a seal across that is none any more."""
    make_segment(tmp_path, 4, [10, sealed(seal("gone", (0, 50))), sealed(seal("cut", (90, 105)))], first=100)
    made = replay(tmp_path)
    assert made.lost == ()
    assert taken(made) == [("~cut", [(100, 105)]), ("", [(105, 110)])]


def test_what_is_found_to_be_unreadable_only_when_it_is_read(tmp_path: Path) -> None:
    """A sound frame that holds no rows, and one that was broken in between: its rows are lost, and no others."""

    def payload_of(epoch: int, first: int, rows: int) -> bytes:
        return b"no rows" if first == 10 else pack_rows([rows_of(epoch, first, rows)], None)

    log = make_segment(tmp_path, 1, [10, 10, 10, 10, sealed(seal("a", (5, 25)))], payload_of=payload_of)
    made = replay(tmp_path)
    assert (made.rows_to_go, made.lost) == (40, ())
    spoil(log.path, log.frames[3].offset + 40)
    assert taken(made) == [("", [(0, 5)]), ("~a", [(5, 10), (20, 25)]), ("", [(25, 30)])]
    assert made.lost == (Range(EPOCH, 10, 20), Range(EPOCH, 30, 40))
    assert [one.harm for one in made.damage] == [Harm.UNDECODABLE, Harm.SEAL, Harm.PAYLOAD]


def test_a_segment_that_vanishes_costs_its_rows_alone(tmp_path: Path) -> None:
    """Whoever removes segments in an emergency does so beside a replay."""
    make_segment(tmp_path, 1, [10])
    gone = make_segment(tmp_path, 2, [10, sealed(seal("a", (12, 15)))], first=10)
    make_segment(tmp_path, 3, [10], first=20)
    made = replay(tmp_path)
    gone.path.unlink()
    assert taken(made) == [("", [(0, 10)]), ("", [(20, 30)])]
    assert made.lost == (Range(EPOCH, 10, 20),)


def test_rows_written_again_come_from_where_they_are_sound(tmp_path: Path) -> None:
    """A suspect segment with a broken frame, and the one that was written instead: each row once, in order."""
    suspect = make_segment(tmp_path, 1, [10, 10, 10, 10])
    spoil(suspect.path, suspect.frames[2].offset + 40)
    make_segment(tmp_path, 2, [7, 20, 3, sealed(seal("a", (18, 33)))], first=15)
    made = replay(tmp_path)
    assert taken(made) == [("", [(0, 18)]), ("a", [(18, 33)]), ("", [(33, 45)])]
    assert made.lost == ()


def test_a_checkpoint_that_knows_more_than_the_log_is_told(tmp_path: Path) -> None:
    """An older copy of the log beside a newer checkpoint: nothing is taken for new, nothing for lost."""
    make_segment(tmp_path, 1, [10])
    checkpoint = (
        Checkpoint().resolve([Range(EPOCH, 0, 4)]).confirm([Range(EPOCH, 4, 90)], at_ns=1, server="s")
    )
    made = Replay(LogReader([tmp_path]), checkpoint)
    assert taken(made) == []
    assert [one.harm for one in made.damage] == [Harm.CHECKPOINT_AHEAD]
    assert made.lost == ()
    assert Replay(LogReader([tmp_path]), Checkpoint().resolve([Range(OTHER, 0, 9)])).damage == []


# -- bounds -------------------------------------------------------------------------------------------------------


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A log many times as large as the bound, in frames of all sizes, a few rows of each done: never more at once."""
    bound = 3 * 1_048_576
    frames = [1, 50_000, 10, 200, 40_000, 3_000] * 8
    log = make_segment(tmp_path, 1, frames)
    assert len(log.data) > 10_000_000
    holes = [Range(EPOCH, first, first + 1) for first in range(0, sum(frames), 5_000)]
    made = replay(tmp_path, holes, batch_rows=10**9, memory_bytes_max=bound)
    gc.collect()
    before = pa.total_allocated_bytes()
    peak = rows = 0
    for batch in made.batches():
        rows += batch.rows.num_rows
        del batch
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert rows == sum(frames) - len(holes)
    assert peak <= bound


def test_few_rows_of_large_frames_do_not_keep_them(tmp_path: Path) -> None:
    """One row in ten thousand is open: what is held is those rows, not the frames that they are from."""
    frames = [10_000] * 40
    make_segment(tmp_path, 1, frames)
    done = [Range(EPOCH, first + 1, first + 10_000) for first in range(0, 400_000, 10_000)]
    gc.collect()
    before = pa.total_allocated_bytes()
    (batch,) = replay(tmp_path, done).batches()
    assert batch.rows.num_rows == 40
    assert pa.total_allocated_bytes() - before < 2 * 160_000


def test_a_seal_comes_whole_however_large(tmp_path: Path) -> None:
    """The bound is for what may be cut."""
    make_segment(tmp_path, 1, [1_000] * 10 + [sealed(seal("a", (500, 9_500)))])
    found = taken(replay(tmp_path, batch_rows=100, memory_bytes_max=6_000))
    assert ("a", [(500, 9_500)]) in found
    assert all(stop - first <= 100 for token, spans in found if not token for first, stop in spans)


def test_a_log_of_small_frames_costs_no_value_a_frame(tmp_path: Path) -> None:
    """20,000 frames of one row: what is kept of them is counted in stretches."""
    make_segment(tmp_path, 1, [1] * 20_000, payload_of=lambda epoch, first, rows: ONE_ROW)
    made = replay(tmp_path)
    kept = made._survey.stretches[EPOCH]
    assert len(kept) < 20_000 * 400 / 262_144 + 5
    assert made.rows_to_go == 20_000
    assert sum(batch.rows.num_rows for batch in made.batches()) == 20_000


ONE_ROW = pack_rows([rows_of(1, 1, 1)], None)


def test_a_bound_that_admits_nothing_is_refused(tmp_path: Path) -> None:
    """Rather than an endless loop."""
    for wrong in ({"batch_rows": 0}, {"memory_bytes_max": 0}):
        with pytest.raises(ValueError, match="at least 1 of each"):
            replay(tmp_path, **wrong)  # type: ignore[arg-type]
