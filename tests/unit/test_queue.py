"""The queue under real threads, its overflow policies, and what it holds in memory."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import time
import tracemalloc
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from recorder.backlog import QueueLimits
from recorder.door import Door, key_of
from recorder.entries import Block, Waiting, Watched, rows_in
from recorder.flush_policy import FlushPolicy
from recorder.pipeline import TablePipeline
from recorder.queue import TableQueue
from recorder.shed import ShedLedger
from schemas.core.tables import PACK
from schemas.policy import Overflow


def queue_of(overflow: Overflow = Overflow.SPILL, **changes: Any) -> TableQueue:
    limits = {
        "max_rows": 100,
        "max_bytes": 1 << 20,
        "high_watermark": 0.8,
        "low_watermark": 0.5,
        "overflow": overflow,
        "overflow_second": Overflow.DROP_OLDEST,
        "block_timeout_s": 0.05,
    }
    wake = changes.pop("wake", lambda: None)
    return TableQueue(
        QueueLimits(**(limits | changes)), columns=2, wake=wake, shed=ShedLedger(), key_of=lambda row: row[1]
    )


def entry(number: int, key: Any = "k", wide: int = 0) -> tuple[Any, int, None, int]:
    return ((number, key), number, None, wide)


def block(rows: int, wide: int = 0) -> Block:
    return Block([(n, "b") for n in range(rows)], 0, 7, range(rows), wide)


def received(queue: TableQueue) -> int:
    return queue.taken_rows + queue.displaced_rows + queue.refused_rows + queue.waiting_rows


def numbers(queue: TableQueue, most: int = 1_000) -> list[int]:
    return [taken[0][0] for taken in queue.drain(most)]


@pytest.mark.parametrize("threads", [2, 8])
def test_rows_of_many_threads_all_arrive_in_each_threads_order(threads: int) -> None:
    """No row is lost and none overtakes another of its thread; no wake is lost while the consumer sleeps and wakes."""
    rows = 20_000 // threads
    woken = threading.Event()
    queue = queue_of(max_rows=1_000_000, max_bytes=1 << 30, wake=woken.set)

    def produce(thread: int) -> None:
        for n in range(rows):
            assert queue.put(((thread, n), n, None, n % 3))

    producers = [threading.Thread(target=produce, args=(n,)) for n in range(threads)]
    for producer in producers:
        producer.start()
    taken: list[tuple[int, int]] = []
    while len(taken) < threads * rows:
        taken += [one[0] for one in queue.drain(256)]
        woken.clear()
        if queue.arm() and len(taken) < threads * rows:
            assert woken.wait(30), "a row came to a sleeping consumer and nobody woke it"
    for producer in producers:
        producer.join()
    for thread in range(threads):
        assert [n for of, n in taken if of == thread] == list(range(rows))
    assert received(queue) == queue.taken_rows == threads * rows
    assert queue.waiting_bytes == 0


@pytest.mark.parametrize(
    "overflow", [Overflow.DROP_OLDEST, Overflow.CONFLATE, Overflow.SAMPLE, Overflow.SPILL]
)
def test_no_row_is_uncounted_when_threads_overflow_a_queue(overflow: Overflow) -> None:
    """Producers that race each other and the consumer at a full queue: every row is taken, displaced or refused."""
    queue = queue_of(overflow, max_rows=50)
    offered, accepted = itertools.count(), itertools.count()
    rows, threads = 5_000, 4

    def produce(thread: int) -> None:
        for n in range(rows):
            next(offered)
            if queue.put(entry(n, f"{thread}-{n % 20}", n % 2 * 100)):
                next(accepted)

    producers = [threading.Thread(target=produce, args=(n,)) for n in range(threads)]
    for producer in producers:
        producer.start()
    taken = 0
    while any(producer.is_alive() for producer in producers):
        taken += len(queue.drain(64))
    while entries := queue.drain(64):
        taken += len(entries)
    assert next(offered) == threads * rows == received(queue)
    assert next(accepted) == taken + queue.displaced_rows
    assert taken == queue.taken_rows
    assert queue.refused_rows + queue.displaced_rows == queue.shed.rows == threads * rows - taken
    assert queue.waiting_bytes == queue.waiting_rows == 0


def test_conflation_keeps_the_newest_row_of_each_key() -> None:
    """Above the high watermark a key has one row, its newest; others are displaced and counted."""
    queue = queue_of(Overflow.CONFLATE, max_rows=10)  # thins from 8 rows on
    for n in range(8):
        queue.put(entry(n))
    for n in range(8, 100):
        assert queue.put(entry(n, "ab"[n % 2]))
    assert numbers(queue) == [*range(8), 98, 99]
    assert queue.shed.totals == {"conflate": 90}


def test_a_row_without_a_key_is_not_conflated() -> None:
    """A key that cannot be had or hashed leaves the row to the builder, which says what is wrong with it."""
    queue = queue_of(Overflow.CONFLATE, max_rows=10)
    for n in range(8):
        queue.put(entry(n))
    assert queue.put(entry(8, [1]))
    assert queue.put(((9,), 9, None, 0))
    assert [taken[0] for taken in queue.drain(99)][-2:] == [(8, [1]), (9,)]


def test_positions_of_conflated_rows_do_not_pass_rows_that_wait() -> None:
    """A key that changes over and over moves no mark past the row of another key."""
    queue = queue_of(Overflow.CONFLATE, max_rows=10)
    for n in range(8):
        queue.put(entry(n))
    queue.put(entry(8, "waits"))
    upto = queue.position()
    for n in range(9, 60):
        queue.put(entry(n, "busy"))
    queue.drain(4)
    assert queue.drained_upto < upto, "the row of the quiet key has not left"
    queue.drain(99)
    assert queue.drained_upto == queue.position()


def test_sampling_keeps_fewer_rows_the_fuller_the_queue() -> None:
    """Above the high watermark one in N rows is let in; the rest is refused and counted."""
    queue = queue_of(Overflow.SAMPLE, max_rows=100)
    kept = [n for n in range(1_000) if queue.put(entry(n))]
    assert kept[:80] == list(range(80))
    steps = [later - earlier for earlier, later in itertools.pairwise(kept[80:])]
    assert steps, "some rows are kept under pressure"
    assert steps[0] < max(steps), "N rises with pressure"
    assert queue.shed.totals["sample"] == 1_000 - len(kept)
    assert queue.waiting_rows <= 100


def test_block_waits_for_room() -> None:
    """A full queue holds its producer until the consumer has made room."""
    queue = queue_of(Overflow.BLOCK, max_rows=10, block_timeout_s=30)
    for n in range(10):
        queue.put(entry(n))
    done = threading.Event()
    producer = threading.Thread(target=lambda: (queue.put(entry(10)), done.set()))
    producer.start()
    wait_until(lambda: queue._waiting == 1)
    assert not done.is_set()
    assert numbers(queue) == list(range(10))
    assert done.wait(10)
    assert numbers(queue) == [10]
    assert queue.shed.rows == 0


def test_block_ends_with_the_second_policy() -> None:
    """After `block_timeout_s` the second policy decides."""
    queue = queue_of(Overflow.BLOCK, max_rows=10, overflow_second=Overflow.DROP_OLDEST)
    assert [queue.put(entry(n)) for n in range(12)] == [True] * 12
    assert numbers(queue) == list(range(2, 12))
    assert queue.shed.totals == {"drop_oldest": 2}


async def test_block_never_waits_on_an_event_loop() -> None:
    """On a thread that runs an event loop the second policy decides at once."""
    queue = queue_of(Overflow.BLOCK, max_rows=1, block_timeout_s=600)
    queue.put(entry(0))
    assert asyncio.get_running_loop().is_running()
    assert queue.put(entry(1))
    assert numbers(queue) == [1]


def test_a_row_larger_than_the_queue_is_refused_by_every_policy() -> None:
    """It could never fit; what waits is not displaced for it."""
    for overflow in Overflow:
        queue = queue_of(overflow, max_bytes=10_000)
        queue.put(entry(0))
        assert not queue.put(entry(1, wide=10_001))
        assert numbers(queue) == [0], overflow
        assert queue.shed.totals == {"too_large": 1}


def test_rows_without_long_texts_count_against_the_bytes_of_others() -> None:
    """The bytes' bound is one bound: small rows do not come on top of the large ones and of blocks."""
    for waiting in (entry(0, wide=900_000), block(900), block(1, wide=900_000)):
        queue = queue_of(max_rows=10_000)
        if isinstance(waiting, Block):
            queue.put_block(waiting, wait=False)
        else:
            queue.put(waiting)
        while queue.put(entry(1)):
            pass
        assert queue.limits.max_bytes - queue.row_bytes < queue.waiting_bytes <= queue.limits.max_bytes


def test_a_conflated_row_that_grows_stays_within_the_bytes() -> None:
    """The newest row of a key may be far larger than the one it displaces."""
    queue = queue_of(Overflow.CONFLATE, max_rows=100)
    for n in range(100):
        queue.put(entry(n, n))
    for n in range(100):
        queue.put(entry(n, n, wide=100_000))
        assert queue.waiting_bytes <= queue.limits.max_bytes


def test_a_block_waits_for_room_and_its_timeout_sheds_it() -> None:
    """`wait` holds a file's reader; a timeout refuses all rows of the block, and counts them."""
    queue = queue_of(max_rows=10)
    assert queue.put_block(block(8), wait=True) == 8
    assert queue.put_block(block(8), wait=True, timeout_s=0.01) == 0
    assert queue.put_block(block(8), wait=False) == 0
    assert queue.shed.totals == {"full": 16}
    answers: list[int] = []
    reader = threading.Thread(target=lambda: answers.append(queue.put_block(block(8), wait=True)))
    reader.start()
    wait_until(lambda: queue._waiting == 1)
    assert rows_in(queue.drain(1)) == 8
    reader.join(10)
    assert answers == [8]


def test_a_block_larger_than_the_queue_goes_alone() -> None:
    """It is let in when nothing waits, so that a large message of a file is not stuck for ever."""
    queue = queue_of(max_rows=10)
    assert queue.put_block(block(500), wait=True, timeout_s=5) == 500
    assert not queue.put(entry(0))
    assert rows_in(queue.drain(1)) == 500
    assert queue.put(entry(0))


def test_closing_wakes_who_waits_and_refuses_who_comes() -> None:
    """After close no row is let in, and each that comes is counted."""
    queue = queue_of(Overflow.BLOCK, max_rows=10, block_timeout_s=600)
    for n in range(10):
        queue.put(entry(n))
    answers: list[Any] = []
    waiting = [
        threading.Thread(target=lambda: answers.append(queue.put_block(block(5), wait=True))),
        threading.Thread(target=lambda: answers.append(queue.put(entry(10)))),
    ]
    for thread in waiting:
        thread.start()
    wait_until(lambda: queue._waiting == 2)
    queue.close()
    for thread in waiting:
        thread.join(10)
    assert answers == [0, False] or answers == [False, 0]
    queue.drain(100)
    assert not queue.put(entry(11))
    assert queue.waiting_rows == 0
    assert received(queue) == 10 + 5 + 1 + 1 == queue.taken_rows + queue.refused_rows


@pytest.mark.parametrize("wide", [0, 100])
def test_a_row_that_overlaps_the_closing_is_counted(wide: int) -> None:
    """The last drain came between a row's check and its arrival: it is refused, and nothing is left behind."""
    queue = queue_of()

    class Late(deque[Waiting]):
        def append(self, item: Waiting) -> None:
            queue.close()
            queue.drain(1_000)
            super().append(item)

    queue.put(entry(0))
    queue._rows = Late(queue._rows)
    assert not queue.put(entry(1, wide=wide)), "nobody will take it, and its producer is told"
    assert queue.waiting_rows == queue.waiting_bytes == 0
    assert (queue.taken_rows, queue.refused_rows, queue.shed.totals["shutdown"]) == (1, 1, 1)
    assert not queue.put(entry(2))


def test_no_row_is_uncounted_when_a_queue_closes_under_its_producers() -> None:
    """Whenever the queue closes, every row that was offered is taken or refused, and none waits for ever."""
    for _ in range(20):
        queue = queue_of(max_rows=10_000_000, max_bytes=1 << 40)
        offered, refused = itertools.count(), itertools.count()
        started = threading.Barrier(4)

        def produce(
            queue: TableQueue = queue, offered: Any = offered, refused: Any = refused, started: Any = started
        ) -> None:
            started.wait()
            while True:
                next(offered)
                if not queue.put(entry(0)):
                    next(refused)
                    return

        producers = [threading.Thread(target=produce) for _ in range(3)]
        for producer in producers:
            producer.start()
        started.wait()
        time.sleep(0.002)
        queue.close()
        queue.drain(1 << 62)
        for producer in producers:
            producer.join(30)
        assert queue.waiting_rows == 0
        assert next(offered) == queue.taken_rows + queue.refused_rows
        assert queue.refused_rows >= next(refused) == 3


def test_a_watched_row_is_told_when_it_is_displaced() -> None:
    """By the oldest making room, by a newer row of its key, or left behind at the end; never when it was taken."""
    for overflow, reason in ((Overflow.DROP_OLDEST, "drop_oldest"), (Overflow.CONFLATE, "conflate")):
        queue = queue_of(overflow, max_rows=10, high_watermark=0.0001)
        first, last = Watched(entry(0)), Watched(entry(99))
        queue.put(entry(-1, "other"))
        assert queue.put(first)
        for n in range(1, 12):
            queue.put(entry(n))
        assert queue.put(last)
        assert first.displaced, overflow
        assert reason in queue.shed.totals
        assert queue.drain(100)[-1] is last
        assert not last.displaced


@pytest.mark.parametrize(
    "overflow", [Overflow.DROP_OLDEST, Overflow.CONFLATE, Overflow.SAMPLE, Overflow.BLOCK]
)
def test_a_block_displaces_the_oldest_rows(overflow: Overflow) -> None:
    """Where new rows are worth more than old ones, those of a block are too."""
    queue = queue_of(overflow, max_rows=10)
    for n in range(7):
        assert queue.put(entry(n))
    assert queue.put_block(block(5), wait=False) == 5
    assert queue.shed.totals == {"drop_oldest": 2}
    left = queue.drain(100)
    assert [one[0][0] for one in left[:-1]] == [2, 3, 4, 5, 6]  # type: ignore[index]
    assert rows_in(left) == 10


def test_gaps_of_a_window_say_reason_time_and_rows() -> None:
    """One gap a reason, from first to last loss; what could not be told comes back into the next window."""
    ledger = ShedLedger()
    before = time.time_ns()
    ledger.add("full", 2)
    ledger.add("sample", 1)
    ledger.add("full", 3)
    gaps = {gap.reason: gap for gap in ledger.take()}
    assert {reason: gap.rows for reason, gap in gaps.items()} == {"full": 5, "sample": 1}
    assert before <= gaps["full"].first_ns <= gaps["full"].last_ns <= time.time_ns()
    assert ledger.take() == []
    ledger.add("full", 4)
    ledger.put_back(list(gaps.values()))
    again = {gap.reason: gap for gap in ledger.take()}
    assert again["full"].rows == 9
    assert again["full"].first_ns == gaps["full"].first_ns
    assert again["full"].last_ns >= gaps["full"].last_ns
    assert again["sample"] == gaps["sample"]
    assert ledger.rows == 10, "a window that comes back is not counted anew"


async def test_a_balance_is_one_moment() -> None:
    """Rows that come between two reads of a count do not make the balance inexact."""

    class Busy(TableQueue):
        @property
        def waiting_rows(self) -> int:
            self._rows.append(entry(0))
            self.displaced_rows += 1
            self.refused_rows += 1
            return len(self._rows)

    queue = Busy(queue_of().limits, columns=2, wake=lambda: None, shed=ShedLedger(), key_of=lambda row: row)
    parts: dict[str, Any] = dict.fromkeys(("builder", "budget", "observer", "row_of_dead"))
    policy = FlushPolicy(batch_rows=1, batch_bytes=1, linger_ms=1, linger_max_ms=1)
    pipeline = TablePipeline(PACK.table("orders"), queue=queue, policy=policy, **parts)
    for _ in range(3):
        assert pipeline.balance().exact


def order(i: int) -> dict[str, Any]:
    return {
        "ts_local": 1_700_000_000_000_000_000 + i,
        "ts_send": 1_700_000_000_000_000_001 + i,
        "client_order_id": f"c-{i:012}",
        "broker_order_id": f"b-{i:012}",
        "intent_id": f"i-{i:012}",
        "account_id": f"account-{i % 3}",
        "strategy": "maker",
        "symbol": "BTCUSDT",
        "side": "buy",
        "qty": f"{i / 1000:.6f}",
        "limit_px": Decimal(f"{60_000 + i / 100:.2f}"),
        "order_type": "limit",
        "status": "Open",
        "notes": f"because of {i} " * 10,
    }


def fill(i: int) -> dict[str, Any]:
    return {
        "ts_local": 1_700_000_000_000_000_000 + i,
        "fill_id": f"f-{i}",
        "symbol": "BTCUSDT",
        "side": "buy",
        "fill_qty": Decimal(i) / 7,
        "fill_price": Decimal(f"{60_000 + i / 100:.2f}"),
        "raw_json": b'{"e": "executionReport"}' * 40 + str(i).encode(),
    }


def quote(i: int) -> tuple[Any, ...]:
    levels = tuple(float(i + n) for n in range(5))
    floats = tuple(0.5 + i + n for n in range(4))
    return (
        1_700_000_000_000_000_000 + i,
        "",
        None,
        1_700_000_000_000_000_000 + i,
        "BTCUSDT",
        *floats,
        levels,
        levels[::-1],
        levels[1:],
        levels[2:],
        None,
        None,
        None,
        i + 10**12,
        i + 10**12,
        "binance.usdm",
        3,
    )


def book(i: int) -> dict[str, Any]:
    return {
        "ts_local": 1_700_000_000_000_000_000 + i,
        "symbol": "BTCUSDT",
        "bid_pxs": [float(i + n) for n in range(70)],
        "bid_szs": [float(i + n) for n in range(70)],
    }


def sample(i: int) -> dict[str, Any]:
    return {"name": "recorder_queue_usage", "value": float(i), "labels": {f"table{i}": f"orders{i}"}}


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("orders", order),
        ("fills", fill),
        ("market_data", quote),
        ("book_deltas", book),
        ("metrics_timeseries", sample),
    ],
)
def test_a_full_queue_holds_about_its_bytes(table: str, row: Callable[[int], Any]) -> None:
    """What realistic rows take in memory is at most 1.3 times `queue_bytes`, whatever their table and shape."""
    declared = PACK.table(table)
    limits = QueueLimits(
        max_rows=10**6,
        max_bytes=4 << 20,
        high_watermark=0.8,
        low_watermark=0.5,
        overflow=Overflow.SPILL,
        overflow_second=Overflow.SPILL,
        block_timeout_s=0.1,
    )
    row(0)
    gc.collect()
    tracemalloc.start()
    try:
        queue = TableQueue(
            limits,
            columns=len(declared.columns),
            wake=lambda: None,
            shed=ShedLedger(),
            key_of=key_of(declared),
        )
        door = Door(declared, queue, enabled=True)
        for i in itertools.count():
            one = row(i)
            one = one.copy() if isinstance(one, dict) else one
            if not queue.put((one, time.monotonic_ns(), None, door.wide_bytes(one))):
                break
        del one
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert queue.waiting_rows > 500
    assert used <= 1.3 * limits.max_bytes
    assert used >= 0.3 * limits.max_bytes, "the bound is not so wide of the mark that room is wasted"


def test_measuring_a_row_never_raises() -> None:
    """A row that cannot be measured counts nothing here; the builder says what is wrong with it."""

    class Hostile:
        def __bool__(self) -> bool:
            raise RuntimeError("no")

    door = Door(PACK.table("orders"), queue_of(), enabled=True)
    for value in (Hostile(), 5, object(), [Hostile()]):
        assert door.wide_bytes({"notes": value}) >= 0
        assert door.wide_bytes((value,) * len(PACK.table("orders").columns)) >= 0
    assert door.wide_bytes((1, 2)) == 0
    assert door.wide_bytes(None) == 0
    assert door.wide_bytes({"notes": "n" * 70, "reject_reason": "r" * 30, "symbol": "s" * 1_000}) == 100


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)
