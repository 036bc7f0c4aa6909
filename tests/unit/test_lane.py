"""What waits for a table's worker: memory first, the log beside it, each cut once, resolved in order."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from recorder.batch import Batch
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


def cut(first: int, rows: int = 1, *, logged: bool = True, from_source: bool = False) -> Cut:
    places = (Range(7, first, first + rows),) if logged else ()
    return Cut([], first + rows, rows, ((first, rows),), places, from_source)


async def test_what_finds_no_room_waits_on_the_log_and_joins() -> None:
    """Memory holds the first; what follows is on the log alone, up to a batch together; nothing blocks."""
    lane = Lane(batch_rows=3, pulse=Pulse())
    for n in range(8):
        await lane.put(cut(n))
    first = await lane.next()
    assert (first.places, first.upto) == ((Range(7, 0, 1),), 1)
    later = [await lane.next() for _ in range(3)]
    assert [one.places for one in later] == [(Range(7, 1, 4),), (Range(7, 4, 7),), (Range(7, 7, 8),)]
    assert [one.upto for one in later] == [4, 7, 8]
    assert [one.rows for one in later] == [3, 3, 1]
    for one in later:
        lane.done(one)
    assert lane.resolved_upto == 0
    lane.done(first)
    assert lane.resolved_upto == 8
    assert not lane.waiting


async def test_what_is_not_on_the_log_waits_for_room() -> None:
    """Whoever brings it waits until the worker takes what is before it."""
    lane = Lane(batch_rows=3, pulse=Pulse())
    await lane.put(cut(0, logged=False))
    putting = asyncio.create_task(lane.put(cut(1, logged=False)))
    await asyncio.sleep(0.01)
    assert not putting.done()
    assert (await lane.next()).upto == 1
    await putting
    assert (await lane.next()).upto == 2
    assert [one.upto for one in lane.unresolved()] == [1, 2]


async def test_what_the_log_cannot_give_back_stays_in_memory_and_keeps_no_others_waiting() -> None:
    """Its disk is gone: what left memory before waits until that is back, what comes goes on from memory."""
    lane = Lane(batch_rows=1, pulse=Pulse())
    await lane.put(cut(0))
    await lane.put(cut(1))
    lane.readable = lambda places: False
    taken = [(await lane.next()).upto]
    for n in range(2, 5):
        await lane.put(cut(n))
        taken.append((await lane.next()).upto)
    assert taken == [1, 3, 4, 5]
    await lane.put(cut(5))
    putting = asyncio.create_task(lane.put(cut(6)))
    await asyncio.sleep(0.05)
    assert not putting.done(), "its rows left memory, and are nowhere else"
    assert (await lane.next()).upto == 6
    await putting
    assert (await lane.next()).upto == 7
    waiting = asyncio.create_task(lane.next())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    lane.readable = lambda places: True
    assert (await waiting).upto == 2


async def test_new_rows_do_not_wait_for_a_backlog_and_it_drains() -> None:
    """Turn by turn, memory first, and before both what is older than the backlog."""
    lane = Lane(batch_rows=1, pulse=Pulse())
    for n in range(4):
        await lane.put(cut(n))
    taken = []
    for n in range(4, 8):
        taken.append((await lane.next()).upto)
        await lane.put(cut(n))
    assert taken == [1, 5, 2, 6]


async def test_what_waited_in_memory_before_the_trouble_goes_before_the_backlog() -> None:
    """Rows come in their order: the cut that was under way, that behind it, and then what left memory."""
    lane = Lane(batch_rows=1, pulse=Pulse())
    await lane.put(cut(0))
    taken = [await lane.next()]
    for n in range(1, 4):
        await lane.put(cut(n))
    taken += [await lane.next() for _ in range(3)]
    assert [one.upto for one in taken] == [1, 2, 3, 4]


async def test_what_is_done_is_not_held() -> None:
    """New rows that are in while the backlog drains wait for it as numbers: memory has let go of them."""
    lane = Lane(batch_rows=1, pulse=Pulse())
    rows = pa.RecordBatch.from_pydict({"n": [1]})
    for n in range(3):
        await lane.put(replace(cut(n), batches=[Batch("t", rows, 0)]))
        if n == 0:
            await lane.next()
    new = await lane.next()
    assert new.batches
    lane.done(new)
    assert lane.resolved_upto == 0
    assert not new.batches


async def test_repeated_rows_wait_for_what_earlier_runs_left() -> None:
    """They may be among it; rows that nobody ever had go before."""
    lane = Lane(batch_rows=10, pulse=Pulse(), earlier=Earlier(3))
    await lane.put(cut(0, from_source=True))
    assert [(await lane.next()).upto for _ in range(4)] == [0, 0, 0, 1]
    lane = Lane(batch_rows=10, pulse=Pulse(), earlier=Earlier(3))
    await lane.put(cut(0))
    assert [(await lane.next()).upto for _ in range(4)] == [1, 0, 0, 0]


async def test_a_worker_that_waits_is_woken() -> None:
    """By a cut, and by rows that are to be looked up again."""
    lane = Lane(batch_rows=10, pulse=Pulse())
    taking = asyncio.create_task(lane.next())
    await asyncio.sleep(0.01)
    await lane.put(cut(0))
    assert (await asyncio.wait_for(taking, 5)).upto == 1
    taking = asyncio.create_task(lane.next())
    await asyncio.sleep(0.01)
    lane.recheck([Cut([], 0, 5, places=(Range(9, 0, 5),), recheck=True)])
    found = await asyncio.wait_for(taking, 5)
    assert found.recheck
    lane.done(found)
    assert lane.resolved_upto == 0


STEPS = st.lists(st.sampled_from(["put", "put source", "next", "done", "recheck"]), max_size=60)


@given(STEPS, st.integers(1, 4), st.integers(0, 3), st.randoms(use_true_random=False))
def test_every_row_comes_once_and_is_resolved_in_order(
    steps: list[str], batch_rows: int, earlier: int, rng: object
) -> None:
    """In whatever order the worker is done with them: resolved is what all before is, and no further."""

    async def run() -> None:
        lane = Lane(batch_rows, Pulse(), Earlier(earlier) if earlier else None)
        put, taken, done = 0, [], []
        rechecks = 0
        for step in steps:
            if step.startswith("put"):
                await lane.put(cut(put, from_source=step.endswith("source")))
                put += 1
            elif step == "next" and (lane.waiting or lane.earlier):
                try:
                    taken.append(await asyncio.wait_for(lane.next(), 0.05))
                except TimeoutError:
                    assert not lane.waiting
            elif step == "done" and taken:
                one = taken.pop(rng.randrange(len(taken)))  # type: ignore[attr-defined]
                lane.done(one)
                done.append(one)
            elif step == "recheck":
                lane.recheck([Cut([], 0, 1, places=(Range(9, rechecks, rechecks + 1),), recheck=True)])
                rechecks += 1
            own = sorted(
                n
                for one in done
                for place in one.places
                if place.epoch == 7
                for n in range(place.first, place.stop)
            )
            whole = next((n for n, sequence in enumerate([*own, -1]) if n != sequence), 0)
            assert lane.resolved_upto == whole
        while lane.waiting or lane.earlier:
            try:
                taken.append(await asyncio.wait_for(lane.next(), 0.05))
            except TimeoutError:
                break
        for one in taken:
            lane.done(one)
        places = [place for one in [*done, *taken] for place in one.places]
        rows = [(place.epoch, n) for place in places for n in range(place.first, place.stop)]
        expected = (
            [(7, n) for n in range(put)]
            + [(1, n) for n in range(earlier)]
            + [(9, n) for n in range(rechecks)]
        )
        assert sorted(rows) == sorted(expected)
        assert lane.resolved_upto == put

    asyncio.run(run())
