"""Preambles and frames to bytes and back, as the tables of `wal` say. Pure: no files here.

Reading never trusts a number before its checksum was looked at.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

import google_crc32c

from wal.errors import BrokenSegment, ForeignFile, FrameTooLarge, NewerFormat

VERSION = 1
SEGMENT_MAGIC = b"\x89RWAL\r\n\x1a"
FRAME_MAGIC = b"\xd7RF\x1a"
PREAMBLE_BYTES_MIN = 4_096
PREAMBLE_BYTES_MAX = 1_048_576
FRAME_ALIGN = 8
FRAME_HEADER_BYTES = 32
PAYLOAD_BYTES_MAX = 512 * 1_048_576

_PREAMBLE = struct.Struct("<8sHHIIHHIIQQQQQ")
_CHECKED_FROM = 16  # of a preamble: what stands behind its checksum
_FRAME = struct.Struct("<4sIIIBBHIQ")
_FRAME_REST = struct.Struct("<IIBBHIQ")  # of a frame's header: what stands behind its checksum
_WHERE = struct.Struct("<QQQ")


class Kind(enum.IntEnum):
    """What a frame holds."""

    ROWS = 1
    SEAL = 2
    VOID = 3


class Preamble(NamedTuple):
    """What stands at the beginning of a segment. `schema` is an encapsulated Arrow IPC schema message."""

    number: int
    epoch: int
    first: int
    created_ns: int
    schema_hash: int
    name: str
    schema: bytes

    @property
    def bytes_each(self) -> int:
        """P: bytes of one of its two copies."""
        needed = _PREAMBLE.size + len(self.name.encode()) + len(self.schema)
        size = PREAMBLE_BYTES_MIN
        while size < needed:
            size *= 2
        return size

    @property
    def frames_from(self) -> int:
        """Offset of the first frame."""
        return 2 * self.bytes_each


class FrameHeader(NamedTuple):
    """What stands before a payload. `kind` may be one that we do not know."""

    kind: int
    payload_bytes: int
    payload_crc: int
    rows: int
    first: int


def crc32c(data: bytes, start: int = 0) -> int:
    """CRC32C (Castagnoli, RFC 3720) of `data`, going on from `start`."""
    return int(google_crc32c.extend(start, data))


def padded(size: int) -> int:
    """The next multiple of a frame's alignment."""
    return -(-size // FRAME_ALIGN) * FRAME_ALIGN


def frame_bytes(payload_bytes: int) -> int:
    """What a frame with such a payload takes in a file."""
    return padded(FRAME_HEADER_BYTES + payload_bytes)


# -- preambles ----------------------------------------------------------------------------------------------------


def pack_preamble(preamble: Preamble) -> bytes:
    """Both copies, zeros between and after them: the first `frames_from` bytes of a segment.

    Raises:
        FrameTooLarge: name and schema do not fit.
    """
    name = preamble.name.encode()
    size = preamble.bytes_each
    if size > PREAMBLE_BYTES_MAX or len(name) > 0xFFFF:
        raise FrameTooLarge(
            f"{preamble.name:.80}: a schema of {len(preamble.schema)} bytes; a segment's preamble holds at most "
            f"{PREAMBLE_BYTES_MAX}"
        )
    return b"".join(_one_preamble(preamble, copy, size, name).ljust(size, b"\0") for copy in (0, 1))


def _one_preamble(preamble: Preamble, copy: int, size: int, name: bytes) -> bytes:
    fields = (
        *(size, len(name), 0, len(preamble.schema), 0, preamble.number, preamble.epoch),
        *(preamble.first, preamble.created_ns, preamble.schema_hash),
    )
    unchecked = _PREAMBLE.pack(SEGMENT_MAGIC, VERSION, copy, 0, *fields) + name + preamble.schema
    checksum = _preamble_crc(unchecked)
    return _PREAMBLE.pack(SEGMENT_MAGIC, VERSION, copy, checksum, *fields) + name + preamble.schema


def _preamble_crc(packed: bytes) -> int:
    return crc32c(packed[_CHECKED_FROM:], crc32c(packed[:12]))


def read_preamble(start: bytes, where: str) -> tuple[Preamble, bool]:
    """The preamble of a segment, given its first bytes, and whether both of its copies are sound.

    `start` are the first 2 x `PREAMBLE_BYTES_MAX` bytes of the file, or all it has; `where` is its name.

    Raises:
        ForeignFile: this is no segment of ours.
        NewerFormat: a later version wrote it.
        BrokenSegment: it may have been one, and neither copy can be read.
    """
    first = _preamble_at(start, 0, 0)
    if first is not None:
        size = first.bytes_each
        return first, _preamble_at(start, size, 1) == first
    offset = PREAMBLE_BYTES_MIN
    while offset <= PREAMBLE_BYTES_MAX:
        second = _preamble_at(start, offset, 1)
        if second is not None and second.bytes_each == offset:
            return second, False
        offset *= 2
    _say_what_it_is(start, where)
    raise BrokenSegment(
        f"{where}: neither of its two preambles can be read, so its rows cannot be; it is kept for a person"
    )


def _preamble_at(start: bytes, offset: int, copy: int) -> Preamble | None:
    """The copy at an offset, if it is sound."""
    head = start[offset : offset + _PREAMBLE.size]
    if len(head) < _PREAMBLE.size:
        return None
    magic, version, copy_there, checksum, size, name_bytes, _, schema_bytes, _, *rest = _PREAMBLE.unpack(head)
    whole = _PREAMBLE.size + name_bytes + schema_bytes
    if (magic, version, copy_there) != (SEGMENT_MAGIC, VERSION, copy) or whole > size:
        return None
    packed = start[offset : offset + whole]
    if len(packed) < whole or _preamble_crc(packed) != checksum:
        return None
    name_to = _PREAMBLE.size + name_bytes
    number, epoch, first, created_ns, schema_hash = rest
    name = packed[_PREAMBLE.size : name_to].decode()
    found = Preamble(number, epoch, first, created_ns, schema_hash, name, packed[name_to:])
    return found if found.bytes_each == size else None


def _say_what_it_is(start: bytes, where: str) -> None:
    """Of a file without a readable preamble: whether it is somebody else's, or a later version's."""
    offsets = [0]
    while (offsets[-1] or PREAMBLE_BYTES_MIN // 2) < PREAMBLE_BYTES_MAX:
        offsets.append((offsets[-1] or PREAMBLE_BYTES_MIN // 2) * 2)
    ours = [offset for offset in offsets if start[offset : offset + 8] == SEGMENT_MAGIC]
    versions = {int.from_bytes(start[offset + 8 : offset + 10], "little") for offset in ours}
    if VERSION not in versions and max(versions, default=0) > VERSION:
        raise NewerFormat(
            f"{where}: format {max(versions)}, this program reads {VERSION}; it is left alone, read it with the "
            "version that wrote it, or a later one"
        )
    if not ours and any(start) and not SEGMENT_MAGIC.startswith(start[: len(SEGMENT_MAGIC)]):
        raise ForeignFile(f"{where}: this is no segment of a log; it is left alone, move it away")


# -- frames -------------------------------------------------------------------------------------------------------


def pack_frame_header(header: FrameHeader, *, number: int, epoch: int, offset: int) -> bytes:
    """The header of a frame that stands at `offset` of segment `number` of an epoch.

    Raises:
        FrameTooLarge: the payload is larger than any frame may be.
    """
    if header.payload_bytes > PAYLOAD_BYTES_MAX:
        raise FrameTooLarge(
            f"a frame of {header.payload_bytes} bytes; at most {PAYLOAD_BYTES_MAX}, append the rows in parts"
        )
    rest = _FRAME_REST.pack(
        header.payload_bytes, header.payload_crc, header.kind, 0, 0, header.rows, header.first
    )
    return FRAME_MAGIC + crc32c(_WHERE.pack(number, epoch, offset) + rest).to_bytes(4, "little") + rest


def read_frame_header(head: bytes, *, number: int, epoch: int, offset: int) -> FrameHeader | None:
    """The frame that these 32 bytes at `offset` begin; None where they begin none."""
    if len(head) < FRAME_HEADER_BYTES or not head.startswith(FRAME_MAGIC):
        return None
    _, checksum, payload_bytes, payload_crc, kind, _, _, rows, first = _FRAME.unpack(head)
    if crc32c(_WHERE.pack(number, epoch, offset) + head[8:]) != checksum:
        return None
    return FrameHeader(kind, payload_bytes, payload_crc, rows, first)
