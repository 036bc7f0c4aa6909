"""What became of one table's rows: every row that left its queue is counted here until it is somewhere (promise P4)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import pyarrow as pa

from recorder.bad_rows import BadRow
from recorder.balance import Balance
from recorder.batch import Batch
from recorder.earlier_stats import EarlierCounts
from recorder.flush_worker import WorkerState
from recorder.log_losses import DAMAGED_LOG, Loss
from recorder.queue import TableQueue
from recorder.redact import redacted
from recorder.shed import Gap
from recorder.sink.errors import DataError, SinkError
from schemas.table import Table


class PipelineObserver(Protocol):
    """Who wants to know what happens to a table's rows. Called on the loop; none may block."""

    def inserted(self, table: str, rows: int, seconds: float) -> None:
        """An insert of so many rows took so long."""

    def lag(self, table: str, seconds: float, rows: int) -> None:
        """So many rows became queryable so long after their acceptance."""

    def sink_error(self, table: str, error: SinkError) -> None:
        """An attempt failed."""

    def worker_state(self, table: str, state: WorkerState, why: str) -> None:
        """The worker's state changed."""

    def dead_letter(self, table: str, row: BadRow) -> None:
        """A row can never be inserted."""


class TableAccount:
    """One table's counts, and how its worker stands. Kept on the recorder's loop, by what the worker tells
    (`WorkerEvents`) and the builder finds; `observer` is told in turn.
    """

    def __init__(
        self,
        table: Table,
        queue: TableQueue,
        *,
        observer: PipelineObserver,
        row_of_dead: Callable[[pa.RecordBatch, DataError], BadRow],
    ):
        self.table = table
        self.queue = queue
        self.state = WorkerState.FLOWING
        self.why_held = ""
        self.inserted_rows = 0
        self.inserts = 0
        self.dead_rows = 0
        self.duplicate_rows = 0
        self.expired_rows = 0
        """Rows of earlier runs that the table's TTL has taken, or would take at once."""
        self.lost_rows = 0
        """Rows given up at the end of a shutdown that ran out of time."""
        self.damaged_rows = 0
        """Rows that stood on the log and cannot be read any more."""
        self.flying_rows = 0
        """Rows taken from the queue or from the log of an earlier run, and not yet resolved."""
        self.replayed_rows = 0
        """Rows of earlier runs that were found on the log."""
        self.restored_rows = 0
        """Rows that the database had confirmed, lost in a restart, and was given again."""
        self.rechecking = False
        """Whether the worker is at rows that were counted before."""
        self.earlier = EarlierCounts()
        """What became of rows of earlier runs."""
        self.of_earlier = False
        """Whether the worker is at such rows."""
        self.errors: Counter[int] = Counter()
        self.last_error = ""
        self.last_insert_ns: int | None = None
        """Wall-clock time of the last insert that succeeded."""
        self.told = 0
        """How often its worker told something: who works, tells."""
        self._observer = observer
        self._row_of_dead = row_of_dead

    def balance(self) -> Balance:
        """Where this table's rows are. On the loop, so that no row is between two counts."""
        queue = self.queue
        # Each count is read once: producers go on putting meanwhile.
        waiting, displaced, refused = queue.waiting_rows, queue.displaced_rows, queue.refused_rows
        return Balance(
            received=queue.taken_rows + self.replayed_rows + displaced + refused + waiting,
            inserted=self.inserted_rows,
            pending=waiting + self.flying_rows,
            shed=displaced + refused + self.lost_rows + self.damaged_rows,
            dead_lettered=self.dead_rows,
            duplicates_skipped=self.duplicate_rows,
            expired=self.expired_rows,
        )

    # -- what the worker tells (WorkerEvents) -----------------------------------------------------------------------

    def inserted(self, batch: Batch, rows: int, seconds: float) -> None:
        """Rows are in."""
        self.told += 1
        if self.rechecking:
            self.restored_rows += rows
        else:
            self.inserted_rows += rows
            self.flying_rows -= rows
        if self.of_earlier:
            self.earlier.inserted += rows
        self.inserts += 1
        self.last_insert_ns = time.time_ns()
        self._observer.inserted(self.table.name, rows, seconds)

    def found(self, batch: Batch, rows: int) -> None:
        """Rows were in already, by an insert whose answer was lost."""
        self.told += 1
        if not self.rechecking:
            self.inserted_rows += rows
            self.flying_rows -= rows
        if self.of_earlier:
            self.earlier.there += rows
        self.last_insert_ns = time.time_ns()

    def duplicates(self, rows: int) -> None:
        """Rows that a source delivered before, or that an earlier run had inserted."""
        self.told += 1
        if not self.rechecking:
            self.duplicate_rows += rows
            self.flying_rows -= rows
        if self.of_earlier:
            self.earlier.there += rows

    def expired(self, rows: int) -> None:
        """Rows of an earlier run that the table has not, and would not keep."""
        self.told += 1
        if not self.rechecking:
            self.expired_rows += rows
            self.flying_rows -= rows
        if self.of_earlier:
            self.earlier.expired += rows

    def dead_letter(self, row: pa.RecordBatch, error: DataError) -> None:
        """A row that ClickHouse refuses."""
        self.told += 1
        try:
            bad = self._row_of_dead(row, error)
        except Exception as fault:  # noqa: BLE001 - the row must not be lost for the sake of showing it
            bad = BadRow(
                f"refused_{error.code}",
                f"{error}; its values cannot be shown: {fault!r}",
                row["_log"][0].as_py(),
                row["_seq"][0].as_py(),
                b"",
                "text",
            )
        if self.rechecking:  # it was counted as inserted
            self.inserted_rows -= 1
            self.flying_rows += 1
        if self.of_earlier:
            self.earlier.dead_lettered += 1
        self.bad_row(bad)

    def bad_row(self, row: BadRow) -> None:
        """A row that can never be inserted."""
        self.dead_rows += 1
        self.flying_rows -= 1
        self._observer.dead_letter(self.table.name, row)

    def error(self, error: SinkError) -> None:
        """An attempt failed."""
        self.told += 1
        self.errors[error.code] += 1
        self.last_error = str(error)
        self._observer.sink_error(self.table.name, error)

    def state_changed(self, state: WorkerState, why: str) -> None:
        """The worker's state changed."""
        self.told += 1
        why = redacted(why)  # it may quote a fault of our own, and that a row
        changed = (state, why) != (self.state, self.why_held)
        self.state = state
        self.why_held = why if state is WorkerState.HELD else ""
        if changed:
            self._observer.worker_state(self.table.name, state, why)

    def replayed(self, rows: int) -> None:
        """Rows that an earlier run left on the log are under way."""
        self.replayed_rows += rows
        self.flying_rows += rows

    def damaged(self, losses: Sequence[Loss], *, counted: bool) -> None:
        """Rows on the log cannot be read any more. They are lost; `counted`: they are among those under way."""
        for loss in losses:
            if counted:
                self.flying_rows -= loss.rows
            else:
                self.replayed_rows += loss.rows
            self.damaged_rows += loss.rows
            self.queue.shed.add_hole(Gap(DAMAGED_LOG, loss.first_ns, loss.last_ns, loss.rows, loss.detail))

    # -- what is given up -------------------------------------------------------------------------------------------

    def given_up(self, rows: int) -> None:
        """Rows were lost by a fault of our own: counted, told in a gap row, never silent."""
        self.lost_rows += rows
        self.flying_rows -= rows
        self.queue.shed.add("internal_error", rows)

    def dropped(self, rows: int, detail: str, accepted_ns: int) -> None:
        """Rows that stood on the log alone were dropped with it; the first was accepted then (monotonic)."""
        self.lost_rows += rows
        self.flying_rows -= rows
        self.queue.shed.add("log_dropped", rows, accepted_ns=accepted_ns, detail=detail)

    def _write_off(self, oldest_ns: int | None, unknown_rows: int, kept_rows: int) -> None:
        """Count what is not resolved as lost: nobody is left to get it in. `oldest_ns` is the oldest row's acceptance;
        of `unknown_rows` an insert was under way; `kept_rows` are on the log, and stay pending.
        """
        lost = (
            self.queue.taken_rows
            + self.replayed_rows
            - (self.inserted_rows + self.dead_rows + self.duplicate_rows + self.expired_rows)
            - (self.lost_rows + self.damaged_rows + kept_rows)
        )
        self.flying_rows = kept_rows
        if lost:
            self.lost_rows += lost
            detail = (
                f"of {unknown_rows} rows an insert was under way: they may be in the table"
                if unknown_rows
                else ""
            )
            self.queue.shed.add("shutdown", lost, accepted_ns=oldest_ns, detail=detail)
