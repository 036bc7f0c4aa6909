"""Who a row is."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from recorder.identity import SLOTS, letter_log, new_epoch, source_log, source_seq

PARTS = st.lists(st.one_of(st.text(max_size=5), st.binary(max_size=5)), min_size=1, max_size=4)


def raw(parts: list[str | bytes]) -> list[bytes]:
    return [part.encode() if isinstance(part, str) else part for part in parts]


@given(PARTS, PARTS)
def test_the_log_of_a_source_names_its_incarnation(one: list[str | bytes], other: list[str | bytes]) -> None:
    """The same parts make the same number in every run; parts that only join to the same bytes make another one."""
    assert source_log(*one) == source_log(*one)
    assert 0 <= source_log(*one) < 2**64
    assert (source_log(*one) == source_log(*other)) == (raw(one) == raw(other))


def test_the_log_of_a_source_is_the_same_for_ever() -> None:
    """A change of the rule would store every captured row a second time."""
    assert source_log("stream", b"\x00\x01") == 13144243682120942675
    assert source_log("a", "b") != source_log("ab") != source_log("b", "a")


def test_dead_letters_of_a_source_are_told_apart_by_their_table() -> None:
    """One file recorded for two tables, and refused by both, has the letters of both; a repeat has the same."""
    assert letter_log(7, "orders") == letter_log(7, "orders") == 13268211226333119433
    assert (
        len({letter_log(7, "orders"), letter_log(7, "fills"), letter_log(8, "fills"), letter_log(8, ""), 8})
        == 5
    )


@given(st.integers(0, 2**51), st.integers(0, SLOTS - 1), st.integers(0, 2**51), st.integers(0, SLOTS - 1))
def test_each_row_of_each_message_has_its_own_number(
    position: int, slot: int, other: int, other_slot: int
) -> None:
    """Numbers are equal only for the same place, and grow with the position."""
    seq, other_seq = source_seq(position, slot), source_seq(other, other_slot)
    assert (seq == other_seq) == ((position, slot) == (other, other_slot))
    assert (seq < other_seq) == ((position, slot) < (other, other_slot))


@pytest.mark.parametrize("slot", [-1, SLOTS, 10**9])
def test_a_slot_outside_of_its_message_is_refused(slot: int) -> None:
    """It would be a row of another message."""
    with pytest.raises(ValueError, match="position 7"):
        source_seq(7, slot)


def test_epochs_are_drawn_anew() -> None:
    """A restored backup never reuses an identity."""
    drawn = {new_epoch() for _ in range(1_000)}
    assert len(drawn) == 1_000
    assert all(0 <= epoch < 2**64 for epoch in drawn)
    assert max(drawn) > 2**63, "all 64 bits are used"
