"""Content encodings, piece by piece in bounded memory: what clients send compressed, and what they take.

ClickHouse's own block compression (`compress=1`, `decompress=1`) is another thing and is not served.
"""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import lz4.frame

from recorder.devserver.errors import Code, StatementError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE_BYTES = 1 << 20
"""The most that one piece of compressed data becomes at a time: a small body can hold a huge one."""


class Compressor(Protocol):
    """`compress` may give nothing yet; `finish` ends the stream."""

    def compress(self, data: bytes) -> bytes: ...  # noqa: D102

    def finish(self) -> bytes: ...  # noqa: D102


class _Zlib:
    def __init__(self, window_bits: int) -> None:
        self._stream = zlib.compressobj(3, zlib.DEFLATED, window_bits)

    def compress(self, data: bytes) -> bytes:
        return self._stream.compress(data)

    def finish(self) -> bytes:
        return self._stream.flush()


class _Lz4:
    def __init__(self) -> None:
        self._stream = lz4.frame.LZ4FrameCompressor()
        self._begun = False

    def compress(self, data: bytes) -> bytes:
        begin = b"" if self._begun else self._stream.begin()
        self._begun = True
        return bytes(begin + self._stream.compress(data))

    def finish(self) -> bytes:
        begin = b"" if self._begun else self._stream.begin()
        return bytes(begin + self._stream.flush())


class _Zstd:
    def __init__(self) -> None:
        self._stream = zstd.ZstdCompressor(level=1)

    def compress(self, data: bytes) -> bytes:
        return bytes(self._stream.compress(data))

    def finish(self) -> bytes:
        return bytes(self._stream.flush(self._stream.FLUSH_FRAME))


class _Bz2:
    def __init__(self) -> None:
        self._stream = bz2.BZ2Compressor(1)

    def compress(self, data: bytes) -> bytes:
        return self._stream.compress(data)

    def finish(self) -> bytes:
        return self._stream.flush()


class _Xz:
    def __init__(self) -> None:
        self._stream = lzma.LZMACompressor(preset=1)

    def compress(self, data: bytes) -> bytes:
        return self._stream.compress(data)

    def finish(self) -> bytes:
        return self._stream.flush()


_COMPRESSORS: dict[str, Callable[[], Compressor]] = {
    "lz4": _Lz4,
    "zstd": _Zstd,
    "gzip": lambda: _Zlib(31),
    "deflate": lambda: _Zlib(15),
    "xz": _Xz,
    "bz2": _Bz2,
}


def wanted(accept_encoding: str) -> str | None:
    """The encoding for an answer to a client that takes these; None for none."""
    taken = set()
    for part in accept_encoding.lower().split(","):
        name, _, quality = part.partition(";")
        if quality.replace(" ", "") not in ("q=0", "q=0.0"):
            taken.add(name.strip())
    return next((name for name in _COMPRESSORS if name in taken), None)


def compressor(encoding: str) -> Compressor:
    """A compressor of one of the encodings that `wanted` gives."""
    return _COMPRESSORS[encoding]()


class Plain:
    """What is not compressed."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The data itself."""
        yield data

    def finish(self) -> None:
        """Nothing can be missing."""


class Decompressor:
    """One compressed body, or several one after the other, as `gzip` and `zstd` files may be."""

    def __init__(self, encoding: str, make: Callable[[], Any]):
        self._encoding = encoding
        self._make = make
        self._stream = make()
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What these bytes uncompress to, in pieces of at most `PIECE_BYTES`.

        Raises:
            StatementError: they are no data of this encoding.
        """
        try:
            while data or (self._begun and not self._stream.needs_input):
                self._begun = True
                piece = self._stream.decompress(data, PIECE_BYTES)
                data = b""
                if self._stream.eof:
                    data = self._stream.unused_data or b""
                    self._stream = self._make()
                    self._begun = False
                if piece:
                    yield piece
        except Exception as error:
            raise self._bad(str(error)) from error

    def finish(self) -> None:
        """See that nothing is missing.

        Raises:
            StatementError: the body ends in the middle.
        """
        if self._begun:
            raise self._bad("it ends in the middle")

    def _bad(self, why: str) -> StatementError:
        return StatementError.ours(
            Code.CANNOT_DECOMPRESS,
            f"The request's body is not {self._encoding}, as its Content-Encoding says: {why}.",
        )


class _ZlibReader:
    """`zlib` with the manners of the other decompressors."""

    def __init__(self, window_bits: int):
        self._stream = zlib.decompressobj(window_bits)
        self._full = False

    def decompress(self, data: bytes, most: int) -> bytes:
        piece = self._stream.decompress(self._stream.unconsumed_tail + data, most)
        self._full = len(piece) == most
        return piece

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail and not self._full

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data


_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "zstd": zstd.ZstdDecompressor,
    "gzip": lambda: _ZlibReader(31),
    "x-gzip": lambda: _ZlibReader(31),
    "deflate": lambda: _ZlibReader(15),
    "xz": lzma.LZMADecompressor,
    "bz2": bz2.BZ2Decompressor,
}


def decompressor(encoding: str) -> Decompressor | Plain:
    """What undoes a request's Content-Encoding.

    Raises:
        StatementError: the encoding is not served.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return Plain()
    make = _DECOMPRESSORS.get(name)
    if make is None:
        raise StatementError.ours(
            Code.NOT_IMPLEMENTED,
            f"Content-Encoding {name} is not served; send {', '.join(_COMPRESSORS)} or none.",
        )
    return Decompressor(name, make)
