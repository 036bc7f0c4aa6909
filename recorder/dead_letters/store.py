"""Where dead letters are found, and which of the rows they are about are in their tables by now.

A letter is *open* until its row's identity is in the table it was meant for. Nothing is written to say so: the table is
asked, each time. Questions go in pieces of at most `PAGE_LETTERS` letters and `READ_BYTES` of payload, so neither this
process nor the database holds more than that at once, however many letters there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from recorder.dead_letters.letter import COLUMNS, Identity, Letter, letters_of
from recorder.dead_letters.origin import OfRow, origin_of
from recorder.own_rows import DEAD_LETTERS
from schemas.quote import quote_moment, quote_name, quote_text

Ask = Callable[[str], Awaitable[pa.Table]]
"""Runs a statement and returns its answer."""

PAGE_LETTERS = 1_000
READ_LETTERS = 256
READ_BYTES = 16 << 20
"""Payloads read at once, but for a single one that is larger."""


@dataclass(frozen=True)
class Filter:
    """Which letters: all where nothing is said. Times are `ts_local` in ns, `until_ns` is excluded; `origin` is a part
    of it; `table` is empty for messages and None for any."""

    table: str | None = None
    reason: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    origin: str | None = None
    ids: tuple[Identity, ...] = ()
    of_rows: bool | None = None
    """Only those of one row that is whole (True), or only those of messages and of lines of files (False)."""

    @property
    def sql(self) -> str:
        """The condition."""
        terms = []
        if self.table is not None:
            terms.append(f"table_name = {quote_text(self.table)}")
        if self.reason is not None:
            terms.append(f"reason = {quote_text(self.reason)}")
        if self.since_ns is not None:
            terms.append(f"ts_local >= {quote_moment(self.since_ns)}")
        if self.until_ns is not None:
            terms.append(f"ts_local < {quote_moment(self.until_ns)}")
        if self.origin is not None:
            terms.append(f"position(origin, {quote_text(self.origin)}) > 0")
        if self.of_rows is not None:
            others = "(table_name = '' OR match(origin, ', (line|row) [0-9,]+$'))"
            terms.append(f"NOT {others}" if self.of_rows else others)
        if self.ids:
            terms.append(f"(_log, _seq) IN ({_tuples(self.ids)})")
        return " AND ".join(terms) or "1"


@dataclass(frozen=True)
class Group:
    """The letters of one table and reason; `open` are those of which something is not there."""

    table: str
    reason: str
    letters: int
    open: int
    first_ns: int
    last_ns: int


class Store:
    """See the module. `ask` reaches a database whose unqualified names are in `database`."""

    def __init__(self, ask: Ask, database: str):
        self._ask = ask
        self._database = quote_name(database)
        self._database_text = quote_text(database)
        self._live: frozenset[str] | None = None

    # -- letters --------------------------------------------------------------------------------------------------

    async def pages(self, which: Filter, *, newest_first: bool = True) -> AsyncIterator[list[Letter]]:
        """The letters, without payloads, a page at a time in the order of their time."""
        order, beyond = ("DESC", "<") if newest_first else ("ASC", ">")
        after = ""
        while True:
            answer = await self._ask(
                f"SELECT {', '.join(COLUMNS)} FROM {self._table(DEAD_LETTERS)} WHERE {which.sql}{after} "
                f"ORDER BY ts_local {order}, _log {order}, _seq {order} LIMIT {PAGE_LETTERS}"
            )
            page = list(letters_of(answer))
            if page:
                yield page
            if len(page) < PAGE_LETTERS:
                return
            last = page[-1]
            after = f" AND (ts_local, _log, _seq) {beyond} ({quote_moment(last.ts_local)}, {last.id[0]}, {last.id[1]})"

    async def read(self, letters: Iterable[Letter]) -> AsyncIterator[list[Letter]]:
        """The letters with their payloads, some at a time, in the order given."""
        for part in _portions(letters):
            first, last = (pick(letter.ts_local for letter in part) for pick in (min, max))
            answer = await self._ask(
                f"SELECT {', '.join(COLUMNS)}, payload FROM {self._table(DEAD_LETTERS)} "
                f"WHERE ts_local BETWEEN {quote_moment(first)} AND {quote_moment(last)} "
                f"AND (_log, _seq) IN ({_tuples([letter.id for letter in part])})"
            )
            found = {letter.id: letter for letter in letters_of(answer)}
            yield [found[letter.id] for letter in part if letter.id in found]

    # -- rows that are there --------------------------------------------------------------------------------------

    async def present(self, rows: Mapping[str, Sequence[Identity]]) -> dict[str, set[Identity]]:
        """By table, which of the rows are in it; none are in a table that is not there."""
        found: dict[str, set[Identity]] = {}
        for table, identities in rows.items():
            there = found.setdefault(table, set())
            if table not in await self._live_tables():
                continue
            for start in range(0, len(identities), PAGE_LETTERS):
                there |= await self._present(table, identities[start : start + PAGE_LETTERS])
        return found

    async def _present(self, table: str, identities: Sequence[Identity]) -> set[Identity]:
        # By log first, which is nearly always one value a part; all of time, since a letter need not know its row's.
        logs = ", ".join(str(log) for log in sorted({log for log, _ in identities}))
        answer = await self._ask(
            f"SELECT DISTINCT _log, _seq FROM {self._table(table)} "
            f"WHERE _log IN ({logs}) AND (_log, _seq) IN ({_tuples(identities)})"
        )
        return set(zip(answer["_log"].to_pylist(), answer["_seq"].to_pylist(), strict=True))

    async def closed(self, letters: Iterable[Letter]) -> set[Identity]:
        """Those of the letters of rows whose row is in its table. Nothing is said of the others: see `examine`."""
        rows: dict[str, list[Identity]] = {}
        some = [letter for letter in letters if isinstance(origin_of(letter), OfRow)]
        for letter in some:
            if letter.source is not None:
                rows.setdefault(letter.table, []).append(letter.source)
        there = await self.present(rows)
        return {letter.id for letter in some if letter.source in there[letter.table]}

    # -- summary --------------------------------------------------------------------------------------------------

    async def summary(self, which: Filter) -> list[Group]:
        """The letters of rows by table and reason, counted by the database."""
        which = replace(which, of_rows=True)
        letters, live = self._table(DEAD_LETTERS), await self._live_tables()
        answer = await self._ask(f"SELECT DISTINCT table_name FROM {letters} WHERE {which.sql}")
        groups: list[Group] = []
        for table in sorted(_texts(answer["table_name"])):
            of_table = f"({which.sql}) AND table_name = {quote_text(table)}"
            closed = "0"
            if table in live:
                # The set is as large as the table has letters, never as its rows.
                wanted = (
                    f"SELECT assumeNotNull(source_log), assumeNotNull(source_seq) FROM {letters} "
                    f"WHERE {of_table} AND source_log IS NOT NULL AND source_seq IS NOT NULL"
                )
                there = f"SELECT _log, _seq FROM {self._table(table)} WHERE (_log, _seq) IN ({wanted})"
                closed = (
                    "source_log IS NOT NULL AND source_seq IS NOT NULL AND "
                    f"(assumeNotNull(source_log), assumeNotNull(source_seq)) IN ({there})"
                )
            answer = await self._ask(
                f"SELECT reason, count() AS letters, countIf({closed}) AS closed, "
                "toUnixTimestamp64Nano(min(ts_local)) AS first_ns, toUnixTimestamp64Nano(max(ts_local)) AS last_ns "
                f"FROM {letters} WHERE {of_table} GROUP BY reason ORDER BY reason"
            )
            counts = (answer[name].to_pylist() for name in ("letters", "closed", "first_ns", "last_ns"))
            groups += [
                Group(table, reason, count, count - closed_count, first_ns, last_ns)
                for reason, count, closed_count, first_ns, last_ns in zip(
                    _texts(answer["reason"]), *counts, strict=True
                )
            ]
        return groups

    async def _live_tables(self) -> frozenset[str]:
        if self._live is None:
            answer = await self._ask(f"SELECT name FROM system.tables WHERE database = {self._database_text}")
            self._live = frozenset(_texts(answer["name"]))
        return self._live

    def _table(self, name: str) -> str:
        return f"{self._database}.{quote_name(name)}"


def _portions(letters: Iterable[Letter]) -> Iterator[list[Letter]]:
    """Letters in parts that can be read at once."""
    part: list[Letter] = []
    size = 0
    for letter in letters:
        if part and (len(part) >= READ_LETTERS or size + letter.payload_bytes > READ_BYTES):
            yield part
            part, size = [], 0
        part.append(letter)
        size += letter.payload_bytes
    if part:
        yield part


def _tuples(identities: Iterable[Identity]) -> str:
    return ", ".join(f"(toUInt64({log}), toUInt64({seq}))" for log, seq in identities)


def _texts(column: pa.ChunkedArray) -> list[str]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return [value.decode("utf-8", "backslashreplace") for value in column.cast(pa.binary()).to_pylist()]


def blocking(query: Callable[[str], pa.Table]) -> Ask:
    """A question that blocks, for where nothing else runs meanwhile."""

    async def ask(sql: str) -> pa.Table:
        await asyncio.sleep(0)
        return query(sql)

    return ask
