"""How a batch travels over HTTP: the pieces together are its Arrow stream in the encoding they say."""

from __future__ import annotations

import gzip

import lz4.frame
import pyarrow as pa
import pytest
from harness.sink_tables import plain

from recorder.sink.http_body import PIECE_BYTES, body_of


@pytest.mark.parametrize("compression", ["lz4", "zstd", "gzip", "none"])
@pytest.mark.parametrize("rows", [1, 50_000])
def test_the_pieces_are_the_batch(compression: str, rows: int) -> None:
    """No byte more or less than one stream of one record batch, in pieces of a bounded size."""
    batch = plain("t", rows)
    body = body_of(batch.data, compression)
    sent = b"".join(body.pieces)
    assert body.size == len(sent)
    assert max(map(len, body.pieces)) <= PIECE_BYTES
    assert body.encoding == (None if compression == "none" else compression)
    if compression == "lz4":
        reader = lz4.frame.LZ4FrameDecompressor()
        sent = reader.decompress(sent)
        assert reader.eof
        assert not reader.unused_data
    elif compression == "gzip":
        sent = gzip.decompress(sent)
    elif compression == "zstd":
        with pa.CompressedInputStream(pa.BufferReader(sent), "zstd") as stream:
            sent = stream.read()
    with pa.ipc.open_stream(sent) as reader:
        batches = list(reader)
    assert batches == [batch.data]


def test_the_driver_cannot_send_a_body_twice() -> None:
    """It sends again what is bytes or text, and nothing else."""
    assert not isinstance(body_of(plain("t").data, "lz4").pieces, bytes | bytearray | str)
