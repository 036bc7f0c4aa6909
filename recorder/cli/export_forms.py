"""The forms of an export: Parquet and Arrow from record batches, CSV as ClickHouse writes it.

A form writes to an `Output` from front to back and holds at most one row group. It neither asks the database nor
knows where its file stands.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from recorder.cli.errors import Failure

if TYPE_CHECKING:
    from recorder.cli.export_file import Output

GROUP_ROWS = 131_072
GROUP_BYTES = 64 * 2**20
"""A row group is written when it has so many rows, or so many bytes of Arrow."""
CSV_SETTINGS = {
    "output_format_csv_crlf_end_of_line": "1",
    "format_csv_null_representation": "",
    "output_format_csv_serialize_tuple_into_separate_columns": "0",
}
"""Lines end as RFC 4180 has it; NULL is nothing between the commas, and an empty text `""`."""


class Grouped(abc.ABC):
    """A form of record batches, which are written some at a time."""

    def __init__(self, schema: pa.Schema):
        self._schema = schema
        self.rows = 0
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._waiting_bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Write it, or keep it until there are more."""
        self.rows += batch.num_rows
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        self._waiting_bytes += batch.nbytes
        if self._waiting_rows >= GROUP_ROWS or self._waiting_bytes >= GROUP_BYTES:
            self._write_waiting()

    def complete(self) -> None:
        """Write what waits, and the end of the file."""
        self._write_waiting()
        self.close()

    def _write_waiting(self) -> None:
        if self._waiting_rows:
            self._write(pa.Table.from_batches(self._waiting, self._schema))
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0

    @abc.abstractmethod
    def _write(self, group: pa.Table) -> None:
        """Write a row group."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release the writer; what waits is lost."""


class ParquetForm(Grouped):
    """Parquet: zstd, statistics and an index of pages, row groups of at most about `GROUP_ROWS`."""

    def __init__(self, output: Output, schema: pa.Schema):
        super().__init__(schema)
        self._writer = pq.ParquetWriter(output, schema, compression="zstd", write_page_index=True)

    def _write(self, group: pa.Table) -> None:
        self._writer.write_table(group, row_group_size=group.num_rows)

    def close(self) -> None:
        """See `Grouped`."""
        self._writer.close()


class ArrowForm(Grouped):
    """Arrow's file format (IPC, Feather V2): zstd."""

    def __init__(self, output: Output, schema: pa.Schema):
        super().__init__(schema)
        self._writer: Any = pa.ipc.new_file(
            output, schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
        )

    def _write(self, group: pa.Table) -> None:
        for batch in group.combine_chunks().to_batches():
            self._writer.write_batch(batch)

    def close(self) -> None:
        """See `Grouped`."""
        self._writer.close()


@contextlib.contextmanager
def grouped(form: type[ParquetForm | ArrowForm], output: Output, schema: pa.Schema) -> Iterator[Grouped]:
    """A form on an output, closed however it ends.

    Raises:
        Failure: it cannot hold such columns.
    """
    try:
        writer = form(output, schema)
    except pa.ArrowNotImplementedError as error:
        raise Failure(f"this form cannot hold the answer: {error}; make text of it in the SQL") from error
    try:
        yield writer
    except BaseException:
        output.give_up()
        with contextlib.suppress(pa.ArrowException, OSError, ValueError):
            writer.close()
        raise


def with_metadata(schema: pa.Schema, said: Mapping[str, str]) -> pa.Schema:
    """A schema that says where the rows are from, under keys that begin with `recorder.`."""
    return schema.with_metadata({f"recorder.{name}": text for name, text in said.items()})


class CsvRows:
    """Counts the rows of CSV that comes in pieces, cut anywhere: line ends inside of quotes are none."""

    def __init__(self) -> None:
        self.rows = 0
        self._quoted = False

    def add(self, piece: bytes) -> None:
        """Count those that end in this piece."""
        for part in piece.split(b'"'):
            if not self._quoted:
                self.rows += part.count(b"\n")
            self._quoted = not self._quoted
        self._quoted = not self._quoted  # between n quotes there are n + 1 parts


def csv_line(names: list[str]) -> bytes:
    """A header by RFC 4180."""
    return ",".join('"' + name.replace('"', '""') + '"' for name in names).encode() + b"\r\n"
