"""Rows to a frame's payload and back: one Arrow IPC record-batch message a frame, and its schema once a segment."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pyarrow as pa

from wal.errors import FormatError

ZSTD = "zstd"
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
_WRONG = (
    *(pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowKeyError, pa.ArrowTypeError, pa.ArrowIndexError),
    *(pa.lib.ArrowSerializationError, EOFError, OSError),
)
"""What bytes that are none can raise. Not a lack of memory, which says nothing of the bytes."""


def schema_message(schema: pa.Schema) -> bytes:
    """A schema as one encapsulated Arrow IPC message."""
    return bytes(schema.serialize())


def read_schema(message: bytes) -> pa.Schema:
    """The schema of a segment.

    Raises:
        FormatError: the message is none.
    """
    try:
        return pa.ipc.read_schema(pa.py_buffer(message))
    except _WRONG as error:
        raise FormatError(f"the schema of a segment cannot be read: {error}") from error


def schema_hash(schema: pa.Schema) -> int:
    """A number of 64 bits that two schemas share if their columns have the same names, types and nullability, in order.

    Metadata does not count, nor does the version of Arrow that writes it.
    """
    text = "\n".join(f"{field.name}\t{field.type}\t{field.nullable}" for field in schema)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def pack_rows(batches: Sequence[pa.RecordBatch], codec: str | None = ZSTD) -> bytes:
    """The payload of one frame: batches of one schema, one after the other, as one record batch.

    The rows that are read back are the same; buffers may be cut differently.
    """
    data = batches[0] if len(batches) == 1 else pa.concat_batches(list(batches))
    sink = pa.BufferOutputStream()
    # Only streams compress, and a stream begins with its schema, which stands in the segment already.
    with pa.ipc.new_stream(sink, data.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as stream:
        stream.write_batch(data)
    written = memoryview(sink.getvalue())
    return bytes(written[_message_bytes(written) : -len(_END_OF_STREAM)])


def _message_bytes(stream: memoryview) -> int:
    """How long the schema's message is, at the beginning of a stream: two words, the second the length of the rest.

    https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format
    """
    return 8 + int.from_bytes(stream[4:8], "little")


def read_rows(payload: bytes, schema: pa.Schema) -> pa.RecordBatch:
    """The rows of a frame.

    Raises:
        FormatError: the payload is none, though its checksum was right.
    """
    try:
        rows = pa.ipc.read_record_batch(pa.py_buffer(payload), schema)
        rows.validate()  # of the lengths only: what reads beyond its buffers would end the process
    except _WRONG as error:
        raise FormatError(f"the rows of a frame cannot be read: {error}") from error
    return rows
