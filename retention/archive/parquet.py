"""The Parquet files of a piece: batches in, files out, in bounded memory; and their rows back.

A row group holds at most `group_rows` rows and about `group_bytes` of Arrow, a file at most about `file_bytes`. Rows
stand as they came, sorted; so the statistics of row groups lead a reader who wants one symbol to the few groups that
have it, and a table of a thousand symbols makes one file a day and not a thousand.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds

from retention.archive.layout import file_name
from retention.archive.manifest import FileEntry, Manifest
from retention.archive.rowhash import Summing, Sums
from retention.archive.store import Store
from retention.errors import ArchiveError, StoreError, VerifyError

READ_ROWS = 32_768
HASHED_BYTES = 1 << 20


@dataclass(frozen=True)
class Limits:
    """How large things get. What is in memory is about a row group, three times."""

    group_rows: int = 131_072
    group_bytes: int = 32 * 2**20
    file_bytes: int = 512 * 2**20
    late_rows: int = 1_000_000
    """Rows of one addendum; what is more goes to the next."""
    known_rows: int = 8_000_000
    """Identities of archived rows held at once; where there are more, the source is asked again for each portion."""


@dataclass(frozen=True)
class Written:
    """Files, and what the rows that went to them come to."""

    files: tuple[FileEntry, ...]
    sums: Sums
    schema: pa.Schema


def write_files(
    batches: Iterator[pa.RecordBatch],
    store: Store,
    name_of: Callable[[int], str],
    metadata: Mapping[str, str],
    limits: Limits,
) -> Written | None:
    """Write rows to files named by their number; None where there are none. A file is in the store when complete.

    Raises:
        ArchiveError: the store fails, or rows cannot be hashed.
    """
    groups = grouped(batches, limits)
    group = next(groups, None)
    if group is None:
        return None
    schema = group.schema.remove_metadata()
    files: list[FileEntry] = []
    with Summing() as summing, ThreadPoolExecutor(1, thread_name_prefix="archive-write") as pool:
        while group is not None:
            name = name_of(len(files))
            rows = 0
            with store.drafted(name) as draft:
                with (
                    _draft_told(draft),
                    contextlib.closing(_writer(draft, schema.with_metadata(dict(metadata)))) as writer,
                ):
                    while group is not None and (not rows or draft.stat().st_size < limits.file_bytes):
                        rows += group.num_rows
                        group = _write_beside(pool, writer, group, groups, summing)
                entry = FileEntry(name.rpartition("/")[2], rows, draft.stat().st_size, sha256_of(draft))
                store.put(name, draft)
            files.append(entry)
    return Written(tuple(files), summing.total, schema)


def read_files(
    manifest: Manifest,
    store: Store,
    columns: list[str] | None = None,
    *,
    check: bool = False,
    encoded: Collection[str] = (),
) -> Iterator[pa.RecordBatch]:
    """The rows of a piece as the store has them, file by file; with `check` the bytes of each file are checked first.

    Columns of text that are named by `encoded` come as dictionaries, which is quicker where few values differ.

    Raises:
        VerifyError: a file is missing, is no Parquet file of this schema, or, with `check`, of other bytes.
        StoreError: the store fails.
    """
    for entry in manifest.files:
        name = f"{manifest.place.folder}/{entry.name}"
        with store.fetched(name) as path:
            if path is None:
                raise VerifyError(f"{name}: is missing, expected {entry.nbytes} bytes; {REMEDY}")
            if check:
                _check_bytes(name, path, entry)
            try:
                with pq.ParquetFile(path, pre_buffer=False, read_dictionary=list(encoded)) as file:
                    if (schema := _decoded(file.schema_arrow, encoded)) != manifest.schema:
                        raise VerifyError(
                            f"{name}: its columns are {schema}, expected {manifest.schema}; {REMEDY}"
                        )
                    yield from file.iter_batches(READ_ROWS, columns=columns)
            except (
                pa.ArrowException,
                OSError,
                KeyError,
                ValueError,
            ) as error:  # names may be no text, or lack
                raise VerifyError(f"{name}: cannot be read as Parquet ({error}); {REMEDY}") from error


REMEDY = "bring it back from a copy, or, where the table still has the rows, archive to a new place"


def sha256_of(path: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def metadata_of(manifest: Manifest) -> dict[str, str]:
    """What each file says of itself, so that one that is alone can be told."""
    return {
        "recorder.database": manifest.database,
        "recorder.table": manifest.place.table,
        "recorder.partition": manifest.place.partition,
        "recorder.piece": str(manifest.piece),
        "recorder.version": manifest.recorder_version,
        "recorder.written_ns": str(manifest.written_ns),
        "recorder.order_by": manifest.order_by,
    }


def namer(manifest: Manifest, attempt: str) -> Callable[[int], str]:
    """The names of the files of one attempt."""
    return lambda number: file_name(manifest.place, manifest.piece, attempt, number)


@contextlib.contextmanager
def _draft_told(draft: Path) -> Iterator[None]:
    try:
        yield
    except (ArchiveError, MemoryError):
        raise
    except OSError as error:
        raise StoreError(f"{draft}: {error}; make room or see to the folder, and run again") from error


def _check_bytes(name: str, path: Path, entry: FileEntry) -> None:
    nbytes = path.stat().st_size
    if nbytes != entry.nbytes:
        raise VerifyError(f"{name}: has {nbytes} bytes, expected {entry.nbytes}; {REMEDY}")
    if (found := sha256_of(path)) != entry.sha256:
        raise VerifyError(f"{name}: sha256 {found}, expected {entry.sha256}; {REMEDY}")


def _decoded(schema: pa.Schema, encoded: Collection[str]) -> pa.Schema:
    """The schema as it is without asking for dictionaries, and without metadata."""
    return pa.schema(
        field.with_type(field.type.value_type)
        if field.name in encoded and kinds.is_dictionary(field.type)
        else field
        for field in schema.remove_metadata()
    )


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    # Dictionaries of numbers that hardly ever repeat cost time and room; times and sequence numbers are near to
    # each other in sorted rows, and their differences take little of both.
    texts = [field.name for field in schema if _is_text(field.type)]
    numbers = [field.name for field in schema if _is_integer(field.type)]
    return pq.ParquetWriter(
        path,
        schema,
        version="2.6",
        compression="zstd",
        use_dictionary=texts,
        column_encoding=dict.fromkeys(numbers, "DELTA_BINARY_PACKED"),
        write_statistics=True,
        write_page_index=True,
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(kinds.is_string(kind) or kinds.is_binary(kind) or kinds.is_dictionary(kind))


def _is_integer(kind: pa.DataType) -> bool:
    """Whether Parquet has it as an integer of 32 or 64 bits."""
    return bool(kinds.is_integer(kind) or (kinds.is_temporal(kind) and not kinds.is_interval(kind)))


def _write_beside(
    pool: ThreadPoolExecutor,
    writer: pq.ParquetWriter,
    group: pa.Table,
    groups: Iterator[pa.Table],
    summing: Summing,
) -> pa.Table | None:
    """Write a row group, and sum it up, while the next one comes from the source; that, once it is written."""
    writing = pool.submit(writer.write_table, group, row_group_size=group.num_rows)
    try:
        for batch in group.to_batches():
            summing.add(batch)
        following = next(groups, None)
    finally:
        wait([writing])  # nobody may close the file before
    writing.result()
    return following


def grouped(batches: Iterator[pa.RecordBatch], limits: Limits) -> Iterator[pa.Table]:
    """Row groups, cut at the same rows however the source sliced them by rows."""
    waiting: list[pa.RecordBatch] = []
    rows = nbytes = 0
    for batch in batches:
        for part in _parts(batch, limits):
            if waiting and (
                rows + part.num_rows > limits.group_rows or nbytes + part.nbytes > limits.group_bytes
            ):
                group = pa.Table.from_batches(waiting)
                waiting, rows, nbytes = [], 0, 0  # before it goes: nobody needs the rows twice
                yield group
            waiting.append(part)
            rows, nbytes = rows + part.num_rows, nbytes + part.nbytes
    if waiting:
        yield pa.Table.from_batches(waiting)


def _parts(batch: pa.RecordBatch, limits: Limits) -> Iterator[pa.RecordBatch]:
    batch = batch.replace_schema_metadata(None)
    step = max(1, min(limits.group_rows, batch.num_rows * limits.group_bytes // max(1, batch.nbytes)))
    return (batch.slice(start, step) for start in range(0, batch.num_rows, step))
