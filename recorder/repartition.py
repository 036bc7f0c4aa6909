"""Moves a table's rows under another partition key: the same days, parted into other symbol groups, or into none.

The way of it, under the lock of migrations. A run that is killed anywhere is run again, and goes on:

1. a table of the wanted key is made beside the other, `<table>_repartition`, which syncs what it writes;
2. day by day, rows are copied into it, until it has the same rows as the table, by a hash of every column of every row;
3. `EXCHANGE TABLES` swaps the names, in one step for whoever reads or writes;
4. rows that came to the old table since they were compared are inserted where its others are, by identity;
5. the old table is dropped, when none of its rows lacks.

Which of the two tables is the copy stands in its comment, by the other's number: it goes with the table wherever names
go. Nothing else is ever dropped or emptied.

Nobody may write to the table meanwhile. Step 4 is for who does all the same: a row that is sent again in that moment
could come twice. Views that run at insert, and replicated tables, are refused.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from recorder.copying.digest import row_hash_sql
from schemas.check import REPARTITION_SUFFIX
from schemas.errors import MigrationError
from schemas.executor import SqlExecutor
from schemas.live import LiveTable, read_tables, ttl_of
from schemas.policy import TablePolicy
from schemas.quote import quote_name, quote_text
from schemas.render import FSYNC_SETTINGS, is_cut_by, partition_expression

SLICE_ROWS = 10_000_000
"""A day of more rows is copied in several inserts, by its hours."""
KNOWN_ROWS = 4_000_000
"""Identities that are held in memory to look for late rows."""
ROUNDS = 4
QUIET_S, ENDED_S = 2.0, 60.0
ROOM = 1.1
_COPY = "copy of "
_MARK = re.compile(
    _COPY + r"([0-9a-f-]{36}) for its partitions;(?: days ([0-9a-f:,]*);)? before: (.*)", re.DOTALL
)
_NUMBER = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_DERIVED = ("ALIAS", "EPHEMERAL", "MATERIALIZED")
_DAY = "splitByChar('-', _partition_id)[1]"
_HOURS = 24


class CannotRepartition(MigrationError):  # noqa: N818 - says what is the case
    """The table's partitions are not changed, or not wholly; the message says why and what to do."""


@dataclass(frozen=True)
class Look:
    """A table as it is, and what is to become of it.

    `present` and `wanted` are partition keys. `unfinished`: an earlier run was interrupted, and this one goes on.
    `late` of it: the names are swapped already.
    """

    table: str
    present: str
    wanted: str
    rows: int
    bytes_on_disk: int
    partitions: int
    unfinished: bool = False
    late: bool = False

    @property
    def due(self) -> bool:
        """Whether there is something to do."""
        return self.unfinished or self.present != self.wanted


@dataclass(frozen=True)
class Moved:
    """What was done: rows that were copied by this run, and those of them that came meanwhile.

    `doubled` of these are in the table twice, since their recorder sent them again in that moment.
    """

    table: str
    copied: int
    late: int
    doubled: int = 0


@dataclass(frozen=True)
class _There:
    """A table as the server has it, with what `LiveTable` leaves out; `number` is its own, whatever it is called."""

    live: LiveTable
    comment: str
    engine: str
    number: str
    created: str

    @property
    def copy_of(self) -> str:
        """The number of the table that this one was made as the copy of; empty for none."""
        found = _MARK.fullmatch(self.comment)
        return found[1] if found else ""

    @property
    def own_comment(self) -> str:
        """The comment without the mark."""
        found = _MARK.fullmatch(self.comment)
        return found[3] if found else self.comment

    @property
    def copied(self) -> dict[str, _Digest]:
        """What was copied into this table, by day, when all of it was compared."""
        found = _MARK.fullmatch(self.comment)
        days = (one.split(":") for one in ((found and found[2]) or "").split(",") if one)
        return {day: _Digest(int(rows, 16), str(int(total, 16))) for day, rows, total in days}

    @property
    def inside(self) -> str:
        """Its columns, indices and all else within the brackets."""
        return self.created[self.created.find("(") :].partition(f" ENGINE = {self.engine}")[0]


@dataclass(frozen=True)
class _Digest:
    rows: int = 0
    total: str = "0"


def _mark(number: str, comment: str, days: Mapping[str, _Digest]) -> str:
    listed = ",".join(f"{day}:{sums.rows:x}:{int(sums.total):x}" for day, sums in sorted(days.items()))
    return f"{_COPY}{number} for its partitions;{f' days {listed};' if days else ''} before: {comment}"


class Repartition:
    """One table's way to the partition key that its policy says; `table` is the table or its tier.

    `renew` is called before each statement that changes something, and raises where the lock is lost. `on_rows` is told
    of rows that are compared or copied. `embedded`: nobody else can write to the database.
    """

    def __init__(
        self,
        executor: SqlExecutor,
        database: str,
        table: str,
        policy: TablePolicy,
        *,
        renew: Callable[[], None] = lambda: None,
        on_rows: Callable[[int], None] = lambda _: None,
        embedded: bool = False,
        quiet_s: float = QUIET_S,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._executor, self._database, self._table, self._policy = executor, database, table, policy
        self._renew, self._on_rows, self._embedded = renew, on_rows, embedded
        self._quiet_s, self._sleep = quiet_s, sleep
        self._wanted = partition_expression(policy)
        self._beside = table + REPARTITION_SUFFIX
        self._log_comment = f"repartition {database}.{table}"
        self._prints: dict[str, frozenset[frozenset[str]]] = {}
        """Of each day that was found equal: the parts that both tables had before."""
        self._digests: dict[str, _Digest] = {}
        """What these days come to."""
        self._known: set[str] = set()
        """Settings of the server, once they were asked for."""
        self._copied = self._late = self._doubled = 0

    def look(self) -> Look | None:
        """What there is to do; None where there is no such table. Changes nothing.

        Raises:
            CannotRepartition: the table cannot be parted so, or there is something else of the other table's name.
        """
        there, beside = self._both()
        return None if there is None else self._look(there, beside)

    def _look(self, there: _There, beside: _There | None) -> Look:
        late = beside is not None and there.copy_of == beside.number
        if beside is not None or there.live.partition_key != self._wanted:
            self._see(there, beside)
            self._see_parts(self._beside if late else self._table)
        (sums,) = self._executor.query(
            "SELECT sum(rows), sum(bytes_on_disk), uniqExact(partition_id) FROM system.parts "
            "WHERE database = {db:String} AND table = {table:String} AND active",
            {"db": self._database, "table": self._table},
        )
        rows, bytes_on_disk, partitions = map(int, sums)
        return Look(
            table=self._table,
            present=there.live.partition_key,
            wanted=self._wanted,
            rows=rows,
            bytes_on_disk=bytes_on_disk,
            partitions=partitions,
            unfinished=beside is not None or bool(there.copy_of),
            late=late,
        )

    def run(self) -> Moved:
        """Do it; where an earlier run was interrupted, go on.

        Raises:
            CannotRepartition: as `look`; rows come while they are copied; or the disk has no room for both tables.
        """
        self._end_earlier()
        while True:
            there, beside = self._both()
            if there is None:
                break
            look = self._look(there, beside)
            if beside is not None and look.late:
                self._finish(there, beside)
            elif look.present == look.wanted:
                if beside is None:
                    break
                self._drop_beside()  # it was to have other groups, and is not to have them any more
            else:
                self._copy(there, beside, look)
        if there is not None and there.copy_of:
            self._comment(there.own_comment)
        return Moved(self._table, self._copied, self._late, self._doubled)

    # -- what is there --

    def _both(self) -> tuple[_There | None, _There | None]:
        """The table, and the one beside it."""
        live = read_tables(self._executor, self._database)
        rows = self._executor.query(
            "SELECT name, comment, engine_full, data_paths[1], create_table_query FROM system.tables "
            "WHERE database = {db:String} AND name IN ({table:String}, {beside:String})",
            {"db": self._database, "table": self._table, "beside": self._beside},
        )
        # The table's own number is not told of some embedded databases; its folder has it.
        found = {
            str(name): _There(
                live[name], str(comment), str(engine), ["", *_NUMBER.findall(str(path))][-1], str(sql)
            )
            for name, comment, engine, path, sql in rows
            if name in live
        }
        return found.get(self._table), found.get(self._beside)

    def _see(self, there: _There, beside: _There | None) -> None:
        live = there.live
        if live.engine != "MergeTree":
            raise CannotRepartition(
                f"{self._database}.{self._table}: has the engine {live.engine}, and only a MergeTree's partitions are "
                "changed; nothing was done"
            )
        if not is_cut_by(live.partition_key, self._policy):
            raise CannotRepartition(
                f"{self._database}.{self._table}: its partition key is {live.partition_key or 'none'}, expected "
                f"{self._wanted} but for the symbol groups; only these are changed, so drain and rebuild it"
            )
        if not there.number:
            raise CannotRepartition(
                f"database {self._database}: its tables cannot swap names in one step; expected the engine Atomic"
            )
        if live.views:
            raise CannotRepartition(
                f"{self._database}.{self._table}: rows inserted into it go through the view {live.views[0]}; drop it, "
                "or make it a refreshable one, and run this again"
            )
        if live.row_policies:
            raise CannotRepartition(
                f"{self._database}.{self._table}: has the row policy {live.row_policies[0]}, and rows that are not "
                "shown would not be copied; drop it, or grant this user all rows in another way, and run this again"
            )
        if beside is not None and beside.copy_of != there.number and there.copy_of != beside.number:
            raise CannotRepartition(
                f"{self._database}.{self._beside}: is there and was not made for the {self._table} that is there now; "
                "look what it is, rename or drop it, and run this again"
            )

    def _see_parts(self, old: str) -> None:
        """What goes with the old table at the end must be nothing that was not copied.

        Raises:
            CannotRepartition: it has detached parts, or partitions whose ids are no days.
        """
        of = {"db": self._database, "table": old}
        where = "WHERE database = {db:String} AND table = {table:String}"
        (detached,) = self._executor.query(
            f"SELECT count(), min(name) FROM system.detached_parts {where}", of
        )
        if int(detached[0]):
            raise CannotRepartition(
                f"{self._database}.{old}: has {int(detached[0]):,} detached parts, such as {detached[1]}, which would "
                "go with the table; attach them (ALTER TABLE … ATTACH PART), move them elsewhere or drop them (… DROP "
                "DETACHED PART), and run this again"
            )
        strange = self._executor.query(
            f"SELECT partition_id FROM system.parts {where} AND active "
            "AND NOT match(partition_id, '^[0-9]{6,8}(-[0-9]+)?$') LIMIT 1",
            of,
        )
        if strange:
            raise CannotRepartition(
                f"{self._database}.{old}: has the partition {strange[0][0]}, expected ids such as 20240808 or "
                "20240808-3; another key than symbol groups is not changed, so drain and rebuild it"
            )

    # -- the copy --

    def _copy(self, there: _There, beside: _There | None, look: Look) -> None:
        if there.copy_of:
            self._comment(there.own_comment)
        if beside is not None and not self._is_like(beside, there):
            self._drop_beside()  # another number of groups is wanted now, or the table was migrated
            beside = None
        self._see_room(look)
        self._see_quiet()
        if beside is None:
            self._make(there)
        columns = self._stored(there.live)
        self._see_all(self._days())
        for _ in range(ROUNDS):
            changed = [day for day in self._days() if not self._is_alike(day, columns)]
            if not changed:
                break
            for day in changed:
                self._copy_day(day, columns)
        else:
            raise CannotRepartition(
                f"{self._database}.{self._table}: rows came to {', '.join(changed[:3])} each time that it was copied; "
                "stop whoever writes to it and run this again, it goes on from here"
            )
        # Whoever goes on from here must not take what retention dropped since for rows that came late.
        days = {day: sums for day, sums in self._digests.items() if sums.rows}
        self._comment(_mark(there.number, there.own_comment, days), self._beside)
        now, copy = self._both()
        if now is None or copy is None or not self._is_like(copy, now):
            raise CannotRepartition(
                f"{self._database}.{self._table}: was altered while it was copied; run this again, it begins anew"
            )
        self._command(f"EXCHANGE TABLES {self._name(self._table)} AND {self._name(self._beside)}")

    def _is_like(self, beside: _There, there: _There) -> bool:
        """Whether the table beside is as one would be made now: a migration may have changed more than columns."""
        return (beside.inside, beside.engine) == (there.inside, self._engine(there))

    def _make(self, there: _There) -> None:
        """The table beside. It syncs what it writes: the old one's rows are on disk, and go when these are there."""
        mark = _mark(there.number, there.own_comment, {})
        self._command(
            f"CREATE TABLE {self._name(self._beside)} AS {self._name(self._table)} ENGINE = {self._engine(there)} "
            f"COMMENT {quote_text(mark)}"
        )
        _, made = self._both()
        if made is None or made.live.partition_key != self._wanted:
            raise CannotRepartition(
                f"{self._database}.{self._beside}: the server made it with the partition key "
                f"{made.live.partition_key if made else 'of no table'}, expected {self._wanted}; nothing was copied"
            )

    def _engine(self, there: _There) -> str:
        """The engine of the table beside."""
        engine = there.engine
        if ttl := ttl_of(engine):
            engine = engine.replace(f" TTL {ttl}", "", 1)  # nothing may go from it while rows are compared
        engine = engine.replace(
            f"PARTITION BY {there.live.partition_key} ", f"PARTITION BY {self._wanted} ", 1
        )
        lacking = [name for name in FSYNC_SETTINGS if name not in there.live.settings]
        if lacking:
            engine += f"{',' if ' SETTINGS ' in engine else ' SETTINGS'} " + ", ".join(
                f"{name} = 1" for name in lacking
            )
        return engine

    def _days(self) -> list[str]:
        """The days of both tables."""
        rows = self._executor.query(
            "SELECT DISTINCT splitByChar('-', partition_id)[1] FROM system.parts WHERE database = {db:String} "
            "AND table IN ({table:String}, {beside:String}) AND active",
            {"db": self._database, "table": self._table, "beside": self._beside},
        )
        return sorted(str(row[0]) for row in rows)

    def _is_alike(self, day: str, columns: dict[str, str]) -> bool:
        """Whether both tables have the same rows of a day; compared again only where a part is new."""
        prints = self._prints_of(day)
        if self._prints.get(day) == prints:
            return True
        if self._count(self._table, day) != self._count(self._beside, day):
            return False
        here, there = (self._digest(table, day, columns) for table in (self._table, self._beside))
        if here == there:
            self._on_rows(here.rows)
            self._prints[day], self._digests[day] = prints, here
        return here == there

    def _see_all(self, days: Iterable[str]) -> None:
        """Rows that this user is not shown would not be copied, and then go with the old table."""
        for day in days:
            (sums,) = self._executor.query(
                "SELECT sum(if(has_lightweight_delete, 0, rows)) FROM system.parts WHERE database = {db:String} "
                "AND table = {table:String} AND splitByChar('-', partition_id)[1] = {day:String} AND active",
                {"db": self._database, "table": self._table, "day": day},
            )
            if int(sums[0]) > (shown := self._digest(self._table, day, {"_seq": "UInt64"}).rows):
                raise CannotRepartition(
                    f"{self._database}.{self._table}: the parts of {day} have {int(sums[0]):,} rows, and this "
                    f"database user is shown {shown:,}; nothing was done. Is there a filter in the user's settings, or "
                    "were rows deleted as patches (ALTER TABLE … APPLY PATCHES)?"
                )

    def _copy_day(self, day: str, columns: dict[str, str]) -> None:
        """Have the table beside hold the day's rows as they are now; what it had of the day goes first."""
        for partition in self._partitions(self._beside, day):
            self._command(
                f"ALTER TABLE {self._name(self._beside)} DROP PARTITION ID {quote_text(partition)}"
                f"{self._settings({'max_partition_size_to_drop': '0'})}"
            )
        rows = self._count(self._table, day)
        slices = min(_HOURS, -(-rows // SLICE_ROWS))
        for number in range(slices):
            part = ""
            if slices > 1:
                hour = f"toHour({quote_name(self._policy.partition_column)})"
                part = f" AND intDiv({hour} * {slices}, {_HOURS}) = {number}"
            self._insert(self._beside, self._table, f"{_DAY} = {quote_text(day)}{part}", columns)
        self._copied += rows

    # -- after the names were swapped --

    def _finish(self, there: _There, old: _There) -> None:
        """Bring what the old table alone has, then drop it."""
        self._see_inserts_ended()
        columns = self._stored(old.live)
        copied = there.copied
        for day in self._days_of_old():
            if self._prints.get(day) == self._prints_of(day):
                continue
            # Compared with what was copied of it, not with the table: what retention took from that stays gone.
            if copied.get(day) != self._digest(self._beside, day, columns):
                self._bring_late(day, columns)
        if added := [name for name in FSYNC_SETTINGS if name not in old.live.settings]:
            self._command(f"ALTER TABLE {self._name(self._table)} RESET SETTING {', '.join(added)}")
        self._drop_beside()

    def _days_of_old(self) -> list[str]:
        return [day for day in self._days() if self._partitions(self._beside, day)]

    def _bring_late(self, day: str, columns: dict[str, str]) -> None:
        of = 1 + self._count(self._table, day) // KNOWN_ROWS
        for number in range(of):
            mine = f"{_DAY} = {quote_text(day)} AND cityHash64(_log, _seq) % {of} = {number}"
            known = f"SELECT _log, _seq FROM {self._name(self._table)} WHERE {mine}"
            lacking = f"{mine} AND (_log, _seq) NOT IN ({known})"
            rows = self._count_where(self._beside, lacking)
            if rows:
                self._insert(self._table, self._beside, lacking, columns)
                self._late += rows
                self._copied += rows
                self._see_inserts_ended()
                self._doubled += self._twice(mine)
            if left := self._count_where(self._beside, lacking):
                raise CannotRepartition(
                    f"{self._database}.{self._table}: {left:,} rows of {day} are in {self._beside} alone, and did not "
                    "get in; nothing was dropped, run this again"
                )

    def _twice(self, where: str) -> int:
        """How many identities are in the table more than once, and in the old one were not."""
        by = f"WHERE {where} GROUP BY _log, _seq"
        return self._count_where(
            f"(SELECT _log, _seq FROM {self._name(self._table)} {by} HAVING count() > 1)",
            f"(_log, _seq) NOT IN (SELECT _log, _seq FROM {self._name(self._beside)} {by} HAVING count() > 1)",
        )

    # -- who else writes --

    def _end_earlier(self) -> None:
        """End what a killed run, or one that lost the lock, still has running on the server."""
        if self._embedded:
            return
        mine = f"Settings['log_comment'] = {quote_text(self._log_comment)}"
        running = f"SELECT count() FROM system.processes WHERE {mine}"
        if not int(self._executor.query(running)[0][0]):
            return
        self._executor.command(f"KILL QUERY WHERE {mine} ASYNC")
        self._wait_until(
            lambda: not int(self._executor.query(running)[0][0]),
            "an earlier run's insert goes on; wait until it has ended and run this again",
        )

    def _see_quiet(self) -> None:
        """Nobody inserts now.

        Raises:
            CannotRepartition: somebody does.
        """
        if self._embedded:
            return
        before = self._inserted()
        self._sleep(self._quiet_s)
        if self._inserting() or self._inserted() != before:
            raise CannotRepartition(
                f"{self._database}.{self._table}: rows are being inserted; stop its recorders and whoever else writes, "
                "and run this again. What is copied stays"
            )

    def _see_inserts_ended(self) -> None:
        """Who began to insert before the names were swapped writes to the old table still."""
        if self._embedded:
            return
        begun = self._inserting()
        self._wait_until(
            lambda: begun.isdisjoint(self._inserting()),
            f"an insert goes on that began before {self._beside} was replaced; wait until it has ended and run this "
            "again",
        )

    def _wait_until(self, true: Callable[[], bool], otherwise: str) -> None:
        deadline_s = time.monotonic() + ENDED_S
        while not true():
            if time.monotonic() >= deadline_s:
                raise CannotRepartition(f"{self._database}.{self._table}: {otherwise}")
            self._renew()
            self._sleep(0.1)

    def _inserting(self) -> set[str]:
        rows = self._executor.query(
            "SELECT query_id FROM system.processes WHERE query_kind = 'Insert' "
            "AND position(query, {table:String}) > 0 "
            "AND (current_database = {db:String} OR position(query, {db:String}) > 0)",
            {"db": self._database, "table": self._table},
        )
        return {str(row[0]) for row in rows}

    def _inserted(self) -> int:
        return self._count_where(self._table, "1")

    def _see_room(self, look: Look) -> None:
        (sizes,) = self._executor.query(
            "SELECT sum(bytes_on_disk), (SELECT sum(toFloat64(free_space)) FROM system.disks WHERE name IN ("
            "SELECT arrayJoin(disks) FROM system.storage_policies WHERE policy_name IN (SELECT storage_policy "
            "FROM system.tables WHERE database = {db:String} AND name = {table:String}))) FROM system.parts "
            "WHERE database = {db:String} AND table = {beside:String} AND active",
            {"db": self._database, "table": self._table, "beside": self._beside},
        )
        done, free = map(int, sizes)
        need = round((look.bytes_on_disk - done) * ROOM)
        if need > free:
            raise CannotRepartition(
                f"{self._database}.{self._table}: both tables need {need:,} bytes more for a while, and the disk has "
                f"{free:,} free; make room and run this again"
            )

    # -- statements --

    def _digest(self, table: str, day: str, columns: dict[str, str]) -> _Digest:
        self._renew()
        rows = self._executor.query(
            f"SELECT count(), toString(sumWithOverflow({row_hash_sql(columns)})) FROM {self._name(table)} "
            f"WHERE {_DAY} = {quote_text(day)}"
        )
        return _Digest(int(rows[0][0]), str(rows[0][1]))

    def _insert(self, into: str, of: str, where: str, columns: dict[str, str]) -> None:
        names = ", ".join(map(quote_name, columns))
        # Each row is wanted, be its block alike to one that was inserted before or not.
        settings = self._settings(
            {
                "async_insert": "0",
                "insert_deduplicate": "0",
                "deduplicate_insert": "'disable'",
                "deduplicate_insert_select": "'disable'",
                "max_insert_threads": "1",
                "max_partitions_per_insert_block": "100",
                "max_execution_time": "0",
                "log_comment": quote_text(self._log_comment),
            }
        )
        self._command(
            f"INSERT INTO {self._name(into)} ({names}){settings} SELECT {names} FROM {self._name(of)} WHERE {where}"
        )

    def _drop_beside(self) -> None:
        self._prints.clear()
        self._digests.clear()
        settings = self._settings({"max_table_size_to_drop": "0"})
        self._command(f"DROP TABLE {self._name(self._beside)} SYNC{settings}")

    def _comment(self, text: str, table: str = "") -> None:
        self._command(f"ALTER TABLE {self._name(table or self._table)} MODIFY COMMENT {quote_text(text)}")

    def _settings(self, wanted: dict[str, str]) -> str:
        """Those of these settings that the server knows, as a clause."""
        if not self._known:
            self._known = {str(row[0]) for row in self._executor.query("SELECT name FROM system.settings")}
        pairs = [f"{name} = {value}" for name, value in wanted.items() if name in self._known]
        return f" SETTINGS {', '.join(pairs)}" if pairs else ""

    def _command(self, sql: str) -> None:
        self._renew()
        self._executor.command(sql)

    def _prints_of(self, day: str) -> frozenset[frozenset[str]]:
        """The parts that either table has of a day; the same when they have swapped names."""
        rows = self._executor.query(
            "SELECT table, groupArray(name) FROM system.parts WHERE database = {db:String} "
            "AND table IN ({table:String}, {beside:String}) AND splitByChar('-', partition_id)[1] = {day:String} "
            "AND active GROUP BY table",
            {"db": self._database, "table": self._table, "beside": self._beside, "day": day},
        )
        return frozenset(frozenset(map(str, names)) for _, names in rows)

    def _partitions(self, table: str, day: str) -> list[str]:
        rows = self._executor.query(
            "SELECT DISTINCT partition_id FROM system.parts WHERE database = {db:String} "
            "AND table = {table:String} AND splitByChar('-', partition_id)[1] = {day:String} AND active",
            {"db": self._database, "table": table, "day": day},
        )
        return sorted(str(row[0]) for row in rows)

    def _count(self, table: str, day: str) -> int:
        return self._count_where(table, f"{_DAY} = {quote_text(day)}")

    def _count_where(self, table: str, where: str) -> int:
        source = table if table.startswith("(") else self._name(table)
        return int(self._executor.query(f"SELECT count() FROM {source} WHERE {where}")[0][0])

    def _name(self, table: str) -> str:
        return f"{quote_name(self._database)}.{quote_name(table)}"

    def _stored(self, live: LiveTable) -> dict[str, str]:
        return {column.name: column.type for column in live.columns if column.default_kind not in _DERIVED}
