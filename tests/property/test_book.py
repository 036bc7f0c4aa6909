"""The maintained book against a dict that sorts everything each time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.normalise.binance.book import Book, Level, Top
from recorder.normalise.binance.ids import REPEATS_MAX
from recorder.normalise.binance.sync import BUFFER_EVENTS_MAX, BUFFER_LEVELS_MAX, BookSync, Change, Taken

PRICES = st.integers(1, 60).map(lambda ticks: ticks / 10)
LEVELS = st.lists(st.tuples(PRICES, st.sampled_from([0.0, 1.0, 2.5, 1e-8])), max_size=12)


class Naive:
    """A book as one would write it first."""

    def __init__(self, bids: list[Level], asks: list[Level]):
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}
        self.apply(bids, asks)

    def apply(self, bids: list[Level], asks: list[Level]) -> None:
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            side.update(levels)
            for price in [price for price, size in side.items() if not size]:
                del side[price]

    def top(self, count: int) -> Top:
        bids = sorted(self.bids.items(), reverse=True)[:count]
        asks = sorted(self.asks.items())[:count]
        return Top(
            tuple(p for p, _ in bids),
            tuple(s for _, s in bids),
            tuple(p for p, _ in asks),
            tuple(s for _, s in asks),
        )


@given(
    bids=LEVELS,
    asks=LEVELS,
    changes=st.lists(st.tuples(LEVELS, LEVELS), max_size=20),
    count=st.integers(1, 20),
)
def test_the_top_is_the_naive_books_top(
    bids: list[Level], asks: list[Level], changes: list[tuple[list[Level], list[Level]]], count: int
) -> None:
    """After any snapshot and any changes: repeated prices, removals of what is not there, empty sides."""
    book, naive = Book(bids, asks), Naive(bids, asks)
    assert book.top(count) == naive.top(count)
    for change in changes:
        book.apply(*change)
        naive.apply(*change)
        assert book.top(count) == naive.top(count)
        assert len(book.bids) == len(naive.bids)


@given(changes=st.lists(st.tuples(LEVELS, LEVELS), max_size=20))
def test_a_full_side_loses_its_worst_levels_only(changes: list[tuple[list[Level], list[Level]]]) -> None:
    """The bound holds after every change, and what is left is in order and best first."""
    book = Book([], [], levels_max=8)
    for change in changes:
        book.apply(*change)
        assert len(book.bids) <= 8
        assert len(book.asks) <= 8
        top = book.top(8)
        assert list(top.bid_pxs) == sorted(set(top.bid_pxs), reverse=True)
        assert list(top.ask_pxs) == sorted(set(top.ask_pxs))
    worst_first = Book([], [], levels_max=8)
    for price in range(1, 101):
        worst_first.apply([(float(price), 1.0)], [(200.0 - price, 1.0)])
        assert worst_first.top(3).bid_pxs[0] == price
        assert worst_first.top(3).ask_pxs[0] == 200.0 - price


@given(
    data=st.data(),
    futures=st.booleans(),
    steps=st.lists(st.tuples(st.integers(1, 4), LEVELS, LEVELS), min_size=1, max_size=25),
)
@settings(max_examples=300)
def test_a_book_in_sync_is_the_venues_book_at_that_id(
    data: st.DataObject, futures: bool, steps: list[tuple[int, list[Level], list[Level]]]
) -> None:
    """Whatever is lost, repeated or snapshotted when: either no levels, or exactly the venue's."""
    truth = Naive([], [])
    venue: list[tuple[Change, Top, tuple[list[Level], list[Level]]]] = []
    last = 100
    for ids, bids, asks in steps:
        skipped = data.draw(st.integers(0, 2)) if futures else 0  # ids of other symbols lie between
        change = Change(last + 1 + skipped, last + skipped + ids, last if futures else None, bids, asks)
        last = change.last
        truth.apply(bids, asks)
        venue.append((change, truth.top(5), (list(truth.bids.items()), list(truth.asks.items()))))
    sync = BookSync(5)
    held = -1
    for position, (change, _, _) in enumerate(venue):
        if data.draw(st.sampled_from(["come", "come", "come", "lost"])) == "come":
            _, hole = sync.change(change)
            assert (hole is not None) == (held >= 0 and held != position - 1)
            held = position
        for _ in range(data.draw(st.integers(0, 1))):  # a snapshot, of any time up to now
            at = data.draw(st.integers(0, position))
            sync.snapshot(venue[at][0].last, *venue[at][2])
        if held >= 0 and data.draw(st.booleans()):
            assert sync.change(venue[held][0]) == (Taken.REPEATED, None)
        tops = {change.last: top for change, top, _ in venue}
        if sync.in_sync:
            assert sync.top == tops[sync._book_id]
            assert sync._book_id >= (sync.stream_id or 0)
        else:
            assert sync.top == Top()


def test_the_buffer_is_bounded() -> None:
    """Without a snapshot the oldest changes go; a snapshot from before the first kept one is of no use."""
    sync = BookSync(5)
    for i in range(BUFFER_EVENTS_MAX + 10):
        sync.change(Change(i + 1, i + 1, None, [(1.0, 1.0)], []))
    assert len(sync._buffer) == BUFFER_EVENTS_MAX
    assert not sync.snapshot(5, [(1.0, 1.0)], [])
    assert sync.snapshot(10, [(1.0, 1.0)], [])
    wide = BookSync(5)
    for i in range(10):
        wide.change(Change(i + 1, i + 1, None, [(float(n + 1), 1.0) for n in range(6_000)], []))
    assert wide._buffered_levels <= BUFFER_LEVELS_MAX


@pytest.mark.parametrize(
    ("futures", "first", "last", "before", "joins"),
    [
        (False, 11, 12, None, True),  # follows the snapshot at 10
        (False, 9, 11, None, True),  # overlaps it
        (False, 12, 13, None, False),  # 11 is missing
        (True, 11, 15, 10, True),
        (True, 9, 15, 8, True),
        (True, 14, 15, 11, False),
    ],
)
@pytest.mark.parametrize("snapshot_first", [True, False])
def test_the_first_change_must_reach_back_to_the_snapshot(
    futures: bool, first: int, last: int, before: int | None, joins: bool, snapshot_first: bool
) -> None:
    """The boundaries of the venue's rules, whichever comes first; what does not join leaves no levels."""
    sync = BookSync(5)
    change = Change(first, last, before, [(2.0, 2.0)], [])
    if snapshot_first:
        assert sync.snapshot(10, [(1.0, 1.0)], [])
        sync.change(change)
    else:
        sync.change(change)
        assert sync.snapshot(10, [(1.0, 1.0)], []) == joins
    assert sync.in_sync == joins
    assert sync.top.bid_pxs == ((2.0, 1.0) if joins else ())


@pytest.mark.parametrize("before", [None, 3])
def test_what_the_snapshot_has_already_is_dropped(before: int | None) -> None:
    """A change that ends before the snapshot does not turn its levels back."""
    sync = BookSync(5)
    sync.change(Change(4, 9, before, [(1.0, 7.0)], []))
    assert sync.snapshot(10, [(1.0, 1.0)], [])
    assert sync.top.bid_szs == (1.0,)


def test_a_numbering_that_begins_anew_drops_the_book() -> None:
    """After many repeats in a row the venue counts from another number: the old book is of no use."""
    sync = BookSync(5)
    sync.snapshot(10**9, [(1.0, 1.0)], [])
    sync.change(Change(10**9 + 1, 10**9 + 1, None, [], []))
    holes = [sync.change(Change(i, i, None, [], []))[1] for i in range(1, REPEATS_MAX + 2)]
    assert [hole is not None for hole in holes] == [False] * REPEATS_MAX + [True]
    assert not sync.in_sync
    assert sync.lost
