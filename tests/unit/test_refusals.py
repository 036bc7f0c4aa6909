"""When refused rows speak of their table."""

from __future__ import annotations

import pytest

from recorder.refusals import DEAD_LETTER_MIN_ROWS, DEAD_LETTER_WINDOW_ROWS, Refusals


def refused(refusals: Refusals) -> int:
    """How many rows are refused until it is too many."""
    count = 0
    while not refusals.too_many():
        refusals.add()
        count += 1
    return count


@pytest.mark.parametrize("rows", [1, DEAD_LETTER_MIN_ROWS, 100, DEAD_LETTER_WINDOW_ROWS])
def test_it_takes_the_ratio_and_never_fewer_than_the_least(rows: int) -> None:
    """Of a small batch all rows may be bad; of a large one no more than the share that was set."""
    refusals = Refusals(0.5)
    refusals.begin(rows)
    assert refused(refusals) == max(DEAD_LETTER_MIN_ROWS, rows // 2)


def test_batches_that_are_too_long_ago_are_forgotten() -> None:
    """The ratio is of the last batches of so many rows, with what was refused of them."""
    refusals = Refusals(0.5)
    refusals.begin(100)
    for _ in range(40):
        refusals.add()
    refusals.begin(DEAD_LETTER_WINDOW_ROWS)
    assert (refusals.rows, refusals.count) == (DEAD_LETTER_WINDOW_ROWS, 0)


def test_a_table_that_was_mended_begins_anew() -> None:
    """What was refused before is forgiven, and is not taken off again when its batch is forgotten."""
    refusals = Refusals(0.5)
    refusals.begin(100)
    refused(refusals)
    refusals.forgive()
    assert not refusals.too_many()
    refusals.add()
    refusals.begin(DEAD_LETTER_WINDOW_ROWS)
    assert refusals.count == 0
