"""A bus message to rows, or to a dead letter. One instance serves one subscription, in order, on one thread."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from recorder.bad_rows import BadRow
from recorder.bus.base import BusMessage, Encoding
from recorder.bus.decode import PlainRows, rows_of_message
from recorder.convert import EARLIEST_TIME_NS
from recorder.identity import SLOTS, UNDATED_NS, source_seq
from recorder.log import get_logger
from recorder.normalise.base import BadMessage, Message, NormalisedRow, Normaliser
from recorder.normalise.order_ids import OrderIds
from recorder.normalise.slots import clash
from recorder.own_rows import DEAD_LETTERS, dead_letter_row
from recorder.service.topics import Route
from recorder.source_rows import SourceRow, SourceRows, by_table
from schemas.plain_row import PlainRow
from schemas.table import Table

log = get_logger("recorder.bus")

POSITIONS = 2**64 // SLOTS
"""Positions from here on have no identity of 64 bits."""
NOT_OF_THEIR_ENCODING = frozenset({"not_json", "not_msgpack", "too_large"})
SHOWN_TABLES = 5


class Rows(NamedTuple):
    """What a message made: rows of tables, and the one dead letter for what is wrong with it."""

    rows: Sequence[SourceRows]
    letter: SourceRow | None = None


class MessageRows:
    """See the module. `origin` names the subscription; `open_normaliser` makes one of a name, one a pattern.

    `order_ids` sees the rows it wants on their way, and completes them.
    """

    def __init__(
        self,
        tables: Mapping[str, Table],
        origin: str,
        recorder_run_id: str,
        *,
        open_normaliser: Callable[[str], Normaliser],
        order_ids: OrderIds | None = None,
    ):
        self.normalisers: dict[Route, Normaliser] = {}
        """By route: each keeps the state of its own streams."""
        self.filtered_before: Counter[str] = Counter()
        """What normalisers left out that are no longer here; `ignored_before` as well."""
        self.ignored_before: Counter[str] = Counter()
        self._next_snapshot_ns: dict[Route, int] = {}
        self._columns = {name: _Columns(table) for name, table in tables.items()}
        self._tables = tables
        self._plain: dict[str, PlainRows] = {}
        self._origin = origin
        self._recorder_run_id = recorder_run_id
        self._open_normaliser = open_normaliser
        self._order_ids = order_ids if order_ids is not None else OrderIds(0)

    def of(self, message: BusMessage, route: Route) -> Rows:
        """The rows of a message. Never raises: what is wrong with it makes a dead letter with its bytes."""
        try:
            if not 0 <= message.position < POSITIONS:
                raise BadMessage("bad_position", f"position {message.position} makes no identity of 64 bits")
            if (plain := self._plain_rows(message, route)) is not None:
                return Rows((plain,) if plain.rows else ())
            rows = self._normalised(message, route)
            entries, unknown = self._entries(message, rows)
            letter = self._unplaced(message, unknown, len(rows)) if unknown else None
        except BadMessage as error:
            return Rows((), self._letter(message, error.reason, str(error)))
        except Exception as error:  # noqa: BLE001 - a normaliser is a plug-in; one message costs one message
            detail = f"{type(error).__name__}: {error}"
            return Rows((), self._letter(message, "normaliser_failed", detail))
        return Rows(entries, letter)

    def anew(self) -> MessageRows:
        """The same with normalisers that have seen nothing, as those of a recorder that was restarted."""
        other = copy.copy(self)
        other.normalisers, other._next_snapshot_ns = {}, {}
        other.filtered_before, other.ignored_before = Counter(), Counter()
        return other

    def _entries(
        self, message: BusMessage, rows: Sequence[NormalisedRow]
    ) -> tuple[list[SourceRows], list[NormalisedRow]]:
        """Rows filled in and numbered, and those whose tables are not there."""
        entries: list[SourceRow] = []
        unknown: list[NormalisedRow] = []
        for row in rows:
            columns = self._columns.get(row.table)
            if columns is None:
                unknown.append(row)
                continue
            content = columns.filled(row.row, message.ts_ns, message.correlation_id)
            if self._order_ids.wants(row.table):
                content = self._order_ids.take(row.table, content)
            entries.append(SourceRow(row.table, source_seq(message.position, row.slot), content))
        return by_table(entries), unknown

    def _plain_rows(self, message: BusMessage, route: Route) -> SourceRows | None:
        """Rows of the table that the topic names, filled in and numbered; None of a message that has anything else."""
        if route.normaliser or message.encoding is not Encoding.MSGPACK:
            return None
        table = route.table or message.topic
        plain = self._plain.get(table)
        if plain is None:
            if table not in self._tables:
                return None
            plain = self._plain[table] = PlainRows(self._tables[table])
        rows: Sequence[Any] | None = plain.of(message.payload)
        if rows is None:
            return None
        self._columns[table].fill_in(rows, message.ts_ns, message.correlation_id)
        if self._order_ids.wants(table):
            rows = [self._order_ids.take(table, row) for row in rows]
        first = source_seq(message.position, 0)
        return SourceRows(table, range(first, first + len(rows)), rows)

    def snapshots(self, now_ns: int) -> list[NormalisedRow]:
        """Rows that normalisers make by the clock, of those for which it is time."""
        rows: list[NormalisedRow] = []
        for route, normaliser in self.normalisers.items():
            interval_s = getattr(normaliser, "snapshot_interval_s", None)
            if not interval_s:
                continue
            interval_ns = int(interval_s * 1e9)
            # One that is further away than an interval is of a clock that was set back since.
            if now_ns < self._next_snapshot_ns.get(route, 0) <= now_ns + interval_ns:
                continue
            self._next_snapshot_ns[route] = now_ns + interval_ns
            try:
                rows += [
                    NormalisedRow(*row)
                    for row in normaliser.snapshots(now_ns)  # type: ignore[attr-defined]
                ]
            except Exception as error:
                log.error(
                    "a normaliser's snapshot failed", topics=route.pattern, error=repr(error), exc_info=True
                )
        return rows

    def keep(self, routes: Collection[Route]) -> None:
        """Let go of the normalisers of other routes: nothing comes to them any more. What they counted stays."""
        for route in self.normalisers.keys() - set(routes):
            gone = self.normalisers.pop(route)
            self._next_snapshot_ns.pop(route, None)
            self.filtered_before.update(gone.filtered)
            self.ignored_before.update(gone.ignored)

    def _normalised(self, message: BusMessage, route: Route) -> Sequence[NormalisedRow]:
        if not route.normaliser:
            return rows_of_message(message, route.table or None)
        if message.encoding is not Encoding.JSON:
            raise BadMessage(
                "not_json", f"a normaliser reads a venue's own bytes, and this message is {message.encoding}"
            )
        normaliser = self.normalisers.get(route)
        if normaliser is None:
            normaliser = self.normalisers[route] = self._open_normaliser(route.normaliser)
        rows = normaliser.normalise(Message(message.payload, message.ts_ns, message.topic, message.position))
        if fault := clash(rows):
            raise BadMessage("bad_slots", fault)
        return rows

    def _unplaced(self, message: BusMessage, rows: Sequence[NormalisedRow], of: int) -> SourceRow:
        names = sorted({row.table for row in rows})
        shown = ", ".join(map(repr, names[:SHOWN_TABLES])) + (", …" if len(names) > SHOWN_TABLES else "")
        detail = (
            f"{len(rows)} of {of} rows are for tables that no loaded pack has: {shown}; map the topic in the "
            'setting "topics", or give each row a "table" key'
        )
        return self._letter(message, "unknown_table", detail, rows[0].slot)

    def _letter(self, message: BusMessage, reason: str, detail: str, slot: int = 0) -> SourceRow:
        seq = source_seq(message.position % POSITIONS, slot)
        if reason in NOT_OF_THEIR_ENCODING:
            payload_format = "text" if message.encoding is Encoding.JSON else "binary"
        else:
            payload_format = str(message.encoding)
        bad = BadRow(
            reason, detail, message.log, seq, message.payload, payload_format, message.correlation_id
        )
        place = f"{self._origin} {message.topic} {message.position}"
        letter = dead_letter_row(self._recorder_run_id, "", bad, place)
        # The same at every delivery, so that the letter is kept once.
        letter["ts_local"] = message.ts_ns if EARLIEST_TIME_NS <= message.ts_ns < 2**63 else UNDATED_NS
        return SourceRow(DEAD_LETTERS, seq, letter)


class _Columns:
    """What a bus message fills in where a row of the table leaves it out."""

    def __init__(self, table: Table):
        names = [column.name for column in table.columns]
        self._ts_local = names.index("ts_local")
        self._correlation = names.index("correlation_id") if "correlation_id" in names else None

    def filled(self, row: Any, ts_ns: int, correlation_id: str | None) -> Any:
        """The row with `ts_local` and `correlation_id`; what it says itself stands."""
        if self._correlation is None:
            correlation_id = None
        if type(row) is dict:
            if _unset(row.get("ts_local")):
                row["ts_local"] = ts_ns
            if correlation_id is not None and row.get("correlation_id") is None:
                row["correlation_id"] = correlation_id
            return row
        if isinstance(row, tuple):
            return self._filled_tuple(row, ts_ns, correlation_id)
        if isinstance(row, Mapping):
            return self.filled(dict(row), ts_ns, correlation_id)
        changes: dict[str, Any] = {}
        if _unset(getattr(row, "ts_local", None)):
            changes["ts_local"] = ts_ns
        if correlation_id is not None and getattr(row, "correlation_id", None) is None:
            changes["correlation_id"] = correlation_id
        return msgspec.structs.replace(row, **changes) if changes else row

    def fill_in(self, rows: Sequence[PlainRow], ts_ns: int, correlation_id: str | None) -> None:
        """The same for rows that are the caller's own, in place."""
        for row in rows:
            if not row.ts_local and _unset(row.ts_local):  # type: ignore[attr-defined]
                row.ts_local = ts_ns  # type: ignore[attr-defined]
        if correlation_id is not None and self._correlation is not None:
            for row in rows:
                if row.correlation_id is None:  # type: ignore[attr-defined]
                    row.correlation_id = correlation_id  # type: ignore[attr-defined]

    def _filled_tuple(self, row: tuple[Any, ...], ts_ns: int, correlation_id: str | None) -> tuple[Any, ...]:
        if len(row) <= max(self._ts_local, self._correlation or 0):
            return row  # too short to be one: the builder says so
        lacks_correlation = (
            correlation_id is not None and self._correlation is not None and row[self._correlation] is None
        )
        if not lacks_correlation and not _unset(row[self._ts_local]):
            return row
        values = list(row)
        if _unset(values[self._ts_local]):
            values[self._ts_local] = ts_ns
        if lacks_correlation and self._correlation is not None:
            values[self._correlation] = correlation_id
        return tuple(values)


def _unset(ts_local: Any) -> bool:
    return ts_local is None or (type(ts_local) is int and ts_local == 0)
