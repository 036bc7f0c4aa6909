"""How a table of a test is cut into partitions, reckoned here in another way than the code under test does it: by day,
by day and groups of symbols, or by month."""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING, NamedTuple

from retention.policy import DAY_NS, RetentionPolicy
from schemas.policy import Partition

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")


class Time(NamedTuple):
    """A day or a month: as the id of a partition begins with it, from its first moment on, and before its end."""

    name: str
    start_ns: int
    end_ns: int


def time_at(at_ns: int, partition: Partition) -> Time:
    """The day or month of a moment."""
    day = datetime.datetime.fromtimestamp(at_ns // DAY_NS * DAY_NS // 10**9, datetime.UTC)
    if partition is Partition.DAY:
        after = day + datetime.timedelta(days=1)
        return Time(day.strftime("%Y%m%d"), _ns(day), _ns(after))
    first = day.replace(day=1)
    after = (first + datetime.timedelta(days=31)).replace(day=1)
    return Time(day.strftime("%Y%m"), _ns(first), _ns(after))


def time_name(partition: str) -> str:
    """The day or month that a partition's id begins with."""
    return partition.partition("-")[0]


def symbol_of(number: int, policy: RetentionPolicy) -> str:
    """Of a row, by its number; one for all where the table has no groups."""
    return SYMBOLS[number % len(SYMBOLS) if policy.symbol_groups > 1 else 0]


def cut_anew(client: Client, database: str, table: str, policy: RetentionPolicy) -> None:
    """Make an empty table anew that is cut as a policy says, unless it is."""
    time = "toYYYYMMDD(ts_local)" if policy.partition is Partition.DAY else "toYYYYMM(ts_local)"
    groups = policy.symbol_groups
    key = time if groups == 1 else f"({time}, cityHash64(symbol) % {groups})"
    rows = client.query(
        "SELECT partition_key, create_table_query FROM system.tables "
        "WHERE database = {db:String} AND name = {t:String}",
        {"db": database, "t": table},
    ).result_rows
    ((there, made),) = rows
    if there == key:
        return
    made, count = re.subn(
        r" PARTITION BY .* ORDER BY ", lambda _: f" PARTITION BY {key} ORDER BY ", str(made)
    )
    assert count == 1, f"the statement of {table} has no partition key: {made}"
    client.command(f"DROP TABLE {database}.{table} SYNC")
    client.command(made)


def _ns(at: datetime.datetime) -> int:
    return int(at.timestamp()) * 10**9
