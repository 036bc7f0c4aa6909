"""Laws of the events that an export for hftbacktest makes: each against what one would write first, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

hftbacktest = pytest.importorskip("hftbacktest")
from hftbacktest.data import validate_event_order  # noqa: E402
from hftbacktest.types import (  # noqa: E402
    BUY_EVENT,
    DEPTH_BBO_EVENT,
    DEPTH_CLEAR_EVENT,
    DEPTH_EVENT,
    DEPTH_SNAPSHOT_EVENT,
    EXCH_EVENT,
    LOCAL_EVENT,
    SELL_EVENT,
    TRADE_EVENT,
)

from recorder.export_hftbacktest.correct import corrected  # noqa: E402
from recorder.export_hftbacktest.errors import NegativeLatency  # noqa: E402
from recorder.export_hftbacktest.events import assemble, book_events, trade_events  # noqa: E402
from recorder.export_hftbacktest.latency import order_latencies  # noqa: E402
from recorder.export_hftbacktest.order import ranks, venue_times_ns  # noqa: E402
from recorder.export_hftbacktest.top import bbo_events, one_level_events  # noqa: E402

unhurried = settings(deadline=None)
"""The first example of a test loads or compiles what the others have."""
T0 = 1_723_161_255_000_000_000
PRICES = st.sampled_from([99.5, 100.0, 100.5, 101.0])
SIZES = st.sampled_from([0.0, 1.0, 2.5])
LEVELS = st.lists(st.tuples(PRICES, SIZES), max_size=4)
TIMES = st.tuples(st.integers(0, 8), st.none() | st.integers(0, 8))
SCHEMA = [("local_ns", pa.int64()), ("venue_ns", pa.int64()), ("_log", pa.uint64()), ("_seq", pa.uint64())]
TRADES = pa.schema([*SCHEMA, ("px", pa.float64()), ("qty", pa.float64()), ("is_sell", pa.uint8())])
BOOK = pa.schema(
    [
        *SCHEMA,
        *((f"{side}_{what}", pa.list_(pa.float64())) for side in ("bid", "ask") for what in ("pxs", "szs")),
        ("is_snapshot", pa.bool_()),
    ]
)
QUOTES = pa.schema(
    [*SCHEMA, *((f"{side}_{what}", pa.float64()) for side in ("bid", "ask") for what in ("px", "sz"))]
)
MESSAGE = st.one_of(
    st.tuples(st.just("trade"), TIMES, PRICES, SIZES, st.booleans()),
    st.tuples(st.just("book"), TIMES, LEVELS, LEVELS, st.booleans()),
)
SIDE = st.none() | st.tuples(PRICES, st.sampled_from([1.0, 2.5]))


def own(number: int, times: tuple[int, int | None]) -> dict[str, Any]:
    """The columns of a row that any kind has; all in one log, in the order of `number`."""
    local, venue = times
    return {
        "local_ns": T0 + local,
        "venue_ns": None if venue is None else T0 + venue,
        "_log": 2**64 - 1,
        "_seq": number * 4_096,
    }


def message_events(message: tuple[Any, ...]) -> list[tuple[int, float, float]]:
    """Kind, price and size of the events of a message, as hftbacktest's own converter writes them."""
    if message[0] == "trade":
        _, _, px, qty, sell = message
        return [(TRADE_EVENT | (SELL_EVENT if sell else BUY_EVENT), px, qty)]
    _, _, bids, asks, snapshot = message
    events = []
    for levels, side in ((bids, BUY_EVENT), (asks, SELL_EVENT)):
        if snapshot and levels:
            events.append((DEPTH_CLEAR_EVENT | side, levels[-1][0], 0.0))
        kind = DEPTH_SNAPSHOT_EVENT if snapshot else DEPTH_EVENT
        events += [(kind | side, px, qty) for px, qty in levels]
    return events


@unhurried
@given(messages=st.lists(MESSAGE, max_size=12), shuffle=st.randoms(use_true_random=False))
def test_messages_become_the_events_of_hftbacktests_own_converter(
    messages: list[tuple[Any, ...]], shuffle: Any
) -> None:
    """In the order of their log, whatever the order they are read in and however the local clock steps."""
    trades, books = [], []
    for number, message in enumerate(messages):
        row = own(number, message[1])
        if message[0] == "trade":
            trades.append(row | {"px": message[2], "qty": message[3], "is_sell": int(message[4])})
        else:
            levels = {
                f"{side}_{what}": [level[index] for level in message[place]]
                for place, side in ((2, "bid"), (3, "ask"))
                for index, what in ((0, "pxs"), (1, "szs"))
            }
            books.append(row | levels | {"is_snapshot": message[4]})
    shuffle.shuffle(trades)
    shuffle.shuffle(books)
    made = assemble(
        {
            "trades": trade_events(pa.Table.from_pylist(trades, TRADES)),
            "book": book_events(pa.Table.from_pylist(books, BOOK)),
        },
        local_offset_ns=5,
    )
    expected = [(*event, T0 + message[1][0] + 5) for message in messages for event in message_events(message)]
    got = [tuple(row) for row in made.events[["ev", "px", "qty", "local_ts"]].tolist()]
    assert got == expected
    venue = [message[1][1] for message in messages for _ in message_events(message)]
    for event, time in zip(made.events, venue, strict=True):
        assert time is None or event["exch_ts"] == T0 + time
    assert made.without_venue_time == sum(
        1 for message in messages if message[1][1] is None and message_events(message)
    )


@unhurried
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 2), st.integers(0, 5)), unique_by=lambda r: r[1:]
    )
)
def test_logs_are_merged_by_time_and_none_is_reordered(rows: list[tuple[int, int, int]]) -> None:
    """Rows of one log stay in its order; of two logs whose clocks never step back the earlier row goes first."""
    times, logs, seqs = (
        (np.array(values, np.int64) for values in zip(*rows, strict=True)) if rows else ([],) * 3
    )
    placed = ranks(np.asarray(times), np.asarray(logs, np.uint64), np.asarray(seqs, np.uint64))
    assert sorted(placed) == list(range(len(rows)))
    came = [rows[index] for index in np.argsort(placed)]
    latest: dict[int, tuple[int, int]] = {}
    clock = 0
    for time, log, seq in came:
        before, last_seq = latest.get(log, (0, -1))
        assert seq > last_seq
        running = max(before, time)
        assert running >= clock
        clock = running
        latest[log] = (running, seq)


@unhurried
@given(quotes=st.lists(st.tuples(TIMES, SIDE, SIDE), max_size=12), shuffle=st.randoms(use_true_random=False))
def test_a_book_of_one_level_is_each_quote_in_turn(quotes: list[Any], shuffle: Any) -> None:
    """After the events of a quote the book has its best bid and ask, and nothing else; BBO events say the same."""
    rows = []
    for number, (times, bid, ask) in enumerate(quotes):
        sides = {
            f"{side}_{what}": None if level is None else level[index]
            for side, level in (("bid", bid), ("ask", ask))
            for index, what in ((0, "px"), (1, "sz"))
        }
        rows.append(own(number, times) | sides)
    order = list(range(len(rows)))
    shuffle.shuffle(order)
    table = pa.Table.from_pylist([rows[index] for index in order], QUOTES)
    depth, bbo = one_level_events(table), bbo_events(table)

    by_quote: dict[int, list[tuple[int, int, float, float]]] = {}
    said: dict[int, list[tuple[int, float, float]]] = {}
    for kept, found in ((depth, by_quote), (bbo, said)):
        for piece in kept.pieces:
            for row, *event in zip(piece.row, piece.place, piece.ev, piece.px, piece.qty, strict=True):
                found.setdefault(order[row], []).append(tuple(event))  # type: ignore[arg-type]
    book: dict[int, dict[float, float]] = {BUY_EVENT: {}, SELL_EVENT: {}}
    for number, (_, bid, ask) in enumerate(quotes):
        events = sorted(by_quote.get(number, []))
        assert [event[0] for event in events] == list(range(len(events)))
        sizes = [bool(event[3]) for event in events]
        assert sizes == sorted(
            sizes
        )  # what is left goes before anything new: no bid stands above an ask meanwhile
        for _, kind, px, qty in events:
            side = int(kind) - DEPTH_EVENT
            if qty:
                book[side][px] = qty
            else:
                del book[side][px]
        assert book == {
            BUY_EVENT: dict([bid]) if bid else {},
            SELL_EVENT: dict([ask]) if ask else {},
        }
        expected = [
            (DEPTH_BBO_EVENT | side, *level) for side, level in ((BUY_EVENT, bid), (SELL_EVENT, ask)) if level
        ]
        assert [event[1:] for event in sorted(said.get(number, []))] == expected


@unhurried
@given(
    times=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=15),
    base_ns=st.integers(0, 3),
)
def test_what_is_corrected_passes_the_validator_and_loses_nothing(
    times: list[tuple[int, int]], base_ns: int
) -> None:
    """Each event is handled once by the venue and once here, at times that are right by one common shift."""
    rows = [
        own(number, (local, venue)) | {"px": float(number + 1), "qty": 1.0, "is_sell": 0}
        for number, (local, venue) in enumerate(times)
    ]
    made = assemble({"trades": trade_events(pa.Table.from_pylist(rows, TRADES))})
    mended = corrected(made.events, base_latency_ns=base_ns)
    validate_event_order(mended.events)
    least = min(local - venue for local, venue in times)
    assert mended.least_latency_ns == least
    assert mended.shift_ns == (base_ns - least if least < 0 else 0)
    for flag in (EXCH_EVENT, LOCAL_EVENT):
        handled = mended.events[mended.events["ev"] & flag == flag]
        assert sorted(zip(handled["px"], handled["exch_ts"], handled["local_ts"], strict=True)) == [
            (number + 1, T0 + venue, T0 + local + mended.shift_ns)
            for number, (local, venue) in enumerate(times)
        ]
    if least < 0:
        trades = trade_events(pa.Table.from_pylist(rows, TRADES))
        again = assemble({"trades": trades}, local_offset_ns=-2)
        said = f"{2 - least} ns before its venue time.* add at least {2 - least} ns to the local offset"
        with pytest.raises(NegativeLatency, match=said):
            corrected(again.events, refuse_negative=True)
        enough = assemble({"trades": trades}, local_offset_ns=-least)
        assert corrected(enough.events, refuse_negative=True).shift_ns == 0


@unhurried
@given(times=st.lists(TIMES, max_size=12))
def test_a_missing_venue_time_is_as_late_as_the_others(times: list[tuple[int, int | None]]) -> None:
    """Known times stay; the others lie behind the local time by the median latency, so the least one stays."""
    local = np.array([each[0] for each in times], np.int64)
    known = np.array([each[1] is not None for each in times], np.bool_)
    given_ns = np.array([each[1] or 0 for each in times], np.int64)
    found = venue_times_ns(local, given_ns, known)
    assert (found[known] == given_ns[known]).all()
    if not known.any():
        assert (found == local).all()
    elif not known.all():
        (lag,) = set((local - found)[~known].tolist())
        assert lag == int(np.median((local - given_ns)[known]))


@unhurried
@given(
    orders=st.lists(st.tuples(st.none() | st.integers(0, 50), st.none() | st.integers(0, 50))),
    share=st.floats(0, 1),
    shift_ns=st.integers(-5, 5),
)
def test_order_latencies_are_possible_sorted_and_accounted_for(
    orders: list[tuple[int | None, int | None]], share: float, shift_ns: int
) -> None:
    """Each order is in the file or counted as left out; the venue has it between sending and acknowledgement."""
    schema = pa.schema([("sent_ns", pa.int64()), ("acked_ns", pa.int64())])
    table = pa.Table.from_pylist([{"sent_ns": sent, "acked_ns": acked} for sent, acked in orders], schema)
    found = order_latencies(table, entry_share=share, shift_ns=shift_ns)
    whole = [(sent, acked) for sent, acked in orders if sent is not None and acked is not None]
    possible = sorted((sent + shift_ns, acked + shift_ns) for sent, acked in whole if sent <= acked)
    assert [(req, resp) for req, _, resp, _ in found.rows.tolist()] == possible
    assert all(req <= exch <= resp for req, exch, resp, _ in found.rows.tolist())
    assert found.unanswered == len(orders) - len(whole)
    assert found.impossible == len(whole) - len(possible)
