"""A file's content in blocks, unpacked if it is gzip, in bounded memory.

Compression is told by the file's first bytes, never by its name. Unpacking distinguishes a file that *ends too
early*, whose readable part is true as far as it goes, from a *damaged* one, of which nothing can be believed: one
flipped bit in deflate data usually reads on, with other digits in it, and only the checksum at the end tells.
"""

from __future__ import annotations

import enum
import hashlib
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from recorder.ingest.errors import FileDamaged

INPUT_BYTES = 256 * 1024
"""Bytes read from a file at a time."""
OUTPUT_BYTES = 1024 * 1024
"""Bytes of content in a block, at most."""

_GZIP_MAGIC = b"\x1f\x8b"
_UNREAD_MAGIC = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
}


class Compression(enum.StrEnum):
    """How a file's content is packed."""

    NONE = "none"
    GZIP = "gzip"


class Block(NamedTuple):
    """A piece of content. `file_bytes` is how much of the file was read so far."""

    content: bytes
    file_bytes: int


class Truncation(NamedTuple):
    """Where a packed file ends too early: its length, and the bytes of content before that."""

    file_bytes: int
    content_bytes: int


def compression_of(head: bytes) -> Compression:
    """The compression a file's first bytes tell."""
    return Compression.GZIP if head.startswith(_GZIP_MAGIC) else Compression.NONE


def unread_packing(head: bytes) -> str | None:
    """The name of a packing that is not unpacked here, if the first bytes tell one."""
    return next((name for magic, name in _UNREAD_MAGIC.items() if head.startswith(magic)), None)


class Unpacked:
    """The content of one open file, in order. After the last block, `truncation` says whether the file was whole,
    and `digest` what was read.

    Iterating raises `FileDamaged` where the packing contradicts itself.
    """

    def __init__(self, file: BinaryIO, compression: Compression, name: str):
        self._file = file
        self._name = name
        self._compression = compression
        self.truncation: Truncation | None = None
        self.digest = hashlib.sha256()
        """Of the content so far, unpacked."""

    def __iter__(self) -> Iterator[Block]:
        for block in self._gzip() if self._compression is Compression.GZIP else self._plain():
            self.digest.update(block.content)
            yield block

    def _plain(self) -> Iterator[Block]:
        read = 0
        while content := self._file.read(OUTPUT_BYTES):
            read += len(content)
            yield Block(content, read)

    def _gzip(self) -> Iterator[Block]:
        """Members one after another, as `cat a.gz b.gz` makes them; zero bytes after the last are padding."""
        read = unpacked = 0
        member = None
        data = b""
        while True:
            if not data:
                data = self._file.read(INPUT_BYTES)
                read += len(data)
                if not data:
                    break
            if member is None:
                data = data.lstrip(b"\0") if unpacked else data
                if not data:
                    continue
                member = zlib.decompressobj(wbits=31)
            try:
                content = member.decompress(data, OUTPUT_BYTES)
            except zlib.error as error:
                raise FileDamaged(
                    f"{self._name}: damaged gzip within its first {read:,} bytes, after {unpacked:,} bytes of content"
                    f" ({error}); nothing in it can be believed, fetch it again"
                ) from None
            data = member.unconsumed_tail
            if member.eof:
                data = member.unused_data
                member = None
            if content:
                unpacked += len(content)
                yield Block(content, read - len(data))
        if member is not None:
            if content := member.flush():
                unpacked += len(content)
                yield Block(content, read)
            self.truncation = Truncation(read, unpacked)
