"""Rows from a dead letter, as the recorder would make them today: by the tables, topics and normalisers in force.

A message goes through decoding, its topic's route and a normaliser again, one that has seen nothing before it, as after
a restart of the service. A row's identity is its old one. Nothing here asks a database.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from recorder.bus.base import BusMessage
from recorder.dead_letters.letter import Identity, Letter
from recorder.dead_letters.origin import OfLine, OfMessage, OfNothing, OfRow, origin_of
from recorder.dead_letters.payload import NotARow, masked_column, row_of, unreadable
from recorder.identity import source_seq
from recorder.normalise.base import BadMessage, Message, NormalisedRow, Normaliser
from recorder.normalise.internal import InternalNormaliser
from recorder.normalise.order_ids import OrderIds
from recorder.service.rows import MessageRows
from recorder.service.topics import TopicMap
from schemas.table import Table

_UNREADABLE = frozenset({"not_json", "not_msgpack"})
_OF_CAPTURES = frozenset({"no_message", "bad_local_time"})
_CAPTURE_LINE = re.compile(rb"\d{9,20} ")


class Fault(NamedTuple):
    """Why no row can be made, or one of several. `reason` is a short code; `table` is empty where none is known."""

    reason: str
    detail: str
    table: str = ""


class TableRow(NamedTuple):
    """A row for a table under its identity. `run_id` is that of rows that name none."""

    table: str
    identity: Identity
    row: Any
    run_id: str


@dataclass(frozen=True)
class Rebuilt:
    """What a letter makes now: rows, and what is wrong with the rest of it."""

    rows: tuple[TableRow, ...] = ()
    faults: tuple[Fault, ...] = ()


@dataclass
class Rebuilder:
    """See the module. `tables` are those of the packs by name, `off` those that are not recorded, and `ignore_unknown`
    those that drop fields they do not have."""

    tables: Mapping[str, Table]
    topics: TopicMap
    open_normaliser: Callable[[str], Normaliser]
    order_ids: OrderIds = field(default_factory=lambda: OrderIds(0))
    off: frozenset[str] = frozenset()
    ignore_unknown: frozenset[str] = frozenset()

    def rebuild(self, letter: Letter) -> Rebuilt:
        """What a letter makes. Never raises: what is wrong with it is a fault."""
        origin = origin_of(letter)
        try:
            if isinstance(origin, OfRow):
                found = self._of_row(letter)
            elif isinstance(origin, OfMessage):
                found = self._of_message(letter, origin)
            elif isinstance(origin, OfLine):
                found = self._of_line(letter, origin)
            else:
                return _fault(origin.reason, origin.why)
        except NotARow as error:
            return _fault(error.reason, str(error), letter.table)
        except Exception as error:  # noqa: BLE001 - a normaliser is a plug-in; one letter costs one letter
            return _fault("internal_error", f"{type(error).__name__}: {error}", letter.table)
        return self._sound(found)

    def _of_row(self, letter: Letter) -> Rebuilt:
        table = self.tables.get(letter.table)
        if table is None:
            return _fault("unknown_table", f"no loaded pack has a table {letter.table!r}", letter.table)
        assert letter.source is not None
        return Rebuilt((TableRow(letter.table, letter.source, row_of(letter, table), letter.run_id),))

    def _of_message(self, letter: Letter, origin: OfMessage) -> Rebuilt:
        assert letter.source is not None
        route = self.topics.route(origin.topic)
        if route.ignored:
            return _fault("ignored_topic", f'the setting "topics" ignores {route.pattern!r}')
        message = BusMessage(
            origin.topic, letter.payload or b"", origin.encoding, letter.dated_ns, letter.source[0], origin.position,
            redelivered=True, correlation_id=letter.correlation_id,
        )  # fmt: skip
        # Anew for each: what it makes must not depend on which others are retried with it.
        rows = MessageRows(
            self.tables,
            origin.bus,
            letter.recorder_run_id,
            open_normaliser=self.open_normaliser,
            order_ids=self.order_ids,
        )
        made = rows.of(message, route)
        faults = []
        if made.letter is not None:
            reason, detail = made.letter.row["reason"], made.letter.row["detail"]
            faults.append(
                Fault(*unreadable(message.payload, reason, detail))
                if reason in _UNREADABLE
                else Fault(reason, detail)
            )
        elif not made.rows:
            faults.append(_makes_none(rows.normalisers.get(route)))
        log = letter.source[0]
        return Rebuilt(
            tuple(
                TableRow(part.table, (log, seq), row, letter.run_id)
                for part in made.rows
                for seq, row in zip(part.seqs, part.rows, strict=True)
            ),
            tuple(faults),
        )

    def _of_line(self, letter: Letter, origin: OfLine) -> Rebuilt:
        assert letter.source is not None
        payload = letter.payload or b""
        if letter.reason in _OF_CAPTURES or _CAPTURE_LINE.match(payload):
            return _of_a_capture(origin)
        try:
            rows = InternalNormaliser().normalise(Message(payload, 0, letter.table))
        except BadMessage as error:
            if error.reason == "no_table":  # as a venue's messages, which are rows only to their normaliser
                return _of_a_capture(origin)
            if error.reason in _UNREADABLE:
                reason, detail = unreadable(payload, error.reason, str(error))
                return _fault(reason, detail, letter.table)
            return _fault(error.reason, str(error), letter.table)
        made = [self._line_row(letter, origin, row) for row in rows]
        if not made:
            return _fault("no_rows", "the line has no row in it", letter.table)
        return Rebuilt(
            tuple(row for row in made if isinstance(row, TableRow)),
            tuple(fault for fault in made if isinstance(fault, Fault)),
        )

    def _line_row(self, letter: Letter, origin: OfLine, row: NormalisedRow) -> TableRow | Fault:
        assert letter.source is not None
        assert isinstance(row.row, dict)
        if row.table not in self.tables:
            return Fault("unknown_table", f"no loaded pack has a table {row.table!r}", row.table)
        if not row.row.get("ts_local"):
            detail = "a row from a file needs ts_local, the time it was received or made, in ns"
            return Fault("no_local_time", detail, row.table)
        identity = (letter.source[0], source_seq(origin.position, row.slot))
        return TableRow(row.table, identity, row.row, letter.run_id)

    def _sound(self, found: Rebuilt) -> Rebuilt:
        """Without rows of tables that are off, and rows that would hold a mask in the place of a value."""
        rows, faults = [], list(found.faults)
        for row in found.rows:
            if row.table in self.off:
                faults.append(Fault("table_off", f'the setting "enabled" of {row.table} is off', row.table))
            elif column := masked_column(_named(row.row, self.tables[row.table]), self.tables[row.table]):
                detail = f"{column}: a secret was cut out of it, and the mask is not its value"
                faults.append(Fault("cut_bytes", detail, row.table))
            else:
                rows.append(row)
        return Rebuilt(tuple(rows), tuple(faults))


def _named(row: Any, table: Table) -> Any:
    """A row by names, as far as it has any."""
    if isinstance(row, msgspec.Struct):
        return msgspec.structs.asdict(row)
    if isinstance(row, tuple):
        return dict(zip((column.name for column in table.columns), row, strict=False))
    return row


def _fault(reason: str, detail: str, table: str = "") -> Rebuilt:
    return Rebuilt((), (Fault(reason, detail, table),))


def _of_a_capture(origin: OfLine) -> Rebuilt:
    return _fault(
        "of_a_capture",
        "a venue's message or line, which needs those before it: run "
        f'"recorder ingest {origin.file}" again, which adds what is not there',
    )


def _makes_none(normaliser: Normaliser | None) -> Fault:
    if normaliser is not None and (left_out := [*normaliser.ignored, *normaliser.filtered]):
        return Fault("left_out", f"it is read now, and leaves no row: {', '.join(sorted(left_out))}")
    return Fault("no_rows", "it is read now, and makes no row without the messages before it")


__all__ = ["Fault", "OfNothing", "Rebuilder", "Rebuilt", "TableRow"]
