"""What a bus's rows need of queue and builder: small blocks together, fresh ones unasked, limits that can change."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.backlog import QueueLimits
from recorder.bad_rows import BadRow
from recorder.build import SLICE_ROWS, BatchBuilder
from recorder.entries import Block
from recorder.queue import TableQueue
from recorder.shed import ShedLedger
from schemas.core.tables import PACK
from schemas.policy import Overflow

ORDERS = next(table for table in PACK.tables if table.name == "orders")
NOW_NS = 1_800_000_000_000_000_000


def builder() -> tuple[BatchBuilder, list[BadRow]]:
    """A builder of `orders`, and its bad rows."""
    bad: list[BadRow] = []
    return BatchBuilder(ORDERS, epoch=1, run_id="r", on_bad=bad.append), bad


def block(
    log: int, first: int, count: int, *, fresh: bool = True, accepted_ns: int = 0, **options: Any
) -> Block:
    """Rows numbered from `first`."""
    rows = [
        {"client_order_id": f"{log}-{first + n}", "symbol": "A", "status": "Open", "ts_local": NOW_NS}
        for n in range(count)
    ]
    return Block(rows, accepted_ns, log, range(first, first + count), 0, fresh, **options)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 90), st.booleans()), min_size=1, max_size=40))
def test_small_blocks_are_built_together_and_every_row_keeps_its_identity(
    pieces: list[tuple[int, int, bool]],
) -> None:
    """Rows of one source stay in order; slices are few; the batch is asked for where one row may have come before."""
    made, bad = builder()
    counts = {1: 0, 2: 0, 3: 0}
    blocks = []
    for log, count, fresh in pieces:
        blocks.append(block(log, counts[log], count, fresh=fresh))
        counts[log] += count
    slices = len(list(made.add(blocks)))
    (batch,) = made.seal()
    assert not bad
    assert batch.rows == sum(counts.values())
    assert batch.from_source == (not all(fresh for _, _, fresh in pieces))
    assert dict(zip(batch.identities(), batch.data["client_order_id"].to_pylist(), strict=True)) == {
        (log, n): f"{log}-{n}" for log, count in counts.items() for n in range(count)
    }
    for kind in {(log, fresh) for log, _, fresh in pieces}:
        wanted = [b for b in blocks if (b.log, b.fresh) == kind]
        seqs = [seq for b in wanted for seq in b.seqs]
        mine = set(seqs)
        assert [seq for log, seq in batch.identities() if log == kind[0] and seq in mine] == seqs
    assert slices <= sum(counts.values()) // SLICE_ROWS + len({(log, fresh) for log, _, fresh in pieces})


def test_the_oldest_acceptance_of_joined_blocks_stands() -> None:
    """Lag and linger count from it."""
    made, _ = builder()
    list(made.add([block(1, 0, 5, accepted_ns=100), block(1, 5, 5, accepted_ns=200)]))
    assert (made.oldest_ns, made.slice_accepted_ns) == (100, 100)


def test_a_batch_after_a_repeated_one_is_fresh_again() -> None:
    """One redelivery does not make all later batches looked up."""
    made, _ = builder()
    list(made.add([block(1, 0, 5, fresh=False)]))
    assert made.seal()[0].from_source
    list(made.add([block(1, 5, 5)]))
    assert not made.seal()[0].from_source


LIMITS = QueueLimits(
    max_rows=100, max_bytes=1 << 20, high_watermark=0.8, low_watermark=0.5, overflow=Overflow.SPILL,
    overflow_second=Overflow.DROP_OLDEST, block_timeout_s=0.05,
)  # fmt: skip


def queue_of(**changes: Any) -> TableQueue:
    """A queue that nobody drains."""
    return TableQueue(
        dataclasses.replace(LIMITS, **changes),
        columns=2,
        wake=lambda: None,
        shed=ShedLedger(),
        key_of=lambda row: row,
    )


def test_a_block_that_is_displaced_is_told_of_once() -> None:
    """Whoever waits for its rows is not left waiting; one that is drained is not told of."""
    queue = queue_of(overflow=Overflow.DROP_OLDEST)
    gone: list[int] = []
    for n in range(30):
        queue.put_block(block(1, 10 * n, 10, displaced=lambda n=n: gone.append(n)), wait=False)  # type: ignore[misc]
    assert gone == list(range(20))
    assert queue.displaced_rows == 200
    queue.drain(1_000)
    assert gone == list(range(20))


@pytest.mark.parametrize(
    ("overflow", "kept", "shed"), [(Overflow.SPILL, 50, 10), (Overflow.DROP_OLDEST, 20, 40)]
)
def test_limits_can_change_while_rows_wait(overflow: Overflow, kept: int, shed: int) -> None:
    """What waits stays until the new policy displaces it; the balance holds; larger limits take more at once."""
    queue = queue_of()
    for n in range(50):
        assert queue.put((n, 0, None, 0))
    queue.change(dataclasses.replace(LIMITS, max_rows=20, overflow=overflow))
    assert queue.waiting_rows == 50
    for n in range(10):
        queue.put((50 + n, 0, None, 0))
    assert (queue.waiting_rows, queue.displaced_rows + queue.refused_rows) == (kept, shed)
    queue.change(dataclasses.replace(LIMITS, max_rows=1_000))
    assert all(queue.put((n, 0, None, 0)) for n in range(500))
    assert len(queue.drain(10_000)) == kept + 500


def test_a_closed_queue_stays_closed_through_a_change() -> None:
    """Nobody would take its rows."""
    queue = queue_of()
    queue.close()
    queue.change(dataclasses.replace(LIMITS, max_rows=1_000))
    assert not queue.put((1, 0, None, 0))
    assert queue.refused_rows == 1


def test_rows_refused_at_the_door_are_counted() -> None:
    """With their reason."""
    queue = queue_of()
    queue.refuse(7, "held")
    assert (queue.refused_rows, queue.position()) == (7, 0)
    assert dict(queue.shed.totals) == {"held": 7}
