"""A log that was cut at any byte, or has any bit turned, or noise anywhere: every frame that is whole is read, no row
is that was not written, and what is wrong is said."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from harness.wal_making import NAME, UNSYNCED, Made, Piece, make_segment, read_ranges, snapshot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wal import verify as verify_module
from wal.damage import Damage, Harm
from wal.format import Kind
from wal.places import PlaceSet, Range
from wal.reader import LogReader
from wal.recovery import recover
from wal.verify import verify

MANY = pytest.mark.skipif("RECORDER_TEST_KILLS" not in os.environ, reason="minutes long: `make torture`")
PIECES: tuple[Sequence[Piece], ...] = (
    [1, 2],
    [2, (Kind.SEAL, b"seal"), 1, (9, b"later"), 3],
    [1, 2, (Kind.VOID, b""), 1],
)
TAIL = 40


def make_log(folder: Path, epochs: Sequence[int], tail: int = TAIL) -> list[Made]:
    made, stops = [], dict.fromkeys(epochs, 0)
    for number, (epoch, pieces) in enumerate(zip(epochs, PIECES, strict=True), 1):
        made.append(make_segment(folder, number, pieces, epoch=epoch, first=stops[epoch], tail=tail))
        stops[epoch] = made[-1].ranges()[-1].stop
    return made


def readable(made: Made, data: bytes) -> bool:
    """Whether one of its preambles is as it was."""
    each, used = made.preamble.bytes_each, used_bytes(made)
    return any(data[at : at + used] == made.data[at : at + used] for at in (0, each))


def rows_in(ranges: Sequence[Range]) -> PlaceSet:
    """Of ranges that must not overlap."""
    places = PlaceSet(ranges)
    assert places.rows == sum(part.rows for part in ranges)
    return places


def check(folder: Path, made: list[Made], datas: list[bytes], *, told: bool = True) -> list[Damage]:
    """The laws of this file, for segments whose bytes are now others. What was said about them.

    `told`: whether rows that are lost must be told; those of whole frames at the end, cut off clean, cannot be.
    """
    for segment, data in zip(made, datas, strict=True):
        segment.write(data)
    whole = [
        rows
        for segment, data in zip(made, datas, strict=True)
        if readable(segment, data)
        for rows in segment.ranges(segment.intact(data))
    ]
    reader = LogReader([folder], name=NAME)
    before = rows_in(read_ranges(reader))
    assert before == PlaceSet(whole)

    recovered = recover([folder], name=NAME, files=UNSYNCED)
    assert recovered.next_number == len(made) + 1
    after = LogReader([folder], name=NAME)
    assert rows_in(read_ranges(after)) == before
    written = sum(rows.rows for segment in made for rows in segment.ranges())
    if told and written > before.rows:
        assert recovered.damage or after.damage

    for segment, data in zip(made, datas, strict=True):
        now = segment.path.read_bytes()
        assert data.startswith(now)
        cut = data[len(now) :].rstrip(b"\0")
        if cut:
            # What was taken away was broken, is kept and is told.
            kept = segment.path.with_name(f"{segment.path.stem}.{len(now)}.broken").read_bytes()
            assert kept.rstrip(b"\0") == cut
            assert any(d.file == str(segment.path) and d.offset == len(now) for d in recovered.damage)

    there = snapshot(folder)
    again = recover([folder], name=NAME, files=UNSYNCED)
    assert snapshot(folder) == there
    mended = {d for d in recovered.damage if d.harm is Harm.TORN_TAIL}
    assert {(d.harm, d.file, d.offset) for d in again.damage} >= {
        (d.harm, d.file, d.offset) for d in recovered.damage if d not in mended
    }
    assert not {d.harm for d in again.damage} - {d.harm for d in recovered.damage} - {Harm.MISSING}
    for path in folder.glob("*.broken"):
        path.unlink()
    return [*recovered.damage, *(d for d in after.damage if d.harm is Harm.PAYLOAD)]


def used_bytes(made: Made) -> int:
    """Of a preamble, what its checksum covers."""
    return 72 + len(made.preamble.name.encode()) + len(made.preamble.schema)


def cuts(made: Made, step: int) -> Iterator[int]:
    """Lengths that a segment can be cut to: where the frames are each one, in the preambles one in `step`."""
    each = made.preamble.bytes_each
    for begin in (0, each):
        used_to = begin + used_bytes(made) + 9
        yield from range(begin, used_to, step)
        yield from range(used_to, begin + each, 16 * step)
    yield from range(2 * each, len(made.data))


def check_cuts(folder: Path, epochs: Sequence[int], which: int, step: int) -> None:
    made = make_log(folder, epochs)
    segment = made[which]
    datas = [other.data for other in made]
    each = segment.preamble.bytes_each
    followed = which < 2 and epochs[which] == epochs[which + 1]
    for size in cuts(segment, step):
        datas[which] = segment.data[:size]
        # Where a frame is whole, with some of its padding or all, nothing says that there was more.
        clean = any(segment.whole(frame).stop <= size <= frame.end for frame in segment.frames)
        clean = clean or each + used_bytes(segment) <= size <= 2 * each or size > segment.frames[-1].end
        damage = check(folder, made, datas, told=followed or not clean)
        if not readable(segment, datas[which]):
            assert [d.harm for d in damage if d.file == str(segment.path)] == [Harm.UNREADABLE]
        elif size > 2 * each:
            assert (Harm.TORN_TAIL in {d.harm for d in damage}) == (not clean)


@pytest.mark.parametrize("which", [1, 2], ids=["last but one", "last"])
def test_a_segment_cut_at_any_byte(tmp_path: Path, which: int) -> None:
    """Keeps every frame before the cut, and every other segment; what is half a frame is told, and kept aside."""
    check_cuts(tmp_path, (5, 5, 6), which, step=31)


@MANY
@pytest.mark.torture
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("epochs", [(5, 5, 5), (5, 6, 7), (5, 5, 6)], ids=["one", "each", "two"])
@pytest.mark.parametrize("which", [1, 2], ids=["last but one", "last"])
def test_a_segment_cut_at_any_byte_of_any_epochs(tmp_path: Path, epochs: Sequence[int], which: int) -> None:
    """The same, whichever writers wrote the segments, and in the preambles too."""
    check_cuts(tmp_path, epochs, which, step=1)


def check_bits(folder: Path, epochs: Sequence[int], which: int, bits: int) -> None:
    made = make_log(folder, epochs)
    segment = made[which]
    datas = [other.data for other in made]
    each, used = segment.preamble.bytes_each, used_bytes(segment)
    padding = set(range(2 * each, segment.frames[-1].end))
    for frame in segment.frames:
        padding -= set(range(*segment.whole(frame).indices(len(segment.data))))
    preambles = [*range(0, used, 8 // bits), *range(each, each + used, 8 // bits), used + 7, each + used + 7]
    for at in [*preambles, *range(2 * each, len(segment.data))]:
        for bit in range(at % 8, at % 8 + bits):
            broken = bytearray(segment.data)
            broken[at] ^= 1 << bit % 8
            datas[which] = bytes(broken)
            damage = check(folder, made, datas)
            read = at < used or each <= at < each + used or (at >= 2 * each and at not in padding)
            assert bool(damage) == read
            if at < 2 * each and read:
                assert [d.harm for d in damage] == [Harm.PREAMBLE]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_bit_turned_in_any_byte(tmp_path: Path, which: int) -> None:
    """Costs the frame it is in, or nothing; is told unless it is in bytes that nobody reads."""
    check_bits(tmp_path, (5, 5, 6), which, bits=1)


@MANY
@pytest.mark.torture
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("epochs", [(5, 5, 5), (5, 6, 7), (5, 5, 6)], ids=["one", "each", "two"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_any_bit_turned(tmp_path: Path, epochs: Sequence[int], which: int) -> None:
    """The same for each bit, whichever writers wrote the segments."""
    check_bits(tmp_path, epochs, which, bits=8)


@st.composite
def noises(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, float, bytes, bool]]]:
    """Epochs of the segments; and of each noise: which segment, where (a share), what, and whether to cut there."""
    epochs = draw(st.sampled_from([[5, 5, 5], [5, 6, 7], [5, 5, 6], [5, 6, 6]]))
    noise = st.tuples(
        st.integers(0, 2),
        st.floats(0, 1),
        st.binary(min_size=1, max_size=80) | st.integers(1, 2_000).map(bytes) | st.just(b"\xd7RF\x1a" * 9),
        st.booleans(),
    )
    return epochs, draw(st.lists(noise, min_size=1, max_size=5))


@pytest.fixture
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody writes here."""
    monkeypatch.setattr(verify_module, "_BETWEEN_LOOKS_S", 0)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noises())
def test_any_noise_anywhere(
    tmp_path: Path, without_waiting: None, noise: tuple[list[int], list[tuple[int, float, bytes, bool]]]
) -> None:
    """In several segments at once, cut or written over: the same laws, and `verify` counts what is there."""
    epochs, changes = noise
    for path in tmp_path.iterdir():
        path.unlink()
    made = make_log(tmp_path, epochs)
    datas = [segment.data for segment in made]
    for which, share, content, cut in changes:
        segment, data = made[which], datas[which]
        # Mostly where the frames are: the preambles are much longer and tried byte by byte.
        at = int(share * len(data)) if share < 0.1 else int(segment.preamble.frames_from + share * 1_000)
        end = at + len(content)
        datas[which] = (data[:at] + content + (b"" if cut else data[end:])) if at <= len(data) else data
    check(tmp_path, made, datas, told=False)
    whole = {
        segment.path: sum(rows.rows for rows in segment.ranges(segment.intact(data)))
        for segment, data in zip(made, datas, strict=True)
        if readable(segment, data)
    }
    assert {totals.path: totals.rows for totals in verify([tmp_path]).segments} == whole
