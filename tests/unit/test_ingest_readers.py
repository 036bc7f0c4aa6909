"""Readers: what a file's bytes are, before a recorder sees them."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import pathlib
import random
import zlib

import pytest
from harness.ingest_files import START_NS, capture_lines, write_lines

from recorder.identity import source_log
from recorder.ingest.capture import CaptureLines
from recorder.ingest.compression import OUTPUT_BYTES, Block, Compression, Unpacked
from recorder.ingest.errors import FileDamaged, FormatUnknown, WrongUse
from recorder.ingest.lines import Line, line_blocks
from recorder.ingest.pace import Pace
from recorder.ingest.record import BadRecord
from recorder.ingest.source import Format, guess_format, inspect
from recorder.normalise.base import Message


def unpack(data: bytes, compression: Compression = Compression.GZIP) -> tuple[bytes, Unpacked]:
    unpacked = Unpacked(io.BytesIO(data), compression, "f")
    return b"".join(block.content for block in unpacked), unpacked


def lines_of(content: bytes, cuts: list[int], **options: int) -> list[Line]:
    edges = [0, *sorted(cuts), len(content)]
    blocks = [Block(content[a:b], b) for a, b in itertools.pairwise(edges)]
    return [line for block in line_blocks(blocks, **options) for line in block.lines]


# -- compression ------------------------------------------------------------------------------------------------


def test_members_one_after_another_and_padding_are_one_content() -> None:
    """`cat a.gz b.gz` unpacks to both, and zero bytes behind are padding."""
    data = gzip.compress(b"one\n", mtime=0) + gzip.compress(b"two\n") + bytes(512)
    content, unpacked = unpack(data)
    assert content == b"one\ntwo\n"
    assert unpacked.truncation is None


@pytest.mark.parametrize("cut", [3, 11, 500, 20_000, -1, -8])
def test_a_truncated_gzip_gives_what_can_be_read(cut: int) -> None:
    """What comes out is a beginning of the content, and the place of the end is said."""
    rng = random.Random(5)
    whole = bytes(rng.choices(b"abcdefgh\n", k=100_000))
    packed = gzip.compress(whole, mtime=0)
    part = packed[:cut]
    content, unpacked = unpack(part)
    assert whole.startswith(content)
    assert unpacked.truncation is not None
    assert unpacked.truncation.file_bytes == len(part)
    assert unpacked.truncation.content_bytes == len(content)
    expected = zlib.decompressobj(wbits=31)
    assert content == expected.decompress(part) + expected.flush()


@pytest.mark.parametrize("at", [30, 5_000, -6])
def test_a_damaged_gzip_is_refused(at: int) -> None:
    """A flipped bit in the data or the checksum is an error, whatever could be read."""
    packed = bytearray(gzip.compress(bytes(random.Random(5).choices(b"abcdefgh\n", k=100_000)), mtime=0))
    packed[at] ^= 0x10
    with pytest.raises(FileDamaged, match="damaged gzip"):
        unpack(bytes(packed))


def test_a_bomb_is_unpacked_in_bounded_blocks() -> None:
    """However well a file packs, no block is larger than its bound."""
    unpacked = Unpacked(io.BytesIO(gzip.compress(bytes(50_000_000))), Compression.GZIP, "f")
    sizes = [len(block.content) for block in unpacked]
    assert sum(sizes) == 50_000_000
    assert max(sizes) <= OUTPUT_BYTES


# -- lines ------------------------------------------------------------------------------------------------------


def test_a_line_has_its_number_wherever_the_blocks_fall() -> None:
    """Numbers and contents of lines do not depend on how the content is cut into blocks."""
    rng = random.Random(7)
    content = b"\n".join([b"a" * rng.randrange(9) for _ in range(200)])
    expected = [Line(n, part) for n, part in enumerate(content.split(b"\n")) if part]
    for _ in range(200):
        assert lines_of(content, [rng.randrange(len(content)) for _ in range(rng.randrange(20))]) == expected


def test_line_ends_of_other_systems_and_a_mark_at_the_start_are_no_content() -> None:
    """Carriage returns and a byte order mark are left out; blank lines count and make nothing."""
    assert lines_of(b"\xef\xbb\xbfone\r\n\r\ntwo", [2, 5]) == [Line(0, b"one"), Line(2, b"two")]


def test_a_line_beyond_the_bound_is_cut_and_said() -> None:
    """A long line keeps its beginning and its number, and the next line is whole."""
    content = b"short\n" + b"x" * 1_000 + b"\nnext\n" + b"y" * 500
    for cuts in ([], [100, 200, 700], [6], [1_006]):
        assert lines_of(content, cuts, max_line_bytes=64) == [
            Line(0, b"short"), Line(1, b"x" * 64, 1_000), Line(2, b"next"), Line(3, b"y" * 64, 500),
        ]  # fmt: skip


# -- capture lines ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"garbage", "no_local_time"),
        (b'{"e":"trade"}', "no_local_time"),
        (b"-1723161255030314667 {}", "no_local_time"),
        (b"1_723_161_255_030 {}", "no_local_time"),
        (b"9" * 5_000 + b" {}", "no_local_time"),
        (b"1723161255030314667", "no_message"),
        (b"17231612550303", "no_message"),
        (b"1723161255030 {}", "bad_local_time"),
        (b"0 {}", "bad_local_time"),
        (b"1723161255030314667000 {}", "no_local_time"),
        (b"9223372036854775807 {}", "bad_local_time"),
        (b"4102444800000000000 {}", "bad_local_time"),
    ],
)
def test_a_bad_line_is_one_bad_record_with_its_bytes(line: bytes, reason: str) -> None:
    """It has its position and bytes, and the lines around it are messages."""
    good = str(START_NS).encode() + b" {}"
    before, bad, after = CaptureLines().decode([Line(0, good), Line(1, line), Line(2, good)])
    assert isinstance(before, Message)
    assert isinstance(after, Message)
    assert isinstance(bad, BadRecord)
    assert (bad.position, bad.reason, bad.payload, bad.ts_local) == (1, reason, line, START_NS)


def test_a_clock_that_steps_back_costs_no_message() -> None:
    """Messages keep their times; steps are counted."""
    capture = CaptureLines()
    times = [START_NS, START_NS - 5_000_000_000, START_NS + 1]
    decoded = capture.decode([Line(n, b"%d {}" % ts) for n, ts in enumerate(times)])
    assert [record.ts_local for record in decoded if isinstance(record, Message)] == times
    assert capture.steps_back == 1


# -- who a file is ----------------------------------------------------------------------------------------------


def test_a_file_and_its_gzip_are_one_source(tmp_path: pathlib.Path) -> None:
    """Identity is of the content: packing, names and times of the file do not matter; a byte of content does."""
    lines = capture_lines(100)
    plain = inspect(write_lines(tmp_path / "a", lines))
    packed = inspect(write_lines(tmp_path / "b.log", lines, pack=True))
    other = inspect(write_lines(tmp_path / "c", lines[:-1]))
    assert plain.log == packed.log == source_log("file", bytes.fromhex(plain.digest))
    assert packed.compression is Compression.GZIP
    assert other.log != plain.log


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'1723161255030314667 {"e":1}\n', Format.BINANCE_CAPTURE),
        (b'torn line\n1723161255030314667 {"e":1}\n', Format.BINANCE_CAPTURE),
        (b'{"a": 1}\n', Format.NDJSON),
        (b'\xef\xbb\xbf\n  {"a": 1}\n', Format.NDJSON),
        (b"PAR1....PAR1", Format.PARQUET),
    ],
)
def test_the_content_tells_the_format(content: bytes, expected: Format) -> None:
    """Whatever the file is called."""
    assert guess_format(pathlib.Path("f.txt"), content) is expected


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (b"ts,price\n1,2\n", FormatUnknown, "--format"),
        (b"\x28\xb5\x2f\xfd rest", FormatUnknown, "zstd"),
        (b"\x00\x01\x02", FormatUnknown, "--format"),
        (gzip.compress(b"PAR1....", mtime=0), WrongUse, "unpack it"),
    ],
)
def test_other_content_is_refused_with_the_remedy(
    tmp_path: pathlib.Path, content: bytes, error: type[Exception], says: str
) -> None:
    """Never guessed."""
    path = tmp_path / "f"
    path.write_bytes(content)
    with pytest.raises(error, match=says):
        inspect(path)


def test_what_is_no_file_is_refused(tmp_path: pathlib.Path) -> None:
    """A directory, a pipe, nothing at all."""
    os.mkfifo(tmp_path / "pipe")
    for path, says in (
        (tmp_path, "directory"),
        (tmp_path / "pipe", "regular"),
        (tmp_path / "no", "no such file"),
    ):
        with pytest.raises(WrongUse, match=says):
            inspect(path)


# -- pace -------------------------------------------------------------------------------------------------------


def test_replay_keeps_the_distances_by_the_speed() -> None:
    """At 10 times real time a message 5 s later is due after 0.5 s, less what has passed; none waits backwards."""
    pace = Pace(10)
    assert pace.wait_s(START_NS, 100.0) == 0
    assert pace.wait_s(START_NS + 5_000_000_000, 100.1) == pytest.approx(0.4)
    assert pace.wait_s(START_NS + 5_000_000_000, 101.0) == 0
    assert pace.wait_s(START_NS - 5_000_000_000, 100.0) == 0
