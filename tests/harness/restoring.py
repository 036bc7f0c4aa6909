"""What tests of restoring share: a real table of many types, its archive, and the target that rows go back through."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from recorder.backoff import Backoff
from recorder.cli.archive_target import TableTarget
from recorder.retaining.source import TableSource
from retention.archive import FolderStore, Limits, Place, restore_partition, write_partition
from retention.archive.restore import Restored
from retention.archive.store import Store

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from recorder.sink.base import Sink

DAY = Place("trades", "2024-08-08")
COLUMNS = """
    ts_local DateTime64(9, 'UTC'), ts_venue Nullable(DateTime64(9, 'UTC')), symbol LowCardinality(String),
    note LowCardinality(Nullable(String)), payload Nullable(String), price Decimal(38, 18),
    bids Array(Float64), labels Map(LowCardinality(String), String), live Bool, kind Enum8('buy' = 1, 'sell' = -2),
    count UInt32, twice UInt32 MATERIALIZED count * 2, _log UInt64, _seq UInt64
"""
VALUES = """
    toDateTime64('2024-08-08 12:00:00.123456789', 9, 'UTC') + number AS ts_local,
    if(number % 3 = 0, NULL, ts_local) AS ts_venue, concat('S', toString(number % 7)) AS symbol,
    if(number % 4 = 0, NULL, 'n') AS note,
    if(number % 5 = 0, NULL, concat(unhex('00FF80'), toString(number))) AS payload,
    toDecimal128(number, 18) + toDecimal128('0.000000000000000001', 18) AS price,
    range(number % 4) AS bids, map('k', toString(number)) AS labels, number % 2 = 0 AS live,
    if(number % 2 = 0, 'buy', 'sell') AS kind, number AS count, 18446744073709551615 - number % 2 AS _log,
    number AS _seq
"""
NAMES = "ts_local, ts_venue, symbol, note, payload, price, bids, labels, live, kind, count, _log, _seq"
KEYS = "ENGINE = MergeTree PARTITION BY toYYYYMMDD(ts_local) ORDER BY (symbol, ts_local)"
FILES = Limits(group_rows=64, file_bytes=4_000)
SMALL = Limits(group_rows=64, known_rows=100)
"""So that some hundred rows make several files, inserts and portions."""


class Asked:
    """The test's own connection to a database."""

    def __init__(self, client: Client):
        self._client = client

    def arrow(self, sql: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        answer = pa.ipc.open_stream(self._client.raw_query(sql, fmt="ArrowStream"))
        return answer.schema, iter(answer)

    def stream(self, sql: str, clickhouse_format: str) -> Iterator[bytes]:
        yield self._client.raw_query(sql, fmt=clickhouse_format)


class Database:
    """A database in which tests make `trades`, archive it, drop it, and restore it."""

    def __init__(self, client: Client, sink: Sink, runner: asyncio.Runner, name: str):
        self.client, self.sink, self.runner, self.name = client, sink, runner, name

    def make(self, table: str = "trades", columns: str = COLUMNS, keys: str = KEYS) -> None:
        """A table of all the types."""
        self.client.command(f"CREATE TABLE {self.name}.{table} ({columns}) {keys}")

    def fill(self, start: int, stop: int, table: str = "trades") -> None:
        """Rows number `start` to before `stop`."""
        self.client.command(
            f"INSERT INTO {self.name}.{table} ({NAMES}) SELECT {VALUES} FROM numbers({start}, {stop - start})"
        )

    def archive(self, root: pathlib.Path) -> FolderStore:
        """Have a folder hold the rows that there are."""
        store = FolderStore(root)
        self.archive_to(store)
        return store

    def archive_to(self, store: Store, day: str = DAY.partition) -> None:
        """Have a store hold the rows that there are of a day."""
        source = TableSource(Asked(self.client), self.name, Place(DAY.table, day))
        write_partition(source, store, recorder_version="1.2.3", limits=FILES)

    def drop(self) -> None:
        """The partition goes."""
        self.client.command(f"ALTER TABLE {self.name}.trades DROP PARTITION ID '{DAY.id}'")

    def target(self, table: str = "trades", kind: type[TableTarget] = TableTarget) -> TableTarget:
        """The table to restore into."""
        return kind(
            self.client,
            self.sink,
            self.runner,
            self.name,
            table,
            insert_timeout_s=30.0,
            backoff=Backoff(0.01, 0.1),
        )

    def restore(self, store: Store, table: str = "trades", **options: Any) -> Restored:
        """Restore, in small inserts."""
        return restore_partition(self.target(table), store, DAY, limits=SMALL, **options)

    def rows(self, table: str = "trades") -> int:
        """How many rows a table has."""
        return int(self.ask(f"SELECT count() FROM {self.name}.{table}"))

    def differ(self, start: int, stop: int, table: str = "trades", names: str = NAMES) -> int:
        """How many rows of a table are not those numbers, each once and to the last bit, or the other way round."""
        self.client.command(f"DROP TABLE IF EXISTS {self.name}.wanted SYNC")
        self.make("wanted")
        self.fill(start, stop, "wanted")
        as_text = "SELECT toString(tuple({})) AS row, count() AS times FROM {}.{} GROUP BY row"
        mine, wanted = as_text.format(names, self.name, table), as_text.format(NAMES, self.name, "wanted")
        both = ((mine, wanted), (wanted, mine))
        return sum(int(self.ask(f"SELECT count() FROM ({one} EXCEPT {other})")) for one, other in both)

    def ask(self, sql: str) -> Any:
        """One value."""
        return self.client.query(sql).result_rows[0][0]


@contextlib.contextmanager
def opened(client: Client, sink: Sink, name: str) -> Iterator[Database]:
    """See `Database`; the sink is started, and closed at the end."""
    with asyncio.Runner() as runner:
        runner.run(sink.start())
        try:
            yield Database(client, sink, runner, name)
        finally:
            runner.run(sink.close())
