"""The queue against a list: whatever is done to it, it holds what a list with the same bounds would hold."""

from __future__ import annotations

from collections import Counter
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from recorder.backlog import QueueLimits
from recorder.entries import ArrowBlock, Block, rows_in
from recorder.queue import TableQueue
from recorder.shed import ShedLedger
from schemas.policy import Overflow

COLUMNS = 3
MAX_BYTES = 20_000
KEYS = st.sampled_from("abcd")


class QueueMachine(RuleBasedStateMachine):
    """One queue of one policy; rows are (number, key) and never equal."""

    policy = Overflow.SPILL

    @initialize(max_rows=st.integers(1, 40))
    def make(self, max_rows: int) -> None:
        self.wakes = 0
        self.shed = ShedLedger()
        self.queue = TableQueue(
            QueueLimits(
                max_rows=max_rows,
                max_bytes=MAX_BYTES,
                high_watermark=0.8,
                low_watermark=0.5,
                overflow=self.policy,
                overflow_second=Overflow.DROP_OLDEST,
                block_timeout_s=0.001,
                conflate_key=("key",),
            ),
            columns=COLUMNS,
            wake=self.wake,
            shed=self.shed,
            key_of=lambda row: row[1],
        )
        self.max_rows = min(max_rows, MAX_BYTES // self.queue.row_bytes)
        self.offered: list[int] = []
        self.taken: list[tuple[int, Any]] = []
        self.refused: set[int] = set()
        self.armed = False
        self.expected_wakes = 0
        self.number = 0
        self.taken_shed: Counter[str] = Counter()

    def wake(self) -> None:
        self.wakes += 1

    def came(self, accepted: bool) -> None:
        if accepted and self.armed:
            self.expected_wakes += 1
            self.armed = False

    @rule(key=KEYS, wide=st.sampled_from([0, 0, 0, 100, 3_000, MAX_BYTES - 1_000, MAX_BYTES + 1]))
    def put(self, key: str, wide: int) -> None:
        self.number += 1
        self.offered.append(self.number)
        # A row that comes to an empty queue is let in even where, with its fixed part, it is a little above the bytes.
        room = not self.queue.waiting_rows or (
            self.queue.waiting_rows < self.max_rows
            and (self.queue.waiting_bytes + self.queue.row_bytes + wide <= MAX_BYTES)
        )
        accepted = self.queue.put(((self.number, key), self.number, None, wide))
        if not accepted:
            self.refused.add(self.number)
        if wide > MAX_BYTES:
            assert not accepted, "larger than the queue"
        elif self.policy is Overflow.SPILL:
            assert accepted == room
        elif self.policy is not Overflow.SAMPLE:
            assert accepted, "an older row makes room"
        self.came(accepted)

    @rule(rows=st.integers(0, 30), wide=st.sampled_from([0, 500]), arrow=st.booleans())
    def put_block(self, rows: int, wide: int, arrow: bool) -> None:
        numbers = list(range(self.number + 1, self.number + 1 + rows))
        self.number += rows
        self.offered += numbers
        waiting = self.queue.waiting_rows
        room = not waiting or (
            waiting + rows <= self.max_rows
            and self.queue.waiting_bytes + rows * self.queue.row_bytes + wide <= MAX_BYTES
        )
        block: Block | ArrowBlock
        if arrow:
            block = ArrowBlock(pa.record_batch({"n": pa.array(numbers, pa.int64())}), self.number, wide)
        else:
            block = Block([(n, "block") for n in numbers], self.number, 7, numbers, wide)
        accepted = self.queue.put_block(block, wait=False)
        if self.policy is Overflow.SPILL:
            assert accepted == (rows if room else 0), "all or none, and only as many as fit"
        else:
            assert accepted == rows, "older rows make room"
        if rows and not accepted:
            self.refused.update(numbers)
        self.came(accepted > 0)

    @rule(max_rows=st.integers(1, 50))
    def drain(self, max_rows: int) -> None:
        waiting = self.queue.waiting_rows
        conflated = len(self.queue._newest)
        entries = self.queue.drain(max_rows)
        rows = rows_in(entries)
        assert rows >= min(waiting, max_rows)
        largest = max([rows_in([entry]) for entry in entries], default=0)
        assert rows < max_rows + max(largest, 1) + conflated, (
            "no more than was asked for, but for a block's rest"
        )
        for entry in entries:
            if isinstance(entry, Block):
                self.taken += entry.rows
            elif isinstance(entry, ArrowBlock):
                self.taken += [(n, "block") for n in entry.rows["n"].to_pylist()]
            else:
                self.taken.append(entry[0])

    @rule()
    def arm(self) -> None:
        empty = not self.queue.waiting_rows
        assert self.queue.arm() == empty, "the consumer may sleep only where nothing waits"
        self.armed = empty

    @precondition(lambda self: self.number and self.number % 5 == 0)
    @rule()
    def take_gaps(self) -> None:
        for gap in self.shed.take():
            assert gap.rows > 0
            assert gap.first_ns <= gap.last_ns
            self.taken_shed[gap.reason] += gap.rows

    @invariant()
    def every_row_is_counted_once(self) -> None:
        """received = taken + displaced + refused + waiting, and each equals what was seen from outside."""
        queue = self.queue
        received = queue.taken_rows + queue.displaced_rows + queue.refused_rows + queue.waiting_rows
        assert received == len(self.offered)
        assert queue.taken_rows == len(self.taken)
        assert queue.refused_rows == len(self.refused)
        assert queue.displaced_rows + queue.refused_rows == self.shed.rows
        assert queue.position() == len(self.offered) - len(self.refused)
        assert queue.drained_upto <= queue.position()

    @invariant()
    def bounds_hold(self) -> None:
        """Rows never pass their bound (but for one block that came to an empty queue); bytes by one row at most."""
        queue = self.queue
        alone = len(queue._rows) == 1 and not queue._newest
        assert queue.waiting_rows <= self.max_rows or alone
        assert queue.waiting_bytes <= MAX_BYTES or alone
        assert queue.waiting_bytes >= queue.waiting_rows * queue.row_bytes
        if not queue.waiting_rows:
            assert queue.waiting_bytes == 0

    @invariant()
    def order_is_kept(self) -> None:
        """Rows leave in the order they came, each at most once; conflation keeps the order within a key."""
        numbers = [number for number, _ in self.taken]
        assert len(set(numbers)) == len(numbers)
        if self.policy is Overflow.CONFLATE:
            for key in "abcd":
                mine = [number for number, of in self.taken if of == key]
                assert mine == sorted(mine)
        else:
            assert numbers == sorted(numbers)

    @invariant()
    def one_wake_a_sleep(self) -> None:
        """A sleeping consumer is woken by the first row that is let in, and by no other."""
        assert self.wakes == self.expected_wakes

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        while entries := self.queue.drain(10):
            for entry in entries:
                if isinstance(entry, Block):
                    self.taken += entry.rows
                elif isinstance(entry, ArrowBlock):
                    self.taken += [(n, "block") for n in entry.rows["n"].to_pylist()]
                else:
                    self.taken.append(entry[0])
        self.every_row_is_counted_once()
        self.order_is_kept()
        assert self.queue.waiting_rows == self.queue.waiting_bytes == 0
        assert self.queue.drained_upto == self.queue.position(), "when all has left, every position has"
        for gap in self.shed.take():
            self.taken_shed[gap.reason] += gap.rows
        assert self.taken_shed == self.shed.totals, "the windows add up to the totals"
        missing = set(self.offered) - {number for number, _ in self.taken} - self.refused
        assert len(missing) == self.queue.displaced_rows
        if self.policy in (Overflow.SPILL,):
            assert not missing
        if self.policy is Overflow.CONFLATE and set(self.shed.totals) <= {"conflate"}:
            newest = {key: max(n for n, of in self.taken if of == key) for _, key in self.taken}
            assert not {n for n in missing if n > max(newest.values())}, (
                "the newest of a key is never the one shed"
            )


def machine(policy: Overflow) -> Any:
    case = type(f"Queue{policy.title()}", (QueueMachine,), {"policy": policy})
    test = case.TestCase
    test.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
    return test


TestSpill = machine(Overflow.SPILL)
TestDropOldest = machine(Overflow.DROP_OLDEST)
TestConflate = machine(Overflow.CONFLATE)
TestSample = machine(Overflow.SAMPLE)
TestBlock = machine(Overflow.BLOCK)
