"""A batch as the body of an HTTP request: an Arrow stream of one record batch, compressed.

The body is a list of pieces and not bytes. So the driver cannot send it a second time by itself (it repeats inserts
whose body is bytes), and each piece has the connection's time limit to itself: one limit for the whole of a large
batch would cut it on a slow line.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

PIECE_BYTES = 256 << 10
LEVELS = {"lz4": None, "zstd": 1, "gzip": 1}
"""Content-Encoding, which is the codec's name too, to its level; pyarrow's own for gzip is 9, fifty times as slow."""


@dataclass(frozen=True)
class Body:
    """`pieces` together are `size` bytes; `encoding` is None where nothing is compressed."""

    pieces: list[memoryview]
    size: int
    encoding: str | None


def body_of(data: pa.RecordBatch, compression: str) -> Body:
    """The body for `INSERT … FORMAT ArrowStream`."""
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, data.schema) as writer:
        writer.write_batch(data)
    plain = out.getvalue()
    if compression in LEVELS:
        codec = pa.Codec(compression, compression_level=LEVELS[compression])
        # As bytes: the view of a buffer that a codec gives is longer than the buffer (pyarrow 26).
        whole, encoding = memoryview(codec.compress(plain, asbytes=True)), compression
    else:
        whole, encoding = memoryview(plain), None
    pieces = [whole[start : start + PIECE_BYTES] for start in range(0, len(whole), PIECE_BYTES)]
    return Body(pieces, len(whole), encoding)
