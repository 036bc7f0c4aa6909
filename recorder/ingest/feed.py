"""Reads files and hands their rows to a recorder: the worker's side of a run.

One thread reads, decodes, normalises and waits for room; it is the only writer of `Feed`'s counts. What it may wait
for long (room in a queue, a replayed message's time) is why it is not the thread that takes Ctrl-C.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from recorder.identity import UNDATED_NS, source_seq
from recorder.ingest.age import OldRows
from recorder.ingest.blocks import Blocks, Place, Taker
from recorder.ingest.capture import EARLIEST_NS, CaptureLines, too_long
from recorder.ingest.compression import Unpacked
from recorder.ingest.errors import FileDamaged, TableUnknown, WrongUse
from recorder.ingest.lines import Line, line_blocks
from recorder.ingest.normalisers import kinds, open_normaliser
from recorder.ingest.options import IngestOptions
from recorder.ingest.pace import Pace
from recorder.ingest.parquet import parquet_chunks
from recorder.ingest.record import BadRecord, Chunk, Record, TableRow
from recorder.ingest.result import FileResult
from recorder.ingest.source import Format, Source, open_file
from recorder.normalise.base import BadMessage, Message, NormalisedRow, Normaliser
from recorder.normalise.internal import InternalNormaliser
from recorder.normalise.order_ids import OrderIds
from recorder.normalise.slots import clash
from recorder.source_rows import SourceRow
from recorder.stats import SourceCounts
from schemas.table import Table


class Feed:
    """See the module. `run` is called once, on a thread of its own; the counts may be read from any."""

    def __init__(
        self,
        taker: Taker,
        tables: Mapping[str, Table],
        options: IngestOptions,
        old: OldRows,
        *,
        order_ids: OrderIds | None = None,
        load_order_ids: Callable[[OrderIds], object] | None = None,
        disabled: frozenset[str] = frozenset(),
        ignore_unknown: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
    ):
        self.stop = threading.Event()
        """Set from outside to end the run after the rows under way."""
        self.file = ""
        self.file_bytes = 0
        self.records = 0
        self.rows: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.filtered: Counter[str] = Counter()
        self.bad_records: Counter[str] = Counter()
        self.clock_steps_back = 0
        self.files: list[FileResult] = []
        self._blocks = Blocks(taker, options.table or "")
        self._tables = tables
        self._options = options
        self._old = old
        self._order_ids = order_ids if order_ids is not None else OrderIds(0)
        self._load_order_ids = load_order_ids
        self._disabled = disabled
        self._ignore_unknown = ignore_unknown
        self._clock = clock
        self._pace = Pace(options.speed) if options.speed is not None else None
        self._time_index = {name: _time_index(table) for name, table in tables.items()}
        self._dated_ns = UNDATED_NS  # the last local time in the file so far
        self._messages: Normaliser | None = None
        self._events = InternalNormaliser()
        self._kinds: dict[int, str] = {}
        if options.table is not None and options.table not in tables:
            raise TableUnknown(
                f"no table {options.table!r}; the loaded packs have {', '.join(sorted(tables))}"
            )

    @property
    def ignored(self) -> dict[str, int]:
        """Messages that the normaliser knows and has no table for, per type."""
        return dict(self._messages.ignored) if self._messages is not None else {}

    @property
    def unresolved(self) -> dict[str, int]:
        """Rows of orders and fills without a strategy that led to no known order, per table."""
        return dict(self._order_ids.unresolved.copy())

    def all_filtered(self) -> dict[str, int]:
        """Rows left out by a policy, per reason."""
        total = self.filtered.copy()
        if self._messages is not None:
            total.update(self._messages.filtered.copy())  # a copy, because the worker may be adding a reason
        return dict(total)

    def counts(self) -> SourceCounts:
        """What was left out so far, for the recorder's metrics."""
        return SourceCounts(
            filtered=self.all_filtered(),
            ignored=self.ignored,
            undecodable=sum(self.bad_records.copy().values()),
            unresolved=self.unresolved,
        )

    def check(self, source: Source) -> None:
        """See, before anything is recorded, that the options fit a file.

        Raises:
            WrongUse: a Parquet file without a table, a table for a capture, or a normaliser that is not there.
        """
        if source.format is Format.PARQUET and self._options.table is None:
            raise WrongUse(f"{source.name} is a Parquet file; name the table its rows are for with --table")
        if source.format is Format.BINANCE_CAPTURE:
            if self._options.table is not None:
                raise WrongUse(
                    f"{source.name} is a capture, whose messages name their tables; leave --table out"
                )
            self._normaliser()

    def run(self, source: Source) -> None:
        """Record one file; state runs on from the file before.

        Raises:
            IngestError: the file, not one of its records, is at fault. What was recorded before stays.
            RecorderError: the recorder does not take rows.
        """
        self.file, self.file_bytes = source.name, 0
        self._blocks.begin(source)
        self._dated_ns = UNDATED_NS
        records, rows, bad = self.records, sum(self.rows.values()), sum(self.bad_records.values())
        with open_file(source.path) as file:
            stat = os.fstat(file.fileno())
            if (stat.st_size, stat.st_mtime_ns) != (source.size_bytes, source.modified_ns):
                raise FileDamaged(
                    f"{source.name} was changed after it was checked; run again when it is complete"
                )
            normalise = self._reading(source)
            content = Unpacked(file, source.compression, source.name)
            for chunk in self._chunks(source, file, content):
                if not self._take(source, chunk.records, normalise):
                    break
                self.file_bytes = chunk.file_bytes
            self._blocks.submit()
            done = not self.stop.is_set() and not self.limited
            self._see_unchanged(source, file, content if done else None, self.records - records)
        cut = source.truncation if done else None
        self.files.append(
            FileResult(
                name=source.name,
                format=source.format,
                log=source.log,
                size_bytes=source.size_bytes,
                records=self.records - records,
                rows=sum(self.rows.values()) - rows,
                bad_records=sum(self.bad_records.values()) - bad,
                truncated=cut is not None,
                notice=f"gzip ends too early, at byte {cut.file_bytes:,}, after {cut.content_bytes:,} bytes of content"
                if cut is not None
                else "",
            )
        )

    def _see_unchanged(self, source: Source, file: BinaryIO, content: Unpacked | None, records: int) -> None:
        """See that what was read is what was checked: by the content where all was read, else by size and time.

        Raises:
            FileDamaged: it is not, and rows have the identity of another content.
        """
        if content is not None and source.format is not Format.PARQUET:
            if content.digest.hexdigest() == source.digest:
                return
        else:
            stat = os.fstat(file.fileno())
            if (stat.st_size, stat.st_mtime_ns) == (source.size_bytes, source.modified_ns):
                return
        raise FileDamaged(
            f"{source.name} was changed while it was read: {records:,} records were taken, some perhaps of the changed "
            f"content, under the identity of the content that was checked. Delete their rows (WHERE _log = "
            f"{source.log}) and run again when the file is complete"
        )

    @property
    def limited(self) -> bool:
        """Whether the limit on records is reached."""
        return self._options.limit is not None and self.records >= self._options.limit

    # -- reading ------------------------------------------------------------------------------------------------

    def _normaliser(self) -> Normaliser:
        if self._messages is None:
            self._messages = open_normaliser(self._options.normaliser, self._options.normaliser_options)
            self._kinds = kinds(self._messages)
        return self._messages

    def _reading(self, source: Source) -> Normaliser:
        return self._normaliser() if source.format is Format.BINANCE_CAPTURE else self._events

    def _chunks(self, source: Source, file: BinaryIO, content: Unpacked) -> Iterator[Chunk]:
        if source.format is Format.PARQUET:
            assert self._options.table is not None
            table = self._tables[self._options.table]
            yield from parquet_chunks(
                file, source.name, source.size_bytes, table, ignore_unknown=table.name in self._ignore_unknown
            )
            return
        capture = CaptureLines() if source.format is Format.BINANCE_CAPTURE else None
        topic = self._options.table or ""
        for lines, file_bytes in line_blocks(content):
            if capture is not None:
                steps = capture.steps_back
                yield Chunk(capture.decode(lines), file_bytes)
                self.clock_steps_back += capture.steps_back - steps
            else:
                yield Chunk([_event(line, topic) for line in lines], file_bytes)

    def _take(self, source: Source, records: list[Record], normaliser: Normaliser) -> bool:
        """Turn records into rows and hand them over; False when the run is to end."""
        if self._options.limit is not None:
            records = records[: self._options.limit - self.records]
        from_capture = source.format is Format.BINANCE_CAPTURE
        for record in records:
            if self.stop.is_set():
                return False
            self.records += 1
            if isinstance(record, BadRecord):
                self._refuse(record)
            elif isinstance(record, TableRow):
                self._await_turn(self._local_time(record.table, record.row))
                self._row(source, record.position, NormalisedRow(record.table, 0, record.row), from_file=True)
            else:
                rows = self._rows_of(record, normaliser)
                if rows is None:
                    continue
                if self._pace is not None:
                    times = (
                        self._local_time(row.table, row.row) for row in rows if row.table in self._tables
                    )
                    self._await_turn(record.ts_local or next(times, None))
                for row in rows:
                    self._row(
                        source, record.position, row, from_file=not from_capture, payload=record.payload
                    )
            if self._blocks.full:
                self._blocks.submit()
        self._blocks.submit()
        return not self.limited

    def _rows_of(self, message: Message, normaliser: Normaliser) -> Sequence[NormalisedRow] | None:
        """What a message makes; None where it was refused."""
        try:
            rows = normaliser.normalise(message)
        except BadMessage as error:
            reason, detail = error.reason, str(error)
        except Exception as error:  # noqa: BLE001 - a normaliser is a plug-in; one message costs one message
            reason, detail = "normaliser_failed", f"{type(error).__name__}: {error}"
        else:
            if not (fault := clash(rows)):
                return rows
            reason, detail = "bad_slots", fault
        self._refuse(BadRecord(message.position, reason, detail, message.payload, message.ts_local))
        return None

    def _await_turn(self, ts_local: Any) -> None:
        """Wait, when replaying, until a record of that time is due; what came before it is handed over first."""
        if self._pace is None or type(ts_local) is not int or not ts_local:
            return
        wait_s = self._pace.wait_s(ts_local, self._clock())
        if wait_s > 0.001:
            self._blocks.submit()
            self.stop.wait(wait_s)

    # -- rows out -----------------------------------------------------------------------------------------------

    def _row(
        self, source: Source, position: int, row: NormalisedRow, *, from_file: bool, payload: bytes = b""
    ) -> None:
        table, slot, content = row
        if self._order_ids.wants(table):
            content = self._complete(table, content)
        if from_file and table in self._tables:
            ts_local = self._local_time(table, content)
            if type(ts_local) is int and EARLIEST_NS <= ts_local < 2**63:
                self._dated_ns = ts_local
        if table in self._disabled:
            self.filtered[f"{table} is off"] += 1
            return
        if from_file:
            if table not in self._tables:
                detail = f"no table {table!r}; the loaded packs have {', '.join(sorted(self._tables))}"
                self._refuse(BadRecord(position, "unknown_table", detail, payload), slot)
                return
            if ts_local is None or ts_local == 0:
                # Filled in by the clock it would differ in every run, and a second run would not find the row.
                detail = "a row from a file needs ts_local, the time it was received or made, in ns"
                raw = payload or repr(content).encode()
                self._refuse(BadRecord(position, "no_local_time", detail, raw), slot)
                return
        oldest = self._old.oldest_ns.get(table)
        if oldest is not None:
            ts_local = self._local_time(table, content)
            if type(ts_local) is int and 0 < ts_local < oldest:
                self._old.refuse(table, ts_local, str(Place(source, position)))
                return
        self._blocks.add(SourceRow(table, source_seq(position, slot), content))
        self.rows[table] += 1
        if not from_file:
            self.kinds[self._kinds.get(slot, f"slot {slot}")] += 1

    def _complete(self, table: str, content: Any) -> Any:
        """A row with what the map of orders knows of it; the first one that asks has the map loaded."""
        if self._load_order_ids is not None:
            load, self._load_order_ids = self._load_order_ids, None
            load(self._order_ids)
        return self._order_ids.take(table, content)

    def _local_time(self, table: str, row: object) -> Any:
        """A row's `ts_local`, whatever it is; None where it has none."""
        if isinstance(row, tuple):
            return row[self._time_index[table]]
        return row.get("ts_local") if isinstance(row, Mapping) else getattr(row, "ts_local", None)

    def _refuse(self, bad: BadRecord, slot: int = 0) -> None:
        """Make a record that cannot be a row a dead letter."""
        self.bad_records[bad.reason] += 1
        self._blocks.add_letter(bad, slot, bad.ts_local or self._dated_ns)


def _event(line: Line, topic: str) -> Record:
    return too_long(line) if line.cut_bytes else Message(line.content, 0, topic, line.position)


def _time_index(table: Table) -> int:
    return [column.name for column in table.columns].index("ts_local")
