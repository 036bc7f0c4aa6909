"""A cut of earlier runs that waits for an answer: others of now go on, and what must come after it does."""

from __future__ import annotations

import asyncio
from collections import deque

from recorder.lane import Cut, Lane
from recorder.pulse import Pulse
from wal.places import Range


class Earlier:
    """What earlier runs left: so many cuts."""

    def __init__(self, count: int):
        self.cuts = deque(Cut([], 0, 1, places=(Range(1, n, n + 1),)) for n in range(count))

    async def next(self) -> Cut | None:
        await asyncio.sleep(0)
        return self.cuts.popleft() if self.cuts else None


def lane_of(count: int) -> Lane:
    return Lane(batch_rows=3, pulse=Pulse(), earlier=Earlier(count))


def cut(first: int, *, from_source: bool = False) -> Cut:
    return Cut([], first + 1, 1, ((first, 1),), (Range(7, first, first + 1),), from_source)


async def soon(lane: Lane) -> Cut | None:
    """The next, if there is one now."""
    try:
        async with asyncio.timeout(0.05):
            return await lane.next()
    except TimeoutError:
        return None


async def test_rows_of_now_go_on_and_earlier_ones_wait() -> None:
    """While a cut is parked, no other of earlier runs is given, and those of memory are; then it comes."""
    lane = lane_of(2)
    first = await lane.next()
    lane.park(first)
    assert lane.parked
    assert lane.waiting
    assert await soon(lane) is None
    await lane.put(cut(0))
    now = await lane.next()
    assert now.upto == 1
    lane.unpark(first)
    assert await lane.next() is first
    lane.done(first)
    assert not lane.parked
    assert (await lane.next()).places == (Range(1, 1, 2),)


async def test_rows_that_a_source_repeats_wait_for_it() -> None:
    """They may be among its rows, which must be found whole or not at all: in memory, and on the log alone."""
    lane = lane_of(1)
    first = await lane.next()
    lane.park(first)
    await lane.put(cut(0, from_source=True))
    await lane.put(cut(1, from_source=True))
    assert await soon(lane) is None
    waiting = asyncio.create_task(lane.next())
    await asyncio.sleep(0)
    lane.unpark(first)
    assert await waiting is first
    lane.done(first)
    assert sorted([(await lane.next()).upto, (await lane.next()).upto]) == [1, 2]


async def test_what_is_looked_up_again_waits_for_it() -> None:
    """Rows that the database had confirmed before it restarted come after the parked ones, which may be the same."""
    lane = lane_of(1)
    first = await lane.next()
    lane.park(first)
    again = Cut([], 0, 1, places=(Range(1, 5, 6),), from_source=True, recheck=True)
    lane.recheck([again])
    assert await soon(lane) is None
    lane.unpark(first)
    assert [await lane.next(), await lane.next()] == [first, again]
