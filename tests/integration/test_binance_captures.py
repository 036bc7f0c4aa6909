"""Recorded sessions, to the last row."""

from __future__ import annotations

import gzip
import pathlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from recorder.normalise.base import Message, NormalisedRow
from recorder.normalise.binance import BinanceNormaliser
from recorder.normalise.binance.rows import BOOK_DELTA_FIELDS, MARKET_DATA_FIELDS
from schemas.core.flags import MarketFlag as F

pytestmark = pytest.mark.captures
USDM = ("usdm_btcusdt_20240808",)
SPOT = ("spot_btcusdt_20240808", "spot_btcusdt_20240809")
M = {name: position for position, name in enumerate(MARKET_DATA_FIELDS)}
B = {name: position for position, name in enumerate(BOOK_DELTA_FIELDS)}


def messages(captures: pathlib.Path, names: tuple[str, ...]) -> Iterator[Message]:
    for name in names:
        with gzip.open(captures / "binance-captures" / f"{name}.gz") as lines:
            for position, line in enumerate(lines):
                ts_local, _, payload = line.rstrip(b"\n").partition(b" ")
                yield Message(payload, int(ts_local), name, position)


class Session:
    """What a capture becomes."""

    def __init__(self, captures: pathlib.Path, names: tuple[str, ...], **options: Any):
        self.normaliser = BinanceNormaliser(book_deltas=True, **options)
        self.rows: list[NormalisedRow] = []
        for message in messages(captures, names):
            self.rows.extend(self.normaliser.normalise(message))
        market = [row.row for row in self.rows if row.table == "market_data"]
        self.trades: list[Any] = [row for row in market if row[M["flags"]] & F.TRADE]  # type: ignore[index]
        self.quotes: list[Any] = [row for row in market if row[M["flags"]] & F.QUOTE]  # type: ignore[index]
        self.deltas: list[Any] = [row.row for row in self.rows if row.table == "book_deltas"]
        self.events = [row for row in self.rows if row.table == "system_events"]


@pytest.fixture(scope="module")
def usdm(captures: pathlib.Path) -> Session:
    return Session(captures, USDM)


@pytest.fixture(scope="module")
def spot(captures: pathlib.Path) -> Session:
    return Session(captures, SPOT)


def test_every_usdm_trade_is_there(usdm: Session) -> None:
    """Counted independently: number, first and last id, sum of price x quantity."""
    ids = [row[M["trade_id"]] for row in usdm.trades]
    assert ids == list(range(5266583935, 5266605247 + 1))
    assert len(ids) == 21_313
    assert round(sum(row[M["last_price"]] * row[M["last_qty"]] for row in usdm.trades), 4) == 149845680.8898


def test_every_usdm_quote_is_there(usdm: Session) -> None:
    """Each of the 66,089 bookTicker messages changes a price or a size, so the policy keeps them all."""
    assert len(usdm.quotes) == 66_089
    assert not usdm.normaliser.filtered
    assert not usdm.normaliser.ignored
    assert not usdm.events


def test_every_usdm_depth_update_is_there(usdm: Session) -> None:
    """6,551 updates of 443,521 levels, and the REST snapshot."""
    updates = [row for row in usdm.deltas if not row[B["is_snapshot"]]]
    assert len(updates) == 6_551
    assert sum(len(row[B["bid_pxs"]]) + len(row[B["ask_pxs"]]) for row in updates) == 443_521
    [snapshot] = [row for row in usdm.deltas if row[B["is_snapshot"]]]
    assert (len(snapshot[B["bid_pxs"]]), len(snapshot[B["ask_pxs"]])) == (1_000, 1_000)
    assert (snapshot[B["symbol"]], snapshot[B["last_update_id"]]) == ("BTCUSDT", 5123107852948)


def test_both_spot_files_run_on(spot: Session) -> None:
    """Numbers of both files, no hole between them, the book in sync across midnight."""
    assert len(spot.trades) == 9_757 + 10_147
    assert len(spot.quotes) == 28_040 + 45_134
    assert len(spot.deltas) == 3_451 + 3_044 + 1
    assert not spot.events
    assert all(
        row[M["ts_exchange"]] is None and row[M["flags"]] & F.EXCHANGE_TIME_MISSING for row in spot.quotes
    )
    assert all(row[M["ts_exchange"]] for row in spot.trades)
    midnight = 1_723_161_600_000_000_000
    later = [row for row in spot.quotes if row[M["ts_local"]] >= midnight]
    assert later
    assert all(len(row[M["bid_pxs"]]) == len(row[M["ask_pxs"]]) == 5 for row in later)
    assert {row[M["source"]] for row in spot.quotes} == {"binance.spot"}


def test_price_only_keeps_fewer_quotes_and_counts_the_rest(captures: pathlib.Path) -> None:
    """Stored and filtered together are all there were."""
    session = Session(captures, USDM, quotes="price")
    assert 0 < len(session.quotes) < 66_089
    assert len(session.quotes) + session.normaliser.filtered["quote_size_only"] == 66_089


@pytest.mark.parametrize("names", [USDM, SPOT], ids=["usdm", "spot"])
def test_the_book_is_the_naive_book_and_its_top_the_venues(
    captures: pathlib.Path, names: tuple[str, ...]
) -> None:
    """At every depth message the arrays are those of a dict rebuilt apart, and where a bookTicker has the very id of
    the book, its prices and sizes are the book's."""
    normaliser = BinanceNormaliser(depth_levels=5)
    sides: dict[str, dict[float, float]] = {"b": {}, "a": {}}
    waiting: list[dict[str, Any]] = []
    book_id: int | None = None
    checked = 0
    tickers: dict[int, tuple[float, ...]] = {}
    tops: dict[int, tuple[float, ...]] = {}
    for message in messages(captures, names):
        normaliser.normalise(message)
        data = orjson.loads(message.payload)
        data = data.get("data", data)
        if "B" in data:
            tickers[data["u"]] = tuple(float(data[name]) for name in "bBaA")
            continue
        if "lastUpdateId" in data:
            book_id = data["lastUpdateId"]
            sides = {"b": {float(p): float(s) for p, s in data["bids"]},
                     "a": {float(p): float(s) for p, s in data["asks"]}}  # fmt: skip
        elif data.get("e") == "depthUpdate":
            waiting.append(data)
        else:
            continue
        if book_id is None:
            continue
        for update in waiting:
            if update["u"] > book_id:
                for name, side in sides.items():
                    side.update({float(p): float(s) for p, s in update[name]})
                    for price in [float(p) for p, s in update[name] if not float(s)]:
                        side.pop(price, None)
                book_id = update["u"]
        waiting.clear()
        bids, asks = sorted(sides["b"], reverse=True)[:5], sorted(sides["a"])[:5]
        [state] = [*normaliser._spot.values(), *normaliser._futures.values()]
        assert state.book.in_sync
        assert state.top.bid_pxs == tuple(bids)
        assert state.top.ask_pxs == tuple(asks)
        assert state.top.bid_szs == tuple(sides["b"][price] for price in bids)
        assert state.top.ask_szs == tuple(sides["a"][price] for price in asks)
        tops[book_id] = (bids[0], sides["b"][bids[0]], asks[0], sides["a"][asks[0]])
        checked += 1
    assert checked > 6_000
    same_id = tickers.keys() & tops.keys()
    assert len(same_id) > 500
    assert all(tickers[id_] == tops[id_] for id_ in same_id)


@pytest.mark.parametrize("stream", ["trade", "depth"])
def test_a_lost_message_is_found(captures: pathlib.Path, stream: str) -> None:
    """Take one message out: one feed gap, and the book gone only if it was a change of the book."""
    normaliser = BinanceNormaliser()
    seen = 0
    rows: list[NormalisedRow] = []
    for message in messages(captures, USDM):
        if f"btcusdt@{stream}".encode() in message.payload[:40]:
            seen += 1
            if seen == 3_000:
                continue
        rows.extend(normaliser.normalise(message))
    events = [row for row in rows if row.table == "system_events"]
    assert [row.row.kind for row in events] == ["feed_gap"]  # type: ignore[union-attr]
    state = normaliser._futures["BTCUSDT"]
    assert state.book.in_sync == (stream == "trade")
    assert bool(state.top.bid_pxs) == (stream == "trade")


def test_another_recorders_session_replays(captures: pathlib.Path) -> None:
    """Four symbols, klines among them: all known, no hole, no book without a snapshot."""
    normaliser = BinanceNormaliser(book_deltas=True)
    counts: Counter[tuple[str, int]] = Counter()
    with gzip.open(captures / "cryptofeed" / "BINANCE_FUTURES.ws.1.0.gz") as lines:
        next(lines)
        for line in filter(bytes.strip, lines):
            time_s, _, payload = line.rstrip(b"\n").partition(b": ")
            for row in normaliser.normalise(Message(payload, int(float(time_s) * 1e9))):
                counts[row.table, row.slot] += 1
                assert row.table != "market_data" or not row.row[M["bid_pxs"]]  # type: ignore[index]
    unchanged = normaliser.filtered["quote_unchanged"]
    assert counts["market_data", 0] + unchanged == 613
    assert (counts["market_data", 1], counts["book_deltas", 2]) == (91, 764)
    assert normaliser.ignored == {"kline": 67}
    assert not any(table == "system_events" for table, _ in counts)
