"""The part of a run that sees to bars: which parts of which partitions may go for their bars' sake.

Proven are parts, by name and content, as for the archive: the bars of a partition's time were built and verified while
exactly these parts were there. Where an earlier run had proven more parts than are left, it was ended amid their drop:
then the rest, merged meanwhile or not, is proven by that run's receipt, and by the bars being there still. A row that
came since is in no part of the receipt: it stays, and so does what is there with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from retention.archive.store import Store
from retention.barred import (
    Barring,
    BarsReceipt,
    drop_bars_receipt,
    read_bars_receipt,
    write_bars_receipt,
)
from retention.due import Action
from retention.errors import RetentionError
from retention.facts import PartitionFacts, Proof
from retention.live_parts import LivePart, active_parts, sums_of_parts
from retention.partitions import span_of
from retention.policy import RetentionPolicy, older_than
from schemas.executor import SqlExecutor
from schemas.policy import TablePolicy


@dataclass(frozen=True)
class _Proved:
    """The bars of these parts, of so many rows, were verified, and the receipt says so."""

    parts: tuple[LivePart, ...]
    rows: int
    receipt: BarsReceipt


class BarsFirst:
    """What one run knows of bars. `barring` None: nobody makes any."""

    def __init__(self, executor: SqlExecutor, database: str, store: Store, barring: Barring | None):
        self._executor, self._database, self._store, self._barring = executor, database, store, barring
        self._proved: dict[tuple[str, str], _Proved] = {}
        self._receipts: dict[tuple[str, str], BarsReceipt | None] = {}  # until this run looks closer

    def parts(self, table: str, partition: str) -> tuple[LivePart, ...] | None:
        """The parts of a partition that this run has proven; None for none."""
        proved = self._proved.get((table, partition))
        return None if proved is None else proved.parts

    def proofs(self, policy: RetentionPolicy, part: PartitionFacts, now_ns: int) -> Iterator[Proof]:
        """What is proven of a partition: by this run; or by a receipt, which is enough where it is not to go yet.

        Raises:
            StoreError: the archive does not answer.
        """
        if not policy.bars:
            return
        known = Proof(
            table=policy.logical,
            partition=part.id,
            rows=part.rows,
            sum_hash="",
            max_ns=part.max_ns,
            checked_ns=0,
        )
        if (proved := self._proved.get((policy.table, part.id))) is not None:
            yield replace(known, rows=proved.rows, sum_hash=name_of_parts(proved.parts))
        key = policy.table, part.id
        if key not in self._receipts:
            self._receipts[key] = read_bars_receipt(self._store, *key)
        if (receipt := self._receipts[key]) is None or not receipt.covers(
            self._active(policy.table, part.id)
        ):
            return
        goes = older_than(part.max_ns, policy.keep_days, now_ns)
        yield replace(known, sum_hash="receipt" if goes else part.sum_hash or "receipt")

    def prove(self, policy: RetentionPolicy, kept: TablePolicy, action: Action) -> tuple[bool, str]:
        """Build and verify the bars of the parts that are there now; whether they are proven, and what is to be said.

        Raises:
            RetentionError: they are not right, or cannot be told to be.
        """
        barring = self._barring
        if barring is None or barring.table != policy.logical:
            return False, f"{action.why}; no bars are made of {policy.logical}: set its bars to false"
        span = span_of(action.partition, policy.partition)
        if span is None:
            raise RetentionError(f"{action.table}: {action.partition!r} is the id of no day and no month")
        parts = self._active(action.table, action.partition)
        live = sums_of_parts(
            self._executor, self._database, action.table, parts, time_column=kept.partition_column
        )
        if live.rows != action.rows:
            return False, "its rows changed meanwhile; the next run looks again"
        key = action.table, action.partition
        receipt = self._receipts[key] = read_bars_receipt(self._store, *key)
        if receipt is not None and self._is_left_of(receipt, action.table, parts, live.rows):
            self._see(barring, receipt, action)
            self._proved[key] = _Proved(parts, live.rows, receipt)
            return (
                True,
                f"{live.rows:,} rows are what an interrupted drop left; their bars were verified before it",
            )
        barred = barring.prove(span)
        # What is inserted while bars are verified may be in them or not: they speak of the parts of before and after.
        if self._active(action.table, action.partition) != parts:
            return False, "its parts changed meanwhile; the next run looks again"
        receipt = BarsReceipt(
            parts=tuple((part.name, part.content) for part in parts),
            barred=barred,
            rows=live.rows,
            table_id=self._plain_table_id(action.table),
        )
        write_bars_receipt(self._store, *key, receipt)
        self._receipts[key] = receipt
        self._proved[key] = _Proved(parts, live.rows, receipt)
        return (
            True,
            f"the bars are verified (hours of feeds: {barred.hours:,}; inserts that made them so: {barred.built:,})",
        )

    def proven_parts(self, action: Action) -> tuple[LivePart, ...]:
        """The parts that this run has proven, after another look whether the bars are there.

        Raises:
            RetentionError: none are proven, or bars are gone.
        """
        proved = self._proved.get((action.table, action.partition))
        if proved is None or self._barring is None:
            raise RetentionError(f"{action.table} {action.partition}: nothing is dropped without its bars")
        parts, receipt = proved.parts, proved.receipt
        # Durable before the first part goes: without it nobody could tell what is left from what came later.
        if read_bars_receipt(self._store, action.table, action.partition) != receipt:
            raise RetentionError(
                f"{action.table} {action.partition}: the receipt of its bars is gone or another's; run it again"
            )
        self._see(self._barring, receipt, action)
        return parts

    def gone(self, action: Action) -> None:
        """Its partition is dropped: the receipt speaks of nothing any more."""
        drop_bars_receipt(self._store, action.table, action.partition)
        self._receipts.pop((action.table, action.partition), None)

    def _see(self, barring: Barring, receipt: BarsReceipt, action: Action) -> None:
        if not barring.still_there(receipt.barred):
            raise RetentionError(
                f"{action.table} {action.partition}: there are fewer bars than were verified "
                f"({receipt.barred.bars:,} of {receipt.barred.rows:,} rows): some were dropped; run it again if the "
                "whole partition is there, or else restore it from the archive first"
            )

    def _is_left_of(self, receipt: BarsReceipt, table: str, parts: tuple[LivePart, ...], rows: int) -> bool:
        """Whether these parts, of so many rows, are what a drop that was interrupted has left, merged or not."""
        if receipt.covers(parts):
            return not receipt.is_of(parts)
        # With all rows there bars are verified anew; a table that was made anew counts its inserts anew.
        return (
            rows < receipt.rows
            and receipt.has_rows_of(parts)
            and receipt.table_id != ""
            and receipt.table_id == self._plain_table_id(table)
        )

    def _plain_table_id(self, table: str) -> str:
        """The UUID of a plain MergeTree; empty for other tables."""
        rows = self._executor.query(
            "SELECT toString(uuid) FROM system.tables WHERE database = {db:String} AND name = {table:String} "
            "AND engine = 'MergeTree' AND uuid != toUUID('00000000-0000-0000-0000-000000000000')",
            {"db": self._database, "table": table},
        )
        return str(rows[0][0]) if rows else ""

    def _active(self, table: str, partition: str) -> tuple[LivePart, ...]:
        return active_parts(self._executor, self._database, table, partition)


def name_of_parts(parts: tuple[LivePart, ...]) -> str:
    """What stands for the rows of these parts: the same for the same parts, another for others."""
    return " ".join(f"{part.name}:{part.content}" for part in parts)
