"""A piece whose file the database writes by itself: `file()` into a folder of its own machine, `s3()` into a bucket.

    1. the sums of the rows are asked of the database (`rowhash_sql`): no row leaves it for that
    2. a file of a few bytes is put into the archive, and the database reads it: both mean the same place
    3. the database writes the Parquet file: into a folder under a name that is none yet, into a bucket by an upload
       that is there when it is complete
    4. the file is read back from the store, once: its sha256, its columns, its rows, their sums

Only if 4 finds the sums of 1, and the columns that the recorder would have written, is there a piece; else the file is
removed, one line says why, and the rows take the other way. Whatever ends the run before leaves a file that no manifest
names.

For a bucket the database has credentials of its own, in a named collection; the recorder's are never part of a
statement. Files that the database writes do not say in their metadata what they are of: manifests do.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from retention.archive.identities import Passing
from retention.archive.layout import Place, probe_name
from retention.archive.manifest import FileEntry
from retention.archive.marked import folder_of
from retention.archive.parquet import READ_ROWS, Limits, Written, sha256_of
from retention.archive.rowhash import Summing, Sums
from retention.archive.rowhash_sql import sums_sql
from retention.archive.store import Store
from retention.archive.verify import Progress
from retention.errors import ArchiveError, StoreError
from schemas.executor import SqlExecutor
from schemas.quote import quote_name, quote_text

PATTERNS = frozenset("*?{}")
TOLD_CHARACTERS = 300
BLOCKS = 16
"""So many make a row group."""
TYPES = (
    "output_format_parquet_string_as_string = 0, output_format_parquet_enum_as_byte_array = 0, "
    "output_format_parquet_date_as_uint16 = 0, output_format_parquet_datetime_as_uint32 = 1, "
    "output_format_parquet_fixed_string_as_fixed_byte_array = 1"
)
"""By these every type becomes what it is in the answers that the recorder writes: strings as the bytes they are, an
enumeration its number."""
FORM = (
    "output_format_parquet_compression_method = 'zstd', output_format_compression_level = 3, "
    "output_format_parquet_write_page_index = 1, output_format_parquet_write_bloom_filter = 0, "
    # Those of numbers that hardly ever repeat are given up early: they cost a quarter of the time, and room.
    "output_format_parquet_max_dictionary_size = 16384, "
    # One stream of blocks, so that the file has the order that was asked for.
    "max_insert_threads = 1, optimize_read_in_order = 1"
)


class Exporter(Protocol):
    """Who can have a piece's rows written without having them."""

    counts: list[int]
    """How many rows it wrote, each time."""

    def __call__(
        self, store: Store, name: str, passing: Passing, limits: Limits, progress: Progress | None
    ) -> Written | None:
        """Write all rows of the partition to one file of the store, and read it back; None where that cannot be.

        The identities of the rows go by `passing`. Where there is none, nobody else may use that name: a database
        that was not heard to the end may still complete a file of it.
        """


class ServerExport:
    """One partition of a table, written by its database. `rows_sql` is what follows on SELECT: `FROM … WHERE …`.

    `schema` is what the recorder itself would write. `collection` names the database's own way to the root of the
    archive, where that is in a bucket. `told` gets one line where the rows must take the other way.
    """

    def __init__(
        self,
        executor: SqlExecutor,
        place: Place,
        *,
        rows_sql: str,
        order_by: str,
        columns: Mapping[str, str],
        schema: pa.Schema,
        collection: str | None = None,
        told: Callable[[str], None] = lambda line: None,
    ):
        self.counts: list[int] = []
        self._executor, self._place, self._told = executor, place, told
        self._rows_sql, self._order_by, self._columns = rows_sql, order_by, columns
        self._schema, self._collection = schema, collection

    def __call__(
        self, store: Store, name: str, passing: Passing, limits: Limits, progress: Progress | None
    ) -> Written | None:
        """See `Exporter`."""
        try:
            return self._export(store, name, passing, limits, progress)
        except (_Refused, StoreError) as refused:
            # Also where the store refuses: a file of the database's user that may not be read, no room to fetch it.
            # What the recorder writes may fit, and if not, it says so.
            self._told(f"{self._place}: written by the recorder and not by the database: {refused}")
            return None

    def _export(
        self, store: Store, name: str, passing: Passing, limits: Limits, progress: Progress | None
    ) -> Written | None:
        way = self._way(store)
        expected = self._sums()
        if not expected.rows:
            return None
        self._see_same_place(store, name.rpartition("/")[0], way)
        if progress is not None:
            progress("the database writes", 0)
        try:
            if way.folder is None:
                self._write(way.function(name, "Parquet"), limits)
            else:
                with store.drafted(name) as draft:
                    # Of that name below the same root, which the probe has shown to be the database's, too.
                    self._write(way.function(f"{name.rpartition('/')[0]}/{draft.name}", "Parquet"), limits)
                    if not draft.is_file():
                        raise _Refused(f"{draft} is not there after the database wrote it")
                    store.put(name, draft)
            entry, found, schema = _read(store, name, passing, progress)
            if schema != self._schema:
                raise _Refused(f"it writes columns as {_told(schema)}, expected {_told(self._schema)}")
            if found != expected:
                raise _Refused(
                    f"the file has {_sums_told(found)}, the table had {_sums_told(expected)}; rows came or went "
                    "meanwhile, or the file is damaged"
                )
        except BaseException:
            with contextlib.suppress(StoreError):
                store.drop(name)
            raise
        self.counts.append(found.rows)
        return Written((entry,), found, schema)

    def _way(self, store: Store) -> _Way:
        """How the database names files of the store.

        Raises:
            _Refused: it cannot.
        """
        root = folder_of(store)
        if root is not None:
            folder = root.absolute()
            if not PATTERNS.isdisjoint(str(folder)):
                raise _Refused(f"ClickHouse takes a sign of {folder} for a pattern")
            return _Way(folder, "")
        if self._collection is None:
            raise _Refused("no named collection says how it reaches the bucket (archive_collection)")
        return _Way(None, quote_name(self._collection))

    def _sums(self) -> Sums:
        asked = sums_sql(self._columns, self._rows_sql)
        if asked is None:
            raise _Refused("a column is of a type whose hash it cannot compute")
        with _refusing():
            (row,) = self._executor.query(asked)
        rows, row_sum, identity_sum, *times = row
        low, high = (None if not int(rows) or time is None else int(time) for time in times)
        return Sums(int(rows), int(row_sum), int(identity_sum), low, high)

    def _see_same_place(self, store: Store, folder: str, way: _Way) -> None:
        """Have the database read what was just put there: a folder of the same name may be another machine's."""
        probe, token = probe_name(folder), secrets.token_hex(16)
        store.create(probe, token.encode())
        try:
            with _refusing():
                answer = self._executor.query(
                    f"SELECT token FROM {way.function(probe, 'RawBLOB', 'token String')}"
                )
        finally:
            store.drop(probe)
        if [str(row[0]) for row in answer] != [token]:
            raise _Refused(f"what it calls {folder} is another place than {store}")

    def _write(self, into: str, limits: Limits) -> None:
        names = ", ".join(map(quote_name, self._columns))
        order = ", ".join(part for part in (self._order_by, "_log", "_seq") if part)
        # A row group ends with the block that brings it to so many rows, and blocks are some rows larger at times.
        block = max(1, limits.group_rows // BLOCKS)
        group = max(1, limits.group_rows - 2 * block)
        groups = (
            f"max_block_size = {block}, output_format_parquet_row_group_size = {group}, "
            f"output_format_parquet_row_group_size_bytes = {limits.group_bytes}"
        )
        with _refusing():
            self._executor.command(
                f"INSERT INTO FUNCTION {into} SELECT {names} {self._rows_sql} ORDER BY {order} "
                f"SETTINGS {TYPES}, {FORM}, {groups}"
            )


class _Refused(Exception):  # noqa: N818 - what the database says, no fault of the run
    """The database cannot write it, and why."""


@dataclass(frozen=True)
class _Way:
    """The database's way to the store: a folder, or a named collection for a bucket."""

    folder: Path | None
    collection: str

    def function(self, name: str, form: str, structure: str | None = None) -> str:
        """A file below the root, as a table function."""
        if self.folder is not None:
            given = [str(self.folder / name), form, structure]
            return f"file({', '.join(quote_text(each) for each in given if each is not None)})"
        named = {"filename": name, "format": form, "structure": structure}
        told = [f"{key} = {quote_text(each)}" for key, each in named.items() if each is not None]
        return f"s3({', '.join([self.collection, *told])})"


def _read(
    store: Store, name: str, passing: Passing, progress: Progress | None
) -> tuple[FileEntry, Sums, pa.Schema]:
    """What a file is, as the store has it."""
    with store.fetched(name) as path:
        if path is None:
            raise _Refused(f"{name} is not there after the database wrote it")
        try:
            entry = FileEntry(name.rpartition("/")[2], 0, path.stat().st_size, sha256_of(path))
            with pq.ParquetFile(path, pre_buffer=False) as file, Summing() as summing:
                schema = file.schema_arrow.remove_metadata()
                for batch in passing.watched(_counted(file.iter_batches(READ_ROWS), progress)):
                    summing.add(batch)
        except (pa.ArrowException, OSError, ValueError, ArchiveError) as error:  # names may be no text
            raise _Refused(f"{name} cannot be read ({_first_line(error)})") from error
    return (
        FileEntry(entry.name, summing.total.rows, entry.nbytes, entry.sha256),
        summing.total,
        schema,
    )


def _counted(batches: Iterator[pa.RecordBatch], progress: Progress | None) -> Iterator[pa.RecordBatch]:
    rows = 0
    for batch in batches:
        yield batch
        rows += batch.num_rows
        if progress is not None:
            progress("reading back", rows)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """What the database answers to a statement, as why it does not write the file."""
    try:
        yield
    except Exception as error:
        raise _Refused(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split()).partition(" Stack trace:")[0] or type(error).__name__
    return text if len(text) <= TOLD_CHARACTERS else f"{text[:TOLD_CHARACTERS]}…"


def _told(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}{'' if field.nullable else ' not null'}" for field in schema)


def _sums_told(sums: Sums) -> str:
    return f"{sums.rows} rows of sum {sums.row_sum:016x}"
