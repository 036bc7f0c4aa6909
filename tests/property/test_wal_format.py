"""The log's format: what was packed is read back, and nothing else is ever taken for it."""

from __future__ import annotations

import itertools

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wal.errors import BrokenSegment, ForeignFile, FormatError, FrameTooLarge, NewerFormat
from wal.format import (
    FRAME_HEADER_BYTES,
    PREAMBLE_BYTES_MAX,
    PREAMBLE_BYTES_MIN,
    SEGMENT_MAGIC,
    FrameHeader,
    Preamble,
    crc32c,
    frame_bytes,
    pack_frame_header,
    pack_preamble,
    padded,
    read_frame_header,
    read_preamble,
)
from wal.frames import Frame, Hole, payload, scan
from wal.rows import pack_rows, read_rows, read_schema, schema_hash, schema_message

U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
PREAMBLES = st.builds(
    Preamble,
    number=U64,
    epoch=U64,
    first=U64,
    created_ns=U64,
    schema_hash=U64,
    name=NAMES,
    schema=st.binary(max_size=200) | st.integers(3_000, 9_000).map(bytes),
)
SMALL = Preamble(3, 5, 7, 9, 11, "fills", b"schema")
SCHEMA = pa.schema([pa.field("n", pa.int64(), nullable=False), pa.field("text", pa.string())])


def test_crc32c_is_the_one_of_rfc_3720() -> None:
    """Its appendix B.4, and the check value that everybody gives."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"6789", crc32c(b"12345")) == 0xE3069283


@given(PREAMBLES)
def test_a_preamble_is_read_back(preamble: Preamble) -> None:
    """Whatever its numbers, its name and its schema, and whatever comes after it."""
    packed = pack_preamble(preamble)
    assert len(packed) == preamble.frames_from
    assert read_preamble(packed, "f") == (preamble, True)
    assert read_preamble(packed + b"\xff" * 100, "f") == (preamble, True)


@given(PREAMBLES, st.data())
def test_either_copy_is_enough(preamble: Preamble, data: st.DataObject) -> None:
    """Any damage to one of them, also its whole loss: the other one is found, and it is said."""
    packed = bytearray(pack_preamble(preamble))
    size, used = preamble.bytes_each, 72 + len(preamble.name.encode()) + len(preamble.schema)
    start = data.draw(st.sampled_from([0, size]))
    first = data.draw(st.integers(0, used - 1))
    length = data.draw(st.integers(1, size - first))
    for at in range(start + first, start + first + length):
        packed[at] ^= data.draw(st.integers(1, 255)) if length == 1 else 0xA5
    assert read_preamble(bytes(packed), "f") == (preamble, False)
    packed[start : start + size] = bytes(size)
    assert read_preamble(bytes(packed), "f") == (preamble, False)


def test_every_bit_of_a_preamble_counts() -> None:
    """In both copies at once: nothing is read out of what is not sound."""
    packed = pack_preamble(SMALL)
    size, used = SMALL.bytes_each, 72 + len("fills") + len(b"schema")
    for bit in range(8 * used):
        broken = bytearray(packed)
        for copy in (0, size):
            broken[copy + bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            read_preamble(bytes(broken), "f")


def test_a_file_that_is_none_of_ours_is_said_to_be_so() -> None:
    """Somebody else's, a later version's, or one of ours that nobody can read any more: never confused."""
    with pytest.raises(ForeignFile, match="f: this is no segment"):
        read_preamble(b"PK\x03\x04" + bytes(10_000), "f")
    newer = SEGMENT_MAGIC + (2).to_bytes(2, "little") + b"what we cannot know" * 1_000
    with pytest.raises(NewerFormat, match="f: format 2, this program reads 1"):
        read_preamble(newer, "f")
    with pytest.raises(NewerFormat):
        read_preamble(bytes(4_096) + newer, "f")
    for nothing in (b"", bytes(100), bytes(1_000_000)):
        with pytest.raises(BrokenSegment):
            read_preamble(nothing, "f")


def test_a_schema_of_any_size_that_fits_is_kept() -> None:
    """Up to the largest preamble; beyond, it is said before anything is written."""
    for size in (PREAMBLE_BYTES_MIN, PREAMBLE_BYTES_MIN * 2, PREAMBLE_BYTES_MAX):
        fits = SMALL._replace(schema=bytes(size - 72 - len("fills")))
        assert fits.bytes_each == size
        packed = bytearray(pack_preamble(fits))
        packed[0] ^= 1
        assert read_preamble(bytes(packed), "f") == (fits, False)
    with pytest.raises(FrameTooLarge):
        pack_preamble(SMALL._replace(schema=bytes(PREAMBLE_BYTES_MAX)))


@given(
    st.builds(
        FrameHeader,
        kind=st.integers(0, 255),
        payload_bytes=st.integers(0, 512 * 1_048_576),
        payload_crc=U32,
        rows=U32,
        first=U64,
    ),
    U64,
    U64,
    U64,
)
def test_a_frame_header_is_read_back_where_it_stands(
    header: FrameHeader, number: int, epoch: int, offset: int
) -> None:
    """And nowhere else: not in another segment, of another epoch, or at another offset."""
    packed = pack_frame_header(header, number=number, epoch=epoch, offset=offset)
    assert len(packed) == FRAME_HEADER_BYTES
    assert read_frame_header(packed, number=number, epoch=epoch, offset=offset) == header
    for elsewhere in (
        {"number": number ^ 1, "epoch": epoch, "offset": offset},
        {"number": number, "epoch": epoch ^ 1, "offset": offset},
        {"number": number, "epoch": epoch, "offset": offset ^ 8},
    ):
        assert read_frame_header(packed, **elsewhere) is None


def test_every_bit_of_a_frame_header_counts() -> None:
    """And every byte of it: one that is cut is none."""
    packed = pack_frame_header(FrameHeader(1, 2, 3, 4, 5), number=6, epoch=7, offset=8)
    for bit in range(8 * FRAME_HEADER_BYTES):
        broken = bytearray(packed)
        broken[bit // 8] ^= 1 << bit % 8
        assert read_frame_header(bytes(broken), number=6, epoch=7, offset=8) is None
    for length in range(FRAME_HEADER_BYTES):
        assert read_frame_header(packed[:length], number=6, epoch=7, offset=8) is None


def segment(payloads: list[bytes], tail: int = 0) -> tuple[bytes, list[Frame]]:
    """A segment's bytes, and its frames."""
    data, frames = bytearray(pack_preamble(SMALL)), []
    for sequence, content in enumerate(payloads):
        header = FrameHeader(1, len(content), crc32c(content), 1, sequence)
        offset = len(data)
        data += pack_frame_header(header, number=3, epoch=5, offset=offset) + content
        data += bytes(padded(len(data)) - len(data))
        frames.append(Frame(offset, header))
    return bytes(data) + bytes(tail), frames


PAYLOADS = st.lists(st.binary(max_size=60), max_size=6)


@given(PAYLOADS, st.integers(0, 200))
def test_what_was_written_is_what_is_found(payloads: list[bytes], tail: int) -> None:
    """Frame by frame; what was not written yet is nothing."""
    data, frames = segment(payloads, tail)
    assert list(scan(data, len(data), SMALL)) == frames
    assert [payload(data, frame) for frame in frames] == payloads
    for begin, frame in enumerate(frames):
        assert list(scan(data, len(data), SMALL, frame.offset)) == frames[begin:]
        assert frame.end - frame.offset == frame_bytes(len(payloads[begin]))


@given(PAYLOADS.filter(bool), st.integers(0, 200), st.data())
def test_damage_costs_the_frames_it_touches(payloads: list[bytes], tail: int, data: st.DataObject) -> None:
    """Any bytes changed in any way: every frame that is whole is found, and no payload is that was not written."""
    sound, frames = segment(payloads, tail)
    start = data.draw(st.integers(SMALL.frames_from, len(sound) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=len(sound) - start))
    broken = sound[:start] + noise + sound[start + len(noise) :]
    found = list(scan(broken, len(broken), SMALL))
    read = {item: payload(broken, item) for item in found if isinstance(item, Frame)}
    for frame, content in zip(frames, payloads, strict=True):
        written = slice(frame.offset, frame.offset + FRAME_HEADER_BYTES + len(content))
        if broken[written] == sound[written]:
            assert read.get(frame) == content
    assert {frame for frame, content in read.items() if content is not None} <= set(frames)
    places = [(item.offset, item.end) for item in found]
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(places))
    assert all(not item.last for item in found[:-1] if isinstance(item, Hole))


@given(PAYLOADS.filter(bool), st.data())
def test_a_segment_cut_anywhere_ends_in_one_hole(payloads: list[bytes], data: st.DataObject) -> None:
    """What was whole before the cut is there; the rest is one hole, the last thing, or nothing."""
    sound, frames = segment(payloads)
    size = data.draw(st.integers(SMALL.frames_from, len(sound)))
    found = list(scan(sound[:size], size, SMALL))
    whole = [f for f in frames if f.offset + FRAME_HEADER_BYTES + f.header.payload_bytes <= size]
    assert found[: len(whole)] == whole
    assert all(isinstance(item, Hole) and item.last for item in found[len(whole) :])
    assert len(found) <= len(whole) + 1


@given(PAYLOADS.filter(bool))
def test_a_frame_inside_a_payload_is_no_frame(payloads: list[bytes]) -> None:
    """A log's own bytes may be what somebody records; after damage they are not taken for frames of this one."""
    inner, _ = segment(payloads)
    data, frames = segment([b"x", inner, b"y"])
    broken = bytearray(data)
    broken[frames[1].offset + 9] ^= 1
    assert list(scan(bytes(broken), len(broken), SMALL)) == [
        frames[0],
        Hole(frames[1].offset, frames[2].offset, last=False),
        frames[2],
    ]


@settings(deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.none() | NAMES)), min_size=1, max_size=5)
)
def test_rows_are_read_back(slices: list[list[tuple[int, str | None]]]) -> None:
    """However they were cut when they were packed, compressed or not; Arrow alone can read them."""
    batches = [
        pa.RecordBatch.from_arrays(
            [pa.array([n for n, _ in rows], pa.int64()), pa.array([t for _, t in rows], pa.string())],
            schema=SCHEMA,
        )
        for rows in slices
    ]
    expected = pa.Table.from_batches(batches).to_pylist()
    schema = read_schema(schema_message(SCHEMA))
    assert schema == SCHEMA
    for codec in ("zstd", "lz4", None):
        packed = pack_rows(batches, codec)
        assert read_rows(packed, schema).to_pylist() == expected
        (alone,) = pa.ipc.open_stream(schema_message(SCHEMA) + packed)
        assert alone.to_pylist() == expected


def test_what_is_no_rows_is_an_error_of_the_format() -> None:
    """Never one of Arrow's, and no crash."""
    rows = pack_rows([pa.RecordBatch.from_pylist([{"n": 1, "text": "a"}], schema=SCHEMA)])
    for wrong in (b"", b"x", bytes(100), rows[:40], rows[:-60]):
        with pytest.raises(FormatError):
            read_rows(wrong, SCHEMA)
        with pytest.raises(FormatError):
            read_schema(wrong)


def test_a_schemas_hash_says_what_is_in_it() -> None:
    """Names, types, nullability and order; nothing else."""
    fields = list(SCHEMA)
    assert schema_hash(SCHEMA) == schema_hash(SCHEMA.with_metadata({"a": "b"}))
    others = [
        pa.schema(fields[::-1]),
        pa.schema(fields[:1]),
        pa.schema([fields[0].with_nullable(True), fields[1]]),
        pa.schema([fields[0].with_type(pa.int32()), fields[1]]),
        pa.schema([fields[0].with_name("m"), fields[1]]),
    ]
    assert len({schema_hash(schema) for schema in [SCHEMA, *others]}) == 6
    assert schema_hash(SCHEMA) == 0xA9F8F3118085D0F6
