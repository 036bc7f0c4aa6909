"""The two tables, and what is said to the server about them: counts, sums, parts, inserts. It decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from recorder.copying.digest import Digest, row_hash_sql
from schemas.check import REPARTITION_SUFFIX
from schemas.executor import SqlExecutor
from schemas.policy import TablePolicy
from schemas.quote import quote_name, quote_text
from schemas.render import partition_expression

DAY = "splitByChar('-', _partition_id)[1]"
"""The day of a row, as partitions are named: `20240808`, whatever its group."""


class Pair:
    """A table, and the one `beside` it; days are written as in partitions, `20240808`.

    `wanted` is the partition key that the policy says. `renew` is called before each statement that changes something
    or takes long, and raises where the lock is lost.
    """

    def __init__(
        self,
        executor: SqlExecutor,
        database: str,
        table: str,
        policy: TablePolicy,
        renew: Callable[[], None] = lambda: None,
    ):
        self.executor, self.renew = executor, renew
        self.database, self.table, self.beside = database, table, table + REPARTITION_SUFFIX
        self.policy, self.wanted = policy, partition_expression(policy)
        self.log_comment = f"repartition {database}.{table}"
        """By which inserts of any run are known on the server."""
        self._known: set[str] = set()
        """Settings of the server, once they were asked for."""

    def name(self, table: str) -> str:
        """One of the two, quoted and with its database."""
        return f"{quote_name(self.database)}.{quote_name(table)}"

    # -- what they hold --

    def days(self) -> list[str]:
        """The days of both tables."""
        rows = self.executor.query(
            "SELECT DISTINCT splitByChar('-', partition_id)[1] FROM system.parts WHERE database = {db:String} "
            "AND table IN ({table:String}, {beside:String}) AND active",
            {"db": self.database, "table": self.table, "beside": self.beside},
        )
        return sorted(str(row[0]) for row in rows)

    def partitions(self, table: str, day: str) -> list[str]:
        """The ids of the partitions that one of them has of a day."""
        rows = self.executor.query(
            "SELECT DISTINCT partition_id FROM system.parts WHERE database = {db:String} "
            "AND table = {table:String} AND splitByChar('-', partition_id)[1] = {day:String} AND active",
            {"db": self.database, "table": table, "day": day},
        )
        return sorted(str(row[0]) for row in rows)

    def parts(self, day: str) -> frozenset[frozenset[str]]:
        """The parts that either table has of a day; the same when they have swapped names."""
        rows = self.executor.query(
            "SELECT table, groupArray(name) FROM system.parts WHERE database = {db:String} "
            "AND table IN ({table:String}, {beside:String}) AND splitByChar('-', partition_id)[1] = {day:String} "
            "AND active GROUP BY table",
            {"db": self.database, "table": self.table, "beside": self.beside, "day": day},
        )
        return frozenset(frozenset(map(str, names)) for _, names in rows)

    def count(self, table: str, day: str) -> int:
        """The rows that one of them has of a day."""
        return self.count_where(table, f"{DAY} = {quote_text(day)}")

    def count_where(self, table: str, where: str) -> int:
        """Rows of one of them, or of a subquery in brackets."""
        source = table if table.startswith("(") else self.name(table)
        return int(self.executor.query(f"SELECT count() FROM {source} WHERE {where}")[0][0])

    def digest(self, table: str, day: str, columns: Mapping[str, str]) -> Digest:
        """What the rows come to that one of them has of a day, over these columns and their types."""
        self.renew()
        rows = self.executor.query(
            f"SELECT count(), toString(sumWithOverflow({row_hash_sql(columns)})) FROM {self.name(table)} "
            f"WHERE {DAY} = {quote_text(day)}"
        )
        return Digest(int(rows[0][0]), int(rows[0][1]))

    # -- what changes them --

    def command(self, sql: str) -> None:
        """Run a statement that changes something."""
        self.renew()
        self.executor.command(sql)

    def insert(self, into: str, of: str, where: str, columns: Mapping[str, str]) -> None:
        """Insert rows of one of them into the other."""
        names = ", ".join(map(quote_name, columns))
        # Each row is wanted, be its block alike to one that was inserted before or not.
        settings = self.settings(
            {
                "async_insert": "0",
                "insert_deduplicate": "0",
                "deduplicate_insert": "'disable'",
                "deduplicate_insert_select": "'disable'",
                "max_insert_threads": "1",
                "max_partitions_per_insert_block": "100",
                "max_execution_time": "0",
                "log_comment": quote_text(self.log_comment),
            }
        )
        self.command(
            f"INSERT INTO {self.name(into)} ({names}){settings} SELECT {names} FROM {self.name(of)} WHERE {where}"
        )

    def set_comment(self, text: str, table: str) -> None:
        """Give one of them a comment."""
        self.command(f"ALTER TABLE {self.name(table)} MODIFY COMMENT {quote_text(text)}")

    def drop_day(self, day: str) -> None:
        """Have the table beside hold nothing of a day."""
        settings = self.settings({"max_partition_size_to_drop": "0"})
        for partition in self.partitions(self.beside, day):
            self.command(
                f"ALTER TABLE {self.name(self.beside)} DROP PARTITION ID {quote_text(partition)}{settings}"
            )

    def drop_beside(self) -> None:
        """Drop the table beside; what was known of it is no more true."""
        settings = self.settings({"max_table_size_to_drop": "0"})
        self.command(f"DROP TABLE {self.name(self.beside)} SYNC{settings}")

    def settings(self, wanted: Mapping[str, str]) -> str:
        """Those of these settings that the server knows, as a clause."""
        if not self._known:
            self._known = {str(row[0]) for row in self.executor.query("SELECT name FROM system.settings")}
        pairs = [f"{name} = {value}" for name, value in wanted.items() if name in self._known]
        return f" SETTINGS {', '.join(pairs)}" if pairs else ""
