"""From the ring to the outbox and back: what is sent next, and what is not needed any more. Pure."""

from __future__ import annotations

from recorder.bus.outbox import FRAME_RECORDS, Outbox
from recorder.bus.ring import RingReader, Word

AHEAD_RECORDS = 8 * FRAME_RECORDS
"""Read before they can be sent, at most; the rest waits in the ring."""


class Feed:
    """A ring's records in an outbox that knows what a predecessor had sent.

    Records stay where they lie until they are safe. Where a few that are not keep half of the ring from being used
    again, such as those of one table that is held, these are copied.
    """

    def __init__(self, ring: RingReader, epoch: int, name: str):
        self._ring = ring
        sent_to = ring.word(Word.SENT_TO)
        self.outbox = Outbox(epoch, name, first=ring.first, sent_to=sent_to)
        self.outbox.shed = ring.word(Word.SHED)
        self.outbox.shed_seen = ring.word(Word.SHED_SEEN)
        while ring.read_to < sent_to and (record := ring.read()) is not None:
            self.outbox.put(record)

    @property
    def done(self) -> bool:
        """Whether all that was ever put into the ring is safe, and a recorder was told of all that was shed."""
        ring, box = self._ring, self.outbox
        return ring.empty and not box.unresolved and box.shed_seen == ring.word(Word.SHED)

    def fill(self) -> bool:
        """Take what the next frames need out of the ring; whether there was anything."""
        ring, box = self._ring, self.outbox
        box.shed = ring.word(Word.SHED)
        room = AHEAD_RECORDS - box.waiting
        before = box.accepted
        while room > 0 and (record := ring.read()) is not None:
            box.put(record)
            room -= 1
        return box.accepted > before

    def about_to_send(self) -> None:
        """Tell a successor that what the outbox has given out may be at the recorder. Before it is sent."""
        self._ring.say(Word.SENT_TO, self.outbox.sent_to)

    def tell(self) -> None:
        """Let go of what is safe, and say how far it is."""
        ring, box = self._ring, self.outbox
        crowded = ring.crowded_below()
        if crowded > max(ring.first, box.needed_from):
            box.keep_apart(crowded)
        ring.say(Word.APART, box.apart)
        ring.release(box.needed_from)
        ring.say(Word.SHED_SEEN, box.shed_seen)
        ring.say(Word.RESOLVED, box.resolved.total)
