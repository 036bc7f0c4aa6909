"""The books of acknowledgements: each message is let go once, and only when all it waits for is settled."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.bus.base import BusMessage, Encoding
from recorder.service.receipts import Made, Receipts

PLACES = ("orders", "fills", "letter")


def message(position: int, log: int = 7) -> BusMessage:
    """A message of five bytes."""
    return BusMessage("t", b"12345", Encoding.JSON, 1, log, position)


def test_a_message_that_made_nothing_is_done_at_once() -> None:
    """No rows, or none that found room."""
    receipts = Receipts()
    receipts.expect([Made(message(0), frozenset()), Made(message(1), frozenset({"orders"}))], [], 1.0)
    assert [one.position for one in receipts.take_done()] == [0, 1]
    assert (receipts.pending, receipts.take_done()) == (0, [])


def test_a_message_waits_for_all_its_places() -> None:
    """And is done once, whatever is told twice."""
    receipts = Receipts()
    receipts.expect(
        [Made(message(0), frozenset({"orders", "fills"}))], [("orders", "o"), ("fills", "f")], 1.0
    )
    receipts.settled("o")
    receipts.settled("o")
    assert (receipts.take_done(), receipts.pending, receipts.oldest_s()) == ([], 1, 1.0)
    assert receipts.is_pending(message(0))
    assert not receipts.is_pending(message(0, log=8))
    receipts.settled("f")
    receipts.settled("o")
    assert ([one.position for one in receipts.take_done()], receipts.pending) == ([0], 0)
    assert receipts.oldest_s() is None


def test_a_message_whose_letters_were_not_kept_is_taken_again() -> None:
    """Once all it waits for is settled, in whatever order; it stays pending, and done the next time."""
    receipts = Receipts()
    made = [Made(message(0), frozenset({"orders", "letter"})), Made(message(1), frozenset({"orders"}))]
    receipts.expect(made, [("orders", "o"), ("letter", "l")], 1.0)
    receipts.settled("l", unkept=True)
    assert receipts.again == 0, "its rows are under way"
    receipts.settled("o")
    assert [one.position for one in receipts.take_done()] == [1]
    assert (receipts.again, receipts.pending, receipts.uses["orders"].messages) == (1, 1, 0)
    assert [one.position for one in receipts.take_again(5)] == [0]
    assert (receipts.again, receipts.is_pending(message(0))) == (0, True), "the bus may deliver it meanwhile"
    receipts.expect(made[:1], [("letter", "l2")], 9.0)
    assert receipts.oldest_s() == 1.0
    receipts.settled("l2")
    assert ([one.position for one in receipts.take_done()], receipts.pending) == ([0], 0)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_against_the_plain_definition(data: st.DataObject) -> None:
    """Over any order of batches and settlings: done are exactly the messages whose handovers are all settled; what
    a place holds of the window is what waits for it."""
    receipts = Receipts()
    waits: dict[int, set[str]] = {}
    open_handovers: list[str] = []
    done: list[int] = []
    position = 0
    for turn in range(data.draw(st.integers(1, 8))):
        taken = data.draw(st.sets(st.sampled_from(PLACES)))
        made = []
        for _ in range(data.draw(st.integers(0, 4))):
            places = data.draw(st.frozensets(st.sampled_from(PLACES)))
            made.append(Made(message(position), places))
            waits[position] = {f"{place}-{turn}" for place in places & taken}
            position += 1
        handovers = [(place, f"{place}-{turn}") for place in sorted(taken)]
        open_handovers += [name for _, name in handovers]
        receipts.expect(made, handovers, float(turn))
        settled = data.draw(st.lists(st.sampled_from(open_handovers), max_size=4)) if open_handovers else []
        for handover in settled:
            receipts.settled(handover)
        for left in waits.values():
            left.difference_update(settled)
        open_handovers = [name for name in open_handovers if name not in settled]
        done += [one.position for one in receipts.take_done()]
        assert sorted(done) == sorted(p for p, left in waits.items() if not left)
        assert receipts.pending == sum(1 for left in waits.values() if left)
        places_of = {p: {name.rpartition("-")[0] for name in left} for p, left in waits.items()}
        for place, use in receipts.uses.items():
            assert use.messages >= sum(1 for names in places_of.values() if place in names)
            assert use.bytes == 5 * use.messages
    for handover in open_handovers:
        receipts.settled(handover)
    assert not receipts.pending
    assert all(use.messages == use.bytes == 0 for use in receipts.uses.values())
