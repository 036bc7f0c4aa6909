"""Holds as a database keeps them: a row each time something is held or lifted, which nothing ever changes.

A hold is in force from its row on until a later row lifts its name. Two holds of one name, written at the same time,
are both in force: only lifting ends one. Where the table of holds should be there and is not, that is an error and
never "no holds": rows could go that somebody held.

What a hold means for partitions is `retention.holds`; that its tables lose their TTL is the schema manager's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from retention.errors import HoldsLost
from retention.holds import Hold
from schemas.executor import SqlExecutor
from schemas.history import DONE, MIGRATIONS_TABLE
from schemas.quote import quote_moment, quote_name, quote_text

HOLDS_TABLE = "retention_holds"
HOLD = "hold"
LIFT = "lift"
_MIGRATION = ("core", "retention")


@dataclass(frozen=True, kw_only=True)
class HoldRow:
    """One row: at `ts_ns`, `person` (as database user `db_user`) held or lifted, as `event` says.

    `tables` are in order of their names; empty: every table. Times as a `Hold` has them; a lift has none.
    """

    name: str
    event: str = HOLD
    tables: tuple[str, ...] = ()
    since_ns: int | None = None
    until_ns: int | None = None
    reason: str = ""
    person: str = ""
    db_user: str = ""
    ts_ns: int = 0

    def holds(self) -> list[Hold]:
        """One hold a table, or one of every table.

        Raises:
            PolicyError: the time is empty.
        """
        return [
            Hold(
                name=self.name,
                table=table,
                since_ns=self.since_ns,
                until_ns=self.until_ns,
                reason=self.reason,
            )
            for table in self.tables or (None,)
        ]

    def says_the_same(self, other: HoldRow) -> bool:
        """Whether both hold the same rows under the same name."""
        return (self.name, self.event, self.tables, self.since_ns, self.until_ns) == (
            other.name,
            other.event,
            other.tables,
            other.since_ns,
            other.until_ns,
        )


def in_force(rows: Iterable[HoldRow]) -> list[HoldRow]:
    """The rows of holds that no later row lifts, oldest first; of rows of the same moment the hold counts."""
    rows = sorted(rows, key=lambda row: row.ts_ns)
    lifted_ns = {row.name: row.ts_ns for row in rows if row.event == LIFT}
    return [row for row in rows if row.event != LIFT and row.ts_ns >= lifted_ns.get(row.name, row.ts_ns)]


def holds_of(rows: Iterable[HoldRow]) -> list[Hold]:
    """The holds in force, as `retention.due` takes them."""
    return [hold for row in in_force(rows) for hold in row.holds()]


def is_there(executor: SqlExecutor, database: str) -> bool:
    """Whether the database has the table of holds.

    Raises:
        HoldsLost: it was made once and is gone.
    """
    rows = executor.query(
        "SELECT name FROM system.tables WHERE database = {db:String} AND name IN ({a:String}, {b:String})",
        {"db": database, "a": HOLDS_TABLE, "b": MIGRATIONS_TABLE},
    )
    names = {str(row[0]) for row in rows}
    if HOLDS_TABLE in names:
        return True
    if MIGRATIONS_TABLE in names:
        pack, name = _MIGRATION
        made = executor.query(
            f"SELECT count() FROM {quote_name(database)}.{MIGRATIONS_TABLE} "
            "WHERE pack = {pack:String} AND name = {name:String} AND state = {done:String}",
            {"pack": pack, "name": name, "done": DONE},
        )
        if int(made[0][0]):
            raise HoldsLost(
                f"database {database}: the table {HOLDS_TABLE} was made and is gone, so nobody knows what is held; "
                f"expected it beside {MIGRATIONS_TABLE}. Put it back (UNDROP TABLE, or a backup) before anything is "
                "migrated or dropped"
            )
    return False


def read_holds(executor: SqlExecutor, database: str) -> list[HoldRow]:
    """Every row of holding and lifting, oldest first; none where the database was never told to keep them.

    Raises:
        HoldsLost: they were kept and are gone.
    """
    if not is_there(executor, database):
        return []
    rows = executor.query(
        "SELECT name, event, tables, toUnixTimestamp64Nano(ts_since), toUnixTimestamp64Nano(ts_until), reason, "
        f"person, db_user, toUnixTimestamp64Nano(ts) FROM {_name(database)} ORDER BY ts, name"
    )
    return [
        HoldRow(
            name=str(name),
            event=str(event),
            tables=tuple(sorted(map(str, tables))),
            since_ns=None if since is None else int(since),
            until_ns=None if until is None else int(until),
            reason=str(reason),
            person=str(person),
            db_user=str(db_user),
            ts_ns=int(ts),
        )
        for name, event, tables, since, until, reason, person, db_user, ts in rows
    ]


def held_tables(executor: SqlExecutor, database: str, tables: Collection[str]) -> frozenset[str]:
    """Which of these tables a hold in force concerns, at any time: they carry no TTL.

    Raises:
        HoldsLost: as `read_holds`.
    """
    holds = holds_of(read_holds(executor, database))
    return frozenset(table for table in tables if any(hold.concerns(table) for hold in holds))


def append(executor: SqlExecutor, database: str, row: HoldRow) -> None:
    """Write a row; it is on disk when this returns. Time and database user are the server's.

    The time is later than that of every row of the name, however the server's clock was set.
    """
    texts = ", ".join(map(quote_text, row.tables))
    values = (
        quote_text(row.name),
        quote_text(row.event),
        f"CAST([{texts}] AS Array(String))",
        _moment(row.since_ns),
        _moment(row.until_ns),
        quote_text(row.reason),
        quote_text(row.person),
        "currentUser()",
        "greatest(now64(9, 'UTC'), max(ts) + toIntervalNanosecond(1))",
    )
    # INSERT ... SELECT is never asynchronous: when it returns, the row is there.
    executor.command(
        f"INSERT INTO {_name(database)} (name, event, tables, ts_since, ts_until, reason, person, db_user, ts) "
        f"SELECT {', '.join(values)} FROM {_name(database)} WHERE name = {quote_text(row.name)}"
    )


def running_merges(executor: SqlExecutor, database: str, tables: Sequence[str]) -> frozenset[tuple[str, str]]:
    """The merges that run in these tables: table and the part that each makes."""
    rows = executor.query(
        "SELECT table, result_part_name FROM system.merges WHERE database = {db:String}", {"db": database}
    )
    return frozenset((str(table), str(part)) for table, part in rows if table in tables)


def _moment(ns: int | None) -> str:
    return "NULL" if ns is None else quote_moment(ns)


def _name(database: str) -> str:
    return f"{quote_name(database)}.{HOLDS_TABLE}"
