"""Rows to Arrow: the batch builder of one table.

Rows are built in slices of at most `SLICE_ROWS`, so that the interpreter's lock is never held for long, and a slice's
columns are converted as wholes. Only when a column refuses its values are they tried one by one to find the rows to
blame; those leave as dead letters and the rest goes on. Sealing combines the slices into one record batch.

The builder gives every row its identity before it looks at it, so that a dead letter has one too.
"""

from __future__ import annotations

import itertools
import operator
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recorder.bad_rows import BadRow, row_bytes, said_by
from recorder.batch import Batch, cut_by_partitions, local_times_ns, partition_keys
from recorder.breather import NEVER
from recorder.convert import BadColumn, Converter, bad_values, converter
from recorder.entries import ArrowBlock, Block, Entry, Waiting, joined
from recorder.log import get_logger
from recorder.redact import Redactor, in_force
from recorder.redact_columns import ColumnRedactor
from recorder.shapes import BadShape, Shapes
from schemas.columns import Kind
from schemas.policy import TablePolicy
from schemas.table import Table

logger = get_logger("recorder.build")

SLICE_ROWS = 256
_ROW, _ACCEPTED, _CORRELATION, _WIDE = map(operator.itemgetter, range(4))
MAX_PARTITIONS = 20
"""Partitions one insert may touch: ClickHouse refuses more than 100, and each is a part to write and to merge."""
MAX_WITH_GROUPS = 96
"""The same of a table with symbol groups, each of which may be touched on every day of the batch."""


def max_times(policy: TablePolicy) -> int:
    """Days, or months, that one insert into such a table may touch."""
    groups = policy.symbol_groups
    return MAX_PARTITIONS if groups == 1 else min(MAX_PARTITIONS, MAX_WITH_GROUPS // groups)


class BatchBuilder:
    """Collects one table's rows until they are sealed. Owned by one task; no thread safety.

    `run_id` fills in rows that name none. `ignore_unknown` counts and drops fields that the table does not have,
    instead of refusing the row. `breathe` is called between the columns of a slice, for other threads' sake.
    `redactor` cuts secrets out of columns that may hold what others wrote; unset means the one in force.
    `on_slice` is given the rows of each slice as they are kept, and must not raise.
    """

    def __init__(
        self,
        table: Table,
        *,
        epoch: int,
        run_id: str,
        ignore_unknown: bool = False,
        on_bad: Callable[[BadRow], None],
        breathe: Callable[[], None] = NEVER,
        redactor: Redactor | None = None,
        on_slice: Callable[[pa.RecordBatch], None] | None = None,
    ):
        self.table = table
        self.epoch = epoch
        self.unknown_fields = 0
        """Fields ignored because the table has no such column."""
        self.rows = 0
        self.nbytes = 0
        """Bytes of the rows not yet sealed, estimated: measuring Arrow buffers costs as much as filling them."""
        self.oldest_ns: int | None = None
        """Acceptance time of the oldest row not yet sealed."""
        self.slice_accepted_ns = 0
        """Acceptance time of the oldest row of the slice built last."""
        self.bad_rows = 0
        """Rows ever given to `on_bad`."""
        self._refused: list[BadRow] = []  # told once their slice is kept
        self._run_id = run_id
        self._on_bad = on_bad
        self._breathe = breathe
        self._on_slice = on_slice
        self._next_seq = 0
        self._secrets = ColumnRedactor(table, redactor if redactor is not None else in_force(), breathe)
        self._slices: list[_Slice] = []
        self._from_source = False
        self._shapes = Shapes(table, ignore_unknown=ignore_unknown)
        self._converters: tuple[Converter, ...] = tuple(converter(column) for column in table.columns)
        index = {column.name: position for position, column in enumerate(table.columns)}
        self._row_bytes = _estimated_row_bytes(table)
        self._has_wide = any(column.type.unbounded for column in table.columns)
        self._ts_local = index["ts_local"]
        self._run_id_at = index["run_id"]
        self._correlation_at = index.get("correlation_id")

    @property
    def redacted_spans(self) -> int:
        """Secrets cut out of rows so far."""
        return self._secrets.spans

    # -- rows in ------------------------------------------------------------------------------------------------

    def add(self, entries: Sequence[Waiting]) -> Iterator[int]:
        """Build entries slice by slice; yields the rows of each slice, so that the caller can let others run."""
        all_single = operator.countOf(map(type, entries), tuple) == len(entries)
        groups: Iterable[tuple[bool, Iterable[Waiting]]]
        groups = (
            [(True, entries)] if all_single else itertools.groupby(entries, lambda e: isinstance(e, tuple))
        )
        for is_single, group in groups:
            if is_single:
                singles = cast(Sequence[Entry], group if all_single else list(group))
                for start in range(0, len(singles), SLICE_ROWS):
                    yield self._add_singles(singles[start : start + SLICE_ROWS])
                continue
            for block in joined(cast(Iterable[Block | ArrowBlock], group), SLICE_ROWS):
                if isinstance(block, ArrowBlock):
                    yield self._add_arrow(block)
                else:
                    for start in range(0, len(block.rows), SLICE_ROWS):
                        yield self._add_block(block, slice(start, start + SLICE_ROWS))

    def _add_singles(self, entries: Sequence[Entry]) -> int:
        first = self._next_seq
        self._next_seq += len(entries)
        rows = list(map(_ROW, entries))
        times = list(map(_ACCEPTED, entries))
        correlations = list(map(_CORRELATION, entries))
        if self._has_wide:
            self.nbytes += sum(map(_WIDE, entries))
        self._build(_Unbuilt(rows, times, correlations, self.epoch, range(first, self._next_seq)))
        self._tell_refused()
        return len(entries)

    def _add_block(self, block: Block, part: slice) -> int:
        rows = block.rows[part]
        self._from_source = self._from_source or not block.fresh
        self.nbytes += block.wide_bytes * len(rows) // len(block.rows)
        self._build(_Unbuilt(rows, (block.accepted_ns,) * len(rows), None, block.log, block.seqs[part]))
        self._tell_refused()
        return len(rows)

    def _tell_refused(self) -> None:
        """Hand over the bad rows of a slice that is built: what goes wrong there costs no row of the slice."""
        while self._refused:
            bad = self._refused.pop(0)
            self.bad_rows += 1
            try:
                self._on_bad(bad)
            except Exception as error:
                logger.critical(
                    "a bad row could not be told",
                    table=self.table.name,
                    reason=bad.reason,
                    source_log=bad.log,
                    source_seq=bad.seq,
                    error=repr(error),
                    exc_info=True,
                )

    def _add_arrow(self, block: ArrowBlock) -> int:
        first = self._next_seq
        self._next_seq += len(block.rows)
        columns = list(block.rows.columns)
        if (run_ids := pc.equal(columns[self._run_id_at], "")).true_count:
            columns[self._run_id_at] = pc.if_else(run_ids, self._run_id, columns[self._run_id_at])
        self.nbytes += block.wide_bytes
        self._keep(columns, self.epoch, range(first, self._next_seq), block.accepted_ns)
        return len(block.rows)

    # -- one slice ------------------------------------------------------------------------------------------------

    def _build(self, unbuilt: _Unbuilt) -> None:
        """Convert one slice; rows that cannot be go to `on_bad`."""
        try:
            self._build_slice(unbuilt)
        except Exception as error:  # noqa: BLE001 - a row object may raise anything; it costs itself, not its slice
            if len(unbuilt.rows) == 1:
                detail = f"{self.table.name}: {type(error).__name__}: {said_by(error)}"
                self._bad("not_readable", detail, unbuilt, 0)
                return
            self._build_halves(unbuilt)

    def _build_halves(self, unbuilt: _Unbuilt) -> None:
        middle = len(unbuilt.rows) // 2
        self._build(unbuilt.part(slice(0, middle)))
        self._build(unbuilt.part(slice(middle, None)))

    def _build_slice(self, unbuilt: _Unbuilt) -> None:
        tuples, misshapen, unknown_fields = self._shapes.tuples(unbuilt.rows)
        if misshapen:
            # Told once, here: what the rest meets on its way does not come back to these.
            self._build_without(misshapen, unbuilt)
            return
        columns: list[Sequence[Any]] = list(zip(*tuples, strict=True))
        self._fill_in(columns, unbuilt.times_ns, unbuilt.correlations)
        arrays: list[pa.Array] = []
        breathe = self._breathe
        for convert, values in zip(self._converters, columns, strict=True):
            breathe()
            try:
                arrays.append(convert(values))
            except BadColumn:
                bad = bad_values(convert, values)
                if bad:
                    self._build_without(dict(bad), unbuilt)
                else:  # each value fits by itself: the column is too large as a whole
                    self._build_halves(unbuilt)
                return
        # Rows come in the order of their acceptance, but for threads racing by microseconds.
        self._keep(arrays, unbuilt.log, unbuilt.seqs, unbuilt.times_ns[0])
        self.unknown_fields += unknown_fields

    def _build_without(self, refused: Mapping[int, BadColumn | BadShape], unbuilt: _Unbuilt) -> None:
        """Give up some rows of a slice, by position, and build the rest anew."""
        for position, error in refused.items():
            self._bad(error.reason, str(error), unbuilt, position)
        if rest := [position for position in range(len(unbuilt.rows)) if position not in refused]:
            self._build(unbuilt.only(rest))

    def _fill_in(
        self, columns: list[Sequence[Any]], times_ns: Sequence[int], correlations: Sequence[str | None] | None
    ) -> None:
        """What a producer left to the recorder: local time, run, correlation."""
        times = columns[self._ts_local]
        if (
            0 in times and correlations is not None
        ):  # a source's rows must say when: a clock would differ each time
            ahead_ns = time.time_ns() - time.monotonic_ns()
            columns[self._ts_local] = [
                t if type(t) is not int or t else accepted + ahead_ns
                for t, accepted in zip(times, times_ns, strict=True)
            ]
        runs = columns[self._run_id_at]
        if "" in runs:
            columns[self._run_id_at] = [run if run != "" else self._run_id for run in runs]
        if correlations is not None and self._correlation_at is not None and any(correlations):
            columns[self._correlation_at] = [
                own if own is not None else given
                for own, given in zip(columns[self._correlation_at], correlations, strict=True)
            ]

    def _keep(self, arrays: list[pa.Array], log: int, seqs: Sequence[int], accepted_ns: int) -> None:
        rows = len(seqs)
        # The one place all rows come through, single ones and Arrow blocks, before anything keeps them.
        piece = _Slice(self._secrets.redact(arrays), log, seqs)
        self._slices.append(piece)
        if self._on_slice is not None:
            self._on_slice(self._combined([piece]))
        self.rows += rows
        self.nbytes += rows * self._row_bytes
        self.slice_accepted_ns = accepted_ns
        if self.oldest_ns is None or accepted_ns < self.oldest_ns:
            self.oldest_ns = accepted_ns

    def _bad(self, reason: str, detail: str, unbuilt: _Unbuilt, position: int) -> None:
        row = unbuilt.rows[position]
        payload, payload_format = row_bytes(row)
        self._refused.append(
            BadRow(
                reason,
                detail,
                unbuilt.log,
                unbuilt.seqs[position],
                payload,
                payload_format,
                unbuilt.correlations[position] if unbuilt.correlations else None,
                self._shapes.local_time(row),
            )
        )

    # -- batches out ------------------------------------------------------------------------------------------------

    def seal(self) -> list[Batch]:
        """Combine what was built into batches, in order, and start anew.

        One batch as a rule; more where the rows touch more than `max_times` days or months.
        """
        if not self._slices:
            return []
        slices, self._slices = self._slices, []
        accepted_ns = self.oldest_ns or 0
        from_source, self._from_source = self._from_source, False
        self.rows = self.nbytes = 0
        self.oldest_ns = None
        data = self._combined(slices)
        keys = partition_keys(local_times_ns(data), self.table.policy.partition)
        return [
            Batch(self.table.name, data.slice(start, stop - start), accepted_ns, from_source)
            for start, stop in cut_by_partitions(keys, max_times(self.table.policy))
        ]

    def _combined(self, slices: Sequence[_Slice]) -> pa.RecordBatch:
        """All slices as one record batch, identities added."""
        columns = [pa.concat_arrays(parts) for parts in zip(*(piece.arrays for piece in slices), strict=True)]
        logs = np.repeat(
            np.array([piece.log for piece in slices], dtype=np.uint64), [len(piece.seqs) for piece in slices]
        )
        seqs = np.concatenate([_sequence_array(piece.seqs) for piece in slices])
        return pa.RecordBatch.from_arrays(
            [*columns, pa.array(logs), pa.array(seqs)], schema=self.table.schema
        )


class _Unbuilt(NamedTuple):
    """Rows of one slice as they came, and what came beside them. `correlations` is None for a source's rows."""

    rows: Sequence[Any]
    times_ns: Sequence[int]
    correlations: Sequence[str | None] | None
    log: int
    seqs: Sequence[int]

    def part(self, part: slice) -> _Unbuilt:
        """Consecutive rows of these."""
        correlations = self.correlations[part] if self.correlations else None
        return _Unbuilt(self.rows[part], self.times_ns[part], correlations, self.log, self.seqs[part])

    def only(self, positions: Sequence[int]) -> _Unbuilt:
        """The rows at these positions."""
        correlations = self.correlations
        return _Unbuilt(
            [self.rows[i] for i in positions],
            [self.times_ns[i] for i in positions],
            [correlations[i] for i in positions] if correlations else None,
            self.log,
            [self.seqs[i] for i in positions],
        )


class _Slice(NamedTuple):
    """Rows built in one go: an array a column, and their identities."""

    arrays: list[pa.Array]
    log: int
    seqs: Sequence[int]


def _sequence_array(seqs: Sequence[int]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    if isinstance(seqs, range):
        return np.arange(seqs.start, seqs.stop, dtype=np.uint64)
    return np.asarray(seqs, dtype=np.uint64)


def _estimated_row_bytes(table: Table) -> int:
    """About what a row takes in Arrow, its unbounded texts left out: they are counted one by one."""
    texts = (Kind.TEXT, Kind.CHOICE)
    return sum(
        20 if column.type.kind in texts else 16 if column.type.kind is Kind.DECIMAL else 8
        for column in table.all_columns
    )
