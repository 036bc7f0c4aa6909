"""A database with the tables of the core pack to put market data in, and bars to build of it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from harness.bars_plain import Key, Said

from recorder.bars.build import Result, build
from recorder.bars.survey import Scope
from recorder.bars.verify import Verified, verify
from recorder.bars.windows import ALL_BARS, Bars
from schemas.core.flags import MarketFlag as F
from schemas.core.tables import PACK
from schemas.executor import ClientExecutor
from schemas.manager import Manager

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

ONE_S, ONE_M = ALL_BARS
COLUMNS = (
    "ts_local", "run_id", "ts_exchange", "symbol", "bid_px1", "ask_px1", "last_price", "last_qty", "source", "flags",
    "_log", "_seq",
)  # fmt: skip
READ = ("open", "high", "low", "close", "volume", "notional", "vwap", "trade_count", "quote_count", "spread_mean",
        "quoted_ns", "rows")  # fmt: skip
EVERYTHING = Scope()


class Desk:
    """One database; rows get their identities in the order in which they are put in."""

    def __init__(self, client: Client, database: str, *, migrate: bool = True):
        self.client, self.database = client, database
        self.executor = ClientExecutor(client)
        self._seq = 0
        if migrate:
            Manager(self.executor, [PACK], database, ttl=False).up()

    def put(
        self, said: Iterable[Said], *, flags: int = 0, local_behind_ns: int = 0, venue_time: bool = True
    ) -> None:
        """Record what was said; its place is the order of recording, its local time so much behind the venue's."""
        rows = []
        for one in said:
            kind = (F.TRADE if one.trade else 0) | (F.QUOTE if one.quote else 0)
            kind |= F.AGGREGATED if one.aggregated else 0
            bid, ask = one.quote or (None, None)
            px, qty = one.trade or (None, None)
            rows.append((
                one.at - local_behind_ns, "test", one.at if venue_time else None, one.symbol, bid, ask, px, qty,
                one.source, int(kind) | flags, 7, self._seq,
            ))  # fmt: skip
            self._seq += 1
        if rows:
            self.client.insert("market_data", rows, column_names=COLUMNS, database=self.database)

    def empty(self, *tables: str) -> None:
        """Take all rows out."""
        for table in tables:
            self.client.command(f"TRUNCATE TABLE {self.database}.{table}")

    def build(self, bars: Bars = ONE_S, scope: Scope = EVERYTHING, **options: Any) -> Result:
        """Build what is due."""
        return build(self.executor, self.database, bars, scope, **options)

    def verify(self, bars: Bars = ONE_S, scope: Scope = EVERYTHING, **options: Any) -> Verified:
        """Compare what is built."""
        return verify(self.executor, self.database, bars, scope, **options)

    def bars(self, bars: Bars = ONE_S) -> dict[Key, dict[str, Any]]:
        """The bars as a reader sees them."""
        rows = self.executor.query(
            f"SELECT source, symbol, toUnixTimestamp64Nano(ts), {', '.join(READ)} FROM {self.database}.{bars.name}"
        )
        found = {(row[0], row[1], int(row[2])): dict(zip(READ, row[3:], strict=True)) for row in rows}
        assert len(found) == len(rows), "a bar is there twice"
        return found

    def every_value(self, bars: Bars = ONE_S) -> list[Any]:
        """All columns of all bars but the version, in order."""
        return list(
            self.executor.query(
                f"SELECT * EXCEPT (_version) FROM {self.database}.{bars.name} ORDER BY source, symbol, ts"
            )
        )

    def versions(self, bars: Bars = ONE_S) -> list[Any]:
        """The versions of all bars."""
        return list(
            self.executor.query(
                f"SELECT source, symbol, ts, _version FROM {self.database}.{bars.name} ORDER BY ALL"
            )
        )


def ns(text: str) -> int:
    """A time of 2024-08-08, as 12:00:00.5, in nanoseconds."""
    clock, _, fraction = text.partition(".")
    at = datetime.datetime.fromisoformat(f"2024-08-08T{clock}+00:00")
    return int(at.timestamp()) * 10**9 + int(fraction.ljust(9, "0"))
