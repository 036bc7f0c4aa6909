"""What was shed, as it will stand in the gap rows."""

from __future__ import annotations

import time

from recorder.backlog import QueueLimits
from recorder.queue import TableQueue
from recorder.shed import Gap, ShedLedger
from schemas.policy import Overflow


def test_a_gap_begins_where_its_first_row_was_accepted() -> None:
    """A row that waited long before it was displaced: the hole is at its time, not at that of the displacing."""
    ledger = ShedLedger()
    limits = QueueLimits(
        max_rows=2,
        max_bytes=1 << 20,
        high_watermark=1.0,
        low_watermark=0.5,
        overflow=Overflow.DROP_OLDEST,
        overflow_second=Overflow.DROP_OLDEST,
        block_timeout_s=0.0,
    )
    queue = TableQueue(limits, columns=1, wake=lambda: None, shed=ledger, key_of=lambda row: row)
    hour_ns = 3_600 * 10**9
    now_ns = time.time_ns()
    accepted_ns = time.monotonic_ns() - hour_ns
    for row in range(4):
        queue.put(((row,), accepted_ns + row, None, 0))
    (gap,) = ledger.take()
    assert gap.rows == 2
    assert abs(gap.first_ns - (now_ns - hour_ns)) < 60 * 10**9
    assert gap.last_ns >= now_ns


def test_a_gap_that_could_not_be_handed_over_joins_the_next() -> None:
    """Rows, times and words of both are kept."""
    ledger = ShedLedger()
    ledger.add("full", 2)
    (taken,) = ledger.take()
    ledger.add("full", 3, detail="late")
    ledger.put_back([taken, Gap("shutdown", 1, 2, 7, "early")])
    full, shutdown = sorted(ledger.take(), key=lambda gap: gap.reason)
    assert (full.rows, full.first_ns, full.detail) == (5, taken.first_ns, "late")
    assert full.last_ns >= taken.last_ns
    assert shutdown == Gap("shutdown", 1, 2, 7, "early")
    assert ledger.rows == 5
