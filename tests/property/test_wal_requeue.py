"""Laws of opening rows of a log again: each row asked for is in one part, and nothing else changes."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from wal.places import PlaceSet, Range
from wal.replay_plan import Survey, plan
from wal.requeue import requeue
from wal.seals import Seal
from wal.settled import Checkpoint

EPOCHS = (1, 2**64 - 1)
ROWS = 40
RANGES = st.lists(
    st.builds(
        lambda epoch, first, rows: Range(epoch, first, first + rows),
        st.sampled_from(EPOCHS),
        st.integers(0, ROWS),
        st.integers(0, 15),
    ),
    max_size=4,
)
Place = tuple[int, int]


def places(ranges: list[Range] | tuple[Range, ...] | PlaceSet) -> set[Place]:
    return {(epoch, sequence) for epoch, first, stop in ranges for sequence in range(first, stop)}


@st.composite
def sealed(draw: st.DrawFn) -> list[Seal]:
    """Seals that share no row."""
    found = []
    for epoch in EPOCHS:
        cuts = sorted(draw(st.sets(st.integers(0, ROWS), max_size=6)))
        for first, stop in itertools.pairwise(cuts):
            if draw(st.booleans()):
                found.append(Seal(f"{epoch}-{first}", (Range(epoch, first, stop),), stop - first, 0, 0))
    return found


@given(RANGES, RANGES, RANGES, sealed(), RANGES)
def test_rows_are_opened_that_are_done_and_there(
    settled: list[Range], confirmed: list[Range], present: list[Range], seals: list[Seal], asked: list[Range]
) -> None:
    """Every row asked for is in one part, the checkpoint forgets those opened and no others, and a seal is taken back
    if one of its rows is opened and all of them were done."""
    checkpoint = Checkpoint().resolve(settled).confirm(confirmed, at_ns=1, server="s")
    found = requeue(checkpoint, PlaceSet(present), seals, asked)
    done, there, wanted = places(checkpoint.done()), places(present), places(asked)
    assert places(found.opened) == wanted & there & done
    assert places(found.open) == wanted & there - done
    assert places(found.purged) == wanted & done - there
    assert places(found.missing) == wanted - there - done
    assert places(found.checkpoint.done()) == done - places(found.opened)
    assert places(found.checkpoint.settled) == places(checkpoint.settled) - places(found.opened)
    assert set(found.voids) == {
        seal.token
        for seal in seals
        if places(seal.ranges) & places(found.opened) and places(seal.ranges) <= done
    }


@given(RANGES, sealed(), RANGES)
def test_what_was_opened_is_replayed_and_what_was_done_is_not(
    settled: list[Range], seals: list[Seal], asked: list[Range]
) -> None:
    """A replay gives exactly the rows that were open before and those opened; but for seals that were open in part,
    which come whole, what was opened comes unsealed."""
    present = PlaceSet(Range(epoch, 0, ROWS) for epoch in EPOCHS)
    before = Checkpoint().resolve(settled)
    found = requeue(before, present, seals, asked)
    holding = [seal for seal in seals if seal.token not in found.voids]
    survey = Survey(stretches={epoch: [] for epoch in EPOCHS}, present=present, seals=holding)
    items, _ = plan(survey, found.checkpoint.done())
    partly = {
        place
        for seal in holding
        for place in places(seal.ranges)
        if places(seal.ranges) - places(before.done())
    }
    opened = places(found.opened)
    sent = {place for item in items for place in places(item.ranges)}
    assert sent == (places(present) - places(before.done())) | opened | partly
    assert opened - partly <= {place for item in items if item.seal is None for place in places(item.ranges)}
