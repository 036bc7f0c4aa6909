"""What each message of Binance's public streams becomes."""

from __future__ import annotations

import itertools

import pytest
from binance_samples import T0, Feed, agg_trade, book_ticker, depth, raw, snapshot, trade

from recorder.bad_rows import BadRow
from recorder.build import BatchBuilder
from recorder.normalise.base import Message
from recorder.normalise.binance import Slot, state
from recorder.normalise.binance.rows import BOOK_DELTA_FIELDS, MARKET_DATA_FIELDS, check_field_order
from schemas.core.flags import MarketFlag as F
from schemas.core.market import BookDelta, MarketData
from schemas.core.tables import PACK

MS = 1_000_000


def test_rows_are_written_in_the_order_of_the_row_classes() -> None:
    """A tuple row means the same as the row object with those fields."""
    check_field_order()
    assert MarketData.__struct_fields__ == MARKET_DATA_FIELDS
    assert BookDelta.__struct_fields__ == BOOK_DELTA_FIELDS


def test_another_order_of_the_row_class_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No normaliser is made that would write one column's value into another."""
    monkeypatch.setattr("recorder.normalise.binance.rows.MARKET_DATA_FIELDS", MARKET_DATA_FIELDS[::-1])
    with pytest.raises(TypeError, match="bring them together"):
        Feed()


def test_a_book_ticker_becomes_a_quote() -> None:
    """Slot 0 of market_data, with the venue's own time and update id."""
    row = Feed()(book_ticker(u=42))[Slot.QUOTE]
    assert (row["bid_px1"], row["bid_sz1"], row["ask_px1"], row["ask_sz1"]) == (100.0, 1.0, 100.1, 2.0)
    assert (row["ts_exchange"], row["update_id"], row["source"]) == (T0 * MS, 42, "binance.usdm")
    assert row["flags"] == F.QUOTE
    assert row["bid_pxs"] == ()
    assert row["last_price"] is row["trade_id"] is None


def test_a_quote_without_venue_time_says_so() -> None:
    """Spot's bookTicker has no time: null, and a flag, never a made-up time."""
    row = Feed()(book_ticker(futures=False))[Slot.QUOTE]
    assert row["ts_exchange"] is None
    assert row["flags"] == F.QUOTE | F.EXCHANGE_TIME_MISSING
    assert row["source"] == "binance.spot"


def test_an_empty_side_is_null() -> None:
    """The venue writes 0 x 0 for a side without orders; a row has null there."""
    row = Feed()(book_ticker(bid="0.0", bid_size="0.0"))[Slot.QUOTE]
    assert (row["bid_px1"], row["bid_sz1"], row["ask_px1"]) == (None, None, 100.1)


def test_a_quote_is_written_when_price_or_size_changes() -> None:
    """The default policy; what it leaves out is counted."""
    feed = Feed()
    assert feed(book_ticker(1))
    assert not feed(book_ticker(2))
    assert feed(book_ticker(3, bid_size="1.5"))
    assert feed(book_ticker(4, ask="100.2"))
    assert feed.normaliser.filtered == {"quote_unchanged": 1}


def test_an_older_quote_never_moves_the_top_back() -> None:
    """What an overlapping connection brings late is counted and changes nothing, for trades either."""
    feed = Feed()
    assert feed(book_ticker(10, bid="99"))
    assert not feed(book_ticker(9, bid="98"))
    assert not feed(book_ticker(10, bid="97"))
    assert feed(trade())[Slot.TRADE]["bid_px1"] == 99.0
    assert feed(book_ticker(11, bid="98"))
    assert feed.normaliser.filtered == {"quote_repeated": 2}


def test_quotes_numbered_anew_come_back_after_many_repeats() -> None:
    """A venue that counts from 0 again is followed again, instead of never."""
    feed = Feed()
    feed(book_ticker(10**9))
    rows = [feed(book_ticker(i, bid=str(90 + i / 1_000))) for i in range(1_010)]
    assert rows.index(next(filter(None, rows))) == 1_000
    assert all(rows[1_000:])


def test_price_only_leaves_out_changes_of_size() -> None:
    """They are counted, and trades still carry the newest size."""
    feed = Feed(quotes="price")
    assert feed(book_ticker(1))
    assert not feed(book_ticker(2, bid_size="9"))
    assert feed.normaliser.filtered == {"quote_size_only": 1}
    assert feed(trade())[Slot.TRADE]["bid_sz1"] == 9.0
    assert feed(book_ticker(3, bid="99.9"))


def test_a_crossed_quote_is_flagged() -> None:
    """It is kept as it came."""
    assert Feed()(book_ticker(bid="100.1"))[Slot.QUOTE]["flags"] == F.QUOTE | F.CROSSED


def test_a_trade_carries_the_last_known_top() -> None:
    """Slot 1; null before any quote."""
    feed = Feed()
    first = feed(trade(7))[Slot.TRADE]
    assert (first["bid_px1"], first["last_price"], first["last_qty"]) == (None, 100.1, 0.5)
    feed(book_ticker())
    row = feed(trade(8))[Slot.TRADE]
    assert (row["bid_px1"], row["ask_sz1"], row["trade_id"], row["flags"]) == (100.0, 2.0, 8, F.TRADE)
    assert row["ts_exchange"] == T0 * MS


@pytest.mark.parametrize(("maker", "side"), [(True, "sell"), (False, "buy")])
def test_the_side_is_the_aggressors(maker: bool, side: str) -> None:
    """Where the buyer's order rested, the seller was the aggressor."""
    assert Feed()(trade(m=maker))[Slot.TRADE]["last_side"] == side


def test_venue_time_is_of_the_event_else_of_sending() -> None:
    """`T`, else `E`; microseconds are known by their size."""
    message = trade()
    del message["T"]
    assert Feed()(message)[Slot.TRADE]["ts_exchange"] == (T0 + 1) * MS
    assert Feed()(trade(T=T0 * 1000 + 7))[Slot.TRADE]["ts_exchange"] == T0 * MS + 7_000


def test_an_aggregate_trade_is_marked() -> None:
    """It stands for several fills, and its id is the aggregate's."""
    row = Feed()(agg_trade(9))[Slot.TRADE]
    assert (row["flags"], row["trade_id"], row["last_side"]) == (F.TRADE | F.AGGREGATED, 9, "sell")


def test_a_trade_outside_the_book_is_marked() -> None:
    """Insurance fund trades have prices far from the market's."""
    assert Feed()(trade(X="INSURANCE_FUND"))[Slot.TRADE]["flags"] == F.TRADE | F.OFF_BOOK


def test_a_placeholder_is_no_trade_but_takes_up_its_id() -> None:
    """USD-M sends price 0, quantity 0 and X "NA": no row of zeros, and no hole."""
    feed = Feed()
    feed(trade(7))
    assert not feed(trade(8, price="0", quantity="0", X="NA"))
    assert set(feed(trade(9))) == {Slot.TRADE}
    assert feed.normaliser.ignored == {"trade.NA": 1}


def test_a_hole_in_trade_ids_is_a_feed_gap() -> None:
    """Slot 4 of system_events, with what was expected, what came, and how many are missing."""
    feed = Feed()
    feed(trade(7))
    gap = feed(trade(11))[Slot.TRADE_GAP]
    assert (gap["kind"], gap["component"]) == ("feed_gap", "binance.usdm")
    assert gap["payload"] == '{"symbol": "BTCUSDT", "stream": "trade", "expected": 8, "got": 11, "count": 3}'
    assert set(feed(trade(9))) == {Slot.TRADE}, "a late id is no hole"
    assert set(feed(trade(12))) == {Slot.TRADE}


def test_a_trade_that_comes_again_is_one_trade() -> None:
    """A redelivery or an overlapping connection makes no second row; a late trade that fills a hole makes its one."""
    feed = Feed()
    for i in (7, 8, 11):
        assert Slot.TRADE in feed(trade(i))
    for i in (7, 8, 11):
        assert not feed(trade(i))
    assert set(feed(trade(9))) == {Slot.TRADE}, "it was missing until now"
    assert not feed(trade(9))
    assert set(feed(trade(5))) == {Slot.TRADE}, "nobody saw what came before the first"
    assert not feed(trade(5))
    assert Slot.TRADE in feed(agg_trade(3))
    assert not feed(agg_trade(3))
    assert feed.normaliser.filtered == {"trade_repeated": 6}


def test_trades_and_aggregates_are_counted_apart() -> None:
    """Their ids have nothing to do with each other."""
    feed = Feed()
    feed(trade(7))
    assert set(feed(agg_trade(900))) == {Slot.TRADE}
    assert set(feed(trade(8))) == {Slot.TRADE}
    assert Slot.TRADE_GAP in feed(agg_trade(902))


def test_numbering_anew_is_noticed_after_many_repeats() -> None:
    """A venue that counts from 0 again is watched again, instead of never."""
    feed = Feed()
    feed(trade(10**9))
    gaps = [feed(trade(i)).get(Slot.TRADE_GAP) for i in range(1_010)]
    assert sum(gap is not None for gap in gaps) == 1
    assert Slot.TRADE_GAP in feed(trade(1_012))


def test_depth_becomes_book_deltas_when_asked() -> None:
    """One row a message, levels in the venue's order, 0 for removed; else counted as filtered."""
    feed = Feed(book_deltas=True)
    row = feed(depth(5, 9, 4, bids=[("100", "1"), ("99", "0")]))[Slot.BOOK_DELTA]
    assert (row["first_update_id"], row["last_update_id"], row["is_snapshot"]) == (5, 9, False)
    assert (row["bid_pxs"], row["bid_szs"], row["ask_pxs"], row["ask_szs"]) == (
        (100.0, 99.0),
        (1.0, 0.0),
        (),
        (),
    )
    whole = feed(snapshot(20, E=T0 + 1, T=T0))[Slot.BOOK_DELTA]
    assert (whole["first_update_id"], whole["last_update_id"], whole["is_snapshot"]) == (None, 20, True)
    off = Feed()
    assert not off(depth(5, 9, 4))
    assert off.normaliser.filtered == {"book_deltas_off": 1}


def test_the_books_top_makes_quotes_until_a_book_ticker_comes() -> None:
    """From then on the bookTicker alone does, and the book only fills the arrays."""
    feed = Feed()
    feed(depth(1, 2, 0))
    row = feed(snapshot(3, E=T0 + 1, T=T0))[Slot.QUOTE]
    assert (row["bid_px1"], row["ask_px1"], row["flags"]) == (100.0, 101.0, F.QUOTE | F.DEPTH | F.SNAPSHOT)
    row = feed(depth(3, 4, 2, bids=[("100.5", "7")]))[Slot.QUOTE]
    assert (row["bid_px1"], row["bid_sz1"], row["flags"]) == (100.5, 7.0, F.QUOTE | F.DEPTH)
    assert row["bid_pxs"] == (100.5, 100.0, 99.0)
    assert not feed(depth(5, 6, 4, bids=[("98", "1")])), "below the top nothing changed"
    row = feed(book_ticker(bid="100.6", ask="100.9"))[Slot.QUOTE]
    assert (row["bid_px1"], row["flags"], row["bid_pxs"]) == (100.6, F.QUOTE, (100.5, 100.0, 99.0, 98.0))
    assert not feed(depth(7, 8, 6, bids=[("100.7", "1")]))
    assert feed(trade())[Slot.TRADE]["bid_pxs"][0] == 100.7


def test_only_the_best_levels_are_in_the_arrays() -> None:
    """Five by default, best first on both sides, and as many as asked for."""
    bids = [(str(100 - i), "1") for i in range(9)]
    asks = [(str(101 + i), "2") for i in range(9)]
    for options, count in (({}, 5), ({"depth_levels": 3}, 3)):
        feed = Feed(**options)
        feed(depth(1, 2, 0))
        row = feed(snapshot(3, bids, asks, T=T0))[Slot.QUOTE]
        assert row["bid_pxs"] == tuple(100.0 - i for i in range(count))
        assert row["ask_pxs"] == tuple(101.0 + i for i in range(count))
        assert row["ask_szs"] == (2.0,) * count


def test_a_lost_book_is_empty_until_the_next_snapshot() -> None:
    """A hole in update ids: a feed gap, empty arrays, and a flag that says why."""
    feed = Feed()
    feed(depth(1, 2, 0))
    feed(snapshot(3, T=T0))
    feed(book_ticker(1))
    gap = feed(depth(9, 10, 8))[Slot.DEPTH_GAP]
    assert gap["payload"] == '{"symbol": "BTCUSDT", "stream": "depth", "expected": 2, "got": 8, "count": 6}'
    row = feed(trade())[Slot.TRADE]
    assert (row["bid_pxs"], row["ask_szs"], row["bid_px1"]) == ((), (), 100.0)
    assert row["flags"] == F.TRADE | F.BOOK_STALE
    feed(snapshot(9, T=T0))
    row = feed(trade(8))[Slot.TRADE]
    assert (row["bid_pxs"], row["flags"]) == ((100.0, 99.0), F.TRADE)


def test_partial_depth_stands_in_for_a_book() -> None:
    """Where no diff stream comes, the venue's best levels fill the arrays; spot's take the symbol of the stream."""
    feed = Feed()
    row = feed(snapshot(5), "btcusdt@depth5@100ms")[Slot.QUOTE]
    assert (row["symbol"], row["bid_pxs"], row["source"]) == ("BTCUSDT", (100.0, 99.0), "binance.spot")
    assert row["flags"] == F.QUOTE | F.DEPTH | F.SNAPSHOT | F.EXCHANGE_TIME_MISSING
    futures = Feed()
    row = futures(depth(1, 5, 0, [("100", "1")], [("101", "1")]), "btcusdt@depth20")[Slot.QUOTE]
    assert (row["bid_pxs"], row["ask_pxs"]) == ((100.0,), (101.0,))
    bare = Feed()
    assert bare(snapshot(5), topic="ethusdt@depth10")[Slot.QUOTE]["symbol"] == "ETHUSDT"


def test_partial_depth_gives_way_to_the_diff_stream_and_the_book_ticker() -> None:
    """It is no change of the book, so it never enters book_deltas."""
    feed = Feed(book_deltas=True)
    feed(depth(1, 2))
    assert not feed(snapshot(5), "btcusdt@depth5")
    other = Feed()
    other(book_ticker(futures=False))
    assert not other(snapshot(5), "btcusdt@depth5")
    assert other(trade(futures=False))[Slot.TRADE]["bid_pxs"] == (100.0, 99.0)
    assert feed.normaliser.filtered == other.normaliser.filtered == {"partial_depth": 1}


def test_partial_depth_is_known_by_its_shape_where_no_stream_says_it() -> None:
    """A raw stream of spot names nothing: exactly 5, 10 or 20 levels a side and no time are no REST answer."""
    levels = [[str(100 + n), "1"] for n in range(20)]
    feed = Feed(book_deltas=True, symbol="BTCUSDT")
    for count in (5, 10, 20):
        bids = [[price, str(count)] for price, _ in levels[:count]]
        row = feed(snapshot(count, bids, levels[:count]))
        assert set(row) == {Slot.QUOTE}, "it is no change of the book"
        assert (row[Slot.QUOTE]["symbol"], len(row[Slot.QUOTE]["bid_pxs"])) == ("BTCUSDT", 5)
    rest = Feed(book_deltas=True, symbol="BTCUSDT")
    for message in (
        snapshot(1, levels[:19], levels[:19]),
        snapshot(2, levels[:5], levels[:10]),
        snapshot(3, levels[:5], levels[:5], E=T0, T=T0),
    ):
        assert Slot.BOOK_DELTA in rest(message)


def test_samples_stand_on_the_grid_and_show_the_state_before() -> None:
    """At most one a message, at the last multiple of `sample_ms`, slot 5."""
    feed = Feed(sample_ms=10)
    assert set(feed(book_ticker(1), later_ns=1 * MS)) == {Slot.QUOTE}
    assert set(feed(book_ticker(2, bid="99"), later_ns=2 * MS)) == {Slot.QUOTE}
    rows = feed(book_ticker(3, bid="98"), later_ns=30 * MS)
    assert set(rows) == {Slot.QUOTE, Slot.SAMPLE}
    sample = rows[Slot.SAMPLE]
    assert (sample["bid_px1"], sample["ts_local"] % (10 * MS), sample["flags"]) == (99.0, 0, F.SAMPLED)
    assert feed.ts_local - 10 * MS < sample["ts_local"] <= feed.ts_local
    assert sample["ts_exchange"] is sample["update_id"] is None


@pytest.mark.parametrize("options", [
    {"market": "margin"}, {"quotes": "all"}, {"sample_ms": 9}, {"sample_ms": 51}, {"depth_levels": 0},
    {"depth_levels": 21},
])  # fmt: skip
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    """With what was given and what is allowed."""
    with pytest.raises(ValueError, match=str(next(iter(options)))):
        Feed(**options)


def test_coin_margined_messages_are_known_by_their_symbol() -> None:
    """COIN-M has the futures' shapes, with the pair beside the symbol."""
    feed = Feed(book_deltas=True)
    quote = {"e": "bookTicker", "u": 17242169, "s": "BTCUSD_200626", "ps": "BTCUSD", "b": "9548.1", "B": "52",
             "a": "9548.5", "A": "11", "T": T0, "E": T0 + 5}  # fmt: skip
    assert feed(quote)[Slot.QUOTE]["source"] == "binance.coinm"
    update = {"e": "depthUpdate", "E": T0 + 2, "T": T0, "s": "BTCUSD_200626", "ps": "BTCUSD", "U": 17285681,
              "u": 17285702, "pu": 17285675, "b": [["9517.6", "10"]], "a": [["9518.5", "45"]]}  # fmt: skip
    assert feed(update)[Slot.BOOK_DELTA]["source"] == "binance.coinm"
    rest = {"lastUpdateId": 17285690, "symbol": "BTCUSD_200626", "pair": "BTCUSD", "E": T0 + 9, "T": T0 + 8,
            "bids": [["9517.6", "431"]], "asks": [["9518.5", "12"]]}  # fmt: skip
    assert feed(rest)[Slot.BOOK_DELTA]["symbol"] == "BTCUSD_200626"
    aggregate = {"e": "aggTrade", "E": T0, "a": 424951, "s": "BTCUSD_PERP", "p": "9643.5", "q": "2", "f": 606073,
                 "l": 606073, "T": T0, "m": False}  # fmt: skip
    assert feed(aggregate)[Slot.TRADE]["source"] == "binance.coinm"
    single = {**trade(), "s": "BTCUSD_PERP"}
    assert feed(single)[Slot.TRADE]["source"] == "binance.coinm"
    row = feed({**quote, "u": 17285703, "b": "9548.2"})[Slot.QUOTE]
    assert (row["bid_pxs"], row["bid_szs"]) == ((9517.6,), (10.0,)), "the change reaches back to the snapshot"
    assert Feed()({**quote, "s": "BTCUSDT_240628"})[Slot.QUOTE]["source"] == "binance.usdm"


def test_the_market_can_be_named() -> None:
    """Then it holds for every message, whatever its shape."""
    assert Feed(market="coinm")(book_ticker(futures=False))[Slot.QUOTE]["source"] == "binance.coinm"


def test_spot_and_futures_of_one_name_are_two_instruments() -> None:
    """Their tops, books and ids never mix."""
    feed = Feed()
    feed(trade(7))
    assert set(feed(trade(500, futures=False))) == {Slot.TRADE}
    feed(book_ticker(bid="90"))
    assert feed(trade(501, futures=False))[Slot.TRADE]["bid_px1"] is None


def test_every_symbol_has_its_own_state() -> None:
    """One symbol's hole is not another's."""
    feed = Feed()
    feed(book_ticker(symbol="AAAUSDT"))
    assert feed(book_ticker(symbol="BBBUSDT"))
    feed(depth(1, 2, 0, symbol="AAAUSDT"))
    assert not feed(depth(50, 60, 49, symbol="BBBUSDT"))
    assert not feed(depth(3, 4, 2, symbol="AAAUSDT"))


def test_symbols_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One symbol more takes the place of the one seen first, and is counted."""
    monkeypatch.setattr(state, "SYMBOLS_MAX", 3)
    feed = Feed()
    for symbol, _ in itertools.product(("A", "B", "C", "D"), range(2)):
        feed(book_ticker(symbol=symbol))
    assert feed.normaliser.filtered == {"quote_repeated": 4, "symbol_evicted": 1}
    assert feed(book_ticker(symbol="A")), "its state began anew"
    assert not feed(book_ticker(symbol="D"))


def test_rows_pass_the_batch_builder() -> None:
    """Every kind of row has the types its table wants."""
    feed = Feed(book_deltas=True, sample_ms=10)
    bad: list[BadRow] = []
    tables = {table.name: table for table in PACK.tables}
    builders = {
        name: BatchBuilder(tables[name], epoch=1, run_id="r", on_bad=bad.append)
        for name in ("market_data", "book_deltas", "system_events")
    }
    slots = set()
    for message in (depth(1, 2, 0), snapshot(3, T=T0), trade(1), depth(9, 9, 8), book_ticker(), trade(5)):
        feed.ts_local += 20 * MS
        for row in feed.normaliser.normalise(Message(raw(message), feed.ts_local)):
            list(builders[row.table].add([(row.row, feed.ts_local, None, 100)]))
            slots.add(row.slot)
    assert not bad
    assert slots == {slot for slot in Slot if slot < Slot.ORDER}
    assert all(builder.rows for builder in builders.values())
