"""One pass over the segments of a log, in order: every sound frame, and what is wrong told to a ledger.

Others may write, repair and purge meanwhile. What is not sound at the end of the newest segment is the end. It is
damage once something newer is there, and it is still not sound when it is looked at again after that was seen: a
writer finishes a frame before it begins the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from wal import names
from wal.damage import Damage, Harm
from wal.frames import Frame, Hole
from wal.ledger import Ledger
from wal.places import Range
from wal.runs import stop_of
from wal.segment import Segment, foreign, listable, open_or_tell

_SEARCH_SHARE = 50
"""Of the time, one part in so many goes into searching the rest of a segment for frames beyond its end."""
_TICK_NS = 50_000_000
"""Longer than a tick of the clock by which file systems say when a file was written: 1 to 10 ms (Linux, CONFIG_HZ)."""


class Met(NamedTuple):
    """A sound frame. `number` is the segment's, by its name; `payload` is None where it was not looked at."""

    number: int
    segment: Segment
    frame: Frame
    payload: bytes | None


class Walk:
    """See the module. Good for one pass.

    Args:
        folders: of the log; one that does not exist holds nothing.
        name: segments of a log of another name are told and left out; None takes all.
        check: look at each payload; without, frames with sound headers count as sound.
        wait: called at the end; whether to look for more. Without, the end is the end.
        end_told: an unfinished frame that is still there at the end is told.
        entered: told of each segment that is read, before its first frame.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        ledger: Ledger,
        *,
        name: str | None = None,
        check: bool = True,
        wait: Callable[[], bool] | None = None,
        end_told: bool = False,
        entered: Callable[[int, Segment], None] | None = None,
    ):
        self._folders = folders
        self._ledger = ledger
        self._name = name
        self._check = check
        self._wait = wait
        self._end_told = end_told
        self._entered = entered
        self._last: tuple[int, Path] | None = None
        self._vanished = False
        self._ended = False

    def frames(self) -> Iterator[Met]:
        """All of them. What a frame is made of is read from its segment before the next is asked for."""
        self._folders, damage = listable(self._folders)
        for told in damage:
            self._ledger.tell(told)
        while not self._ended:
            following = self._following()
            if following is None:
                self._ended = not self._wait_for_more()
                continue
            if self._last is not None and following[0] > self._last[0] + 1:
                # Two folders are not listed at the same instant: what is missing must be missing twice.
                following = self._following() or following
            number, path = following
            purged = self._gap_before(number)
            self._last = following
            opened = open_or_tell(path)
            self._vanished = opened is None or (self._vanished and not isinstance(opened, Segment))
            if isinstance(opened, Segment):
                with opened as segment:
                    if self._enter(number, segment, purged):
                        yield from self._frames_of(number, segment)
            elif opened is not None:
                self._ledger.tell_unknown(opened)

    # -- from segment to segment ---------------------------------------------------------------------------------

    def _following(self) -> tuple[int, Path] | None:
        """The segment after the last one that was looked at."""
        return next(
            (key for key in names.segments(self._folders) if self._last is None or key > self._last), None
        )

    def _gap_before(self, number: int) -> bool:
        """Tell the numbers before this one that have no file; whether they were purged, which is not told."""
        if self._last is None or (number <= self._last[0] + 1 and not self._vanished):
            return False
        there = names.segments(self._folders)
        if not there or there[0][0] >= number:
            return True
        first, count = self._last[0] + 1, number - self._last[0] - 1
        if count > 0:
            path = self._last[1].with_name(names.segment_name(first))
            others = f"and {count - 1} after it" if count > 1 else ""
            self._ledger.tell_unknown(Damage(Harm.MISSING_SEGMENT, str(path), detail=others))
        return False

    def _enter(self, number: int, segment: Segment, purged: bool) -> bool:
        """Whether the segment is one to read."""
        preamble, path = segment.preamble, segment.path
        if self._name is not None and (other := foreign(segment, self._name)):
            self._ledger.tell(other)
            return False
        self._ledger.enter(preamble.epoch, preamble.first, path, purged=purged)
        if not segment.sound:
            self._ledger.tell(Damage(Harm.PREAMBLE, str(path), 0, preamble.frames_from, preamble.epoch))
        if self._entered is not None:
            self._entered(number, segment)
        return True

    def _wait_for_more(self) -> bool:
        return self._wait is not None and self._wait()

    # -- within a segment ----------------------------------------------------------------------------------------

    def _frames_of(self, number: int, segment: Segment) -> Iterator[Met]:
        offset = segment.preamble.frames_from
        search = _Search(segment, always=self._wait is None or self._end_told)
        while not self._ended:
            frame = segment.frame_at(offset)
            if frame is not None:
                payload = segment.payload(frame) if self._check else None
                if payload is None and self._check:
                    if not self._is_past(segment, frame.end) and not self._is_left():
                        continue
                    payload = segment.payload(frame)
                    if payload is None:
                        self._tell_payload(segment, frame)
                if payload is not None or not self._check:
                    yield Met(number, segment, frame, payload)
                offset = frame.end
                continue
            newest = self._following() is None
            if newest and not search.is_due(offset):
                self._ended = not self._wait_for_more()
                continue
            hole = search.hole_at(offset)
            if isinstance(hole, Frame):
                continue
            if newest and (hole is None or hole.last) and not self._is_left():
                continue
            if hole is None:
                return
            self._tell_hole(segment, hole)
            if hole.last:
                return
            offset = hole.end

    def _is_past(self, segment: Segment, offset: int) -> bool:
        """Whether its writer went on to something newer than what is before this offset."""
        if self._following() is not None:
            return True
        item = next(segment.scan(offset), None)
        return isinstance(item, Frame) or (item is not None and not item.last)

    def _is_left(self) -> bool:
        """At something unfinished: whether it is left to be told, since nobody waits for more. Or all ends here."""
        if self._wait_for_more():
            return False
        self._ended = not self._end_told
        return self._end_told

    def _tell_hole(self, segment: Segment, hole: Hole) -> None:
        harm = Harm.TORN_TAIL if hole.last else Harm.HEADER
        if segment.data.refused(hole.offset, hole.end):
            harm = Harm.UNREAD
        epoch, nbytes = segment.preamble.epoch, hole.end - hole.offset
        self._ledger.tell_unknown(Damage(harm, str(segment.path), hole.offset, nbytes, epoch))

    def _tell_payload(self, segment: Segment, frame: Frame) -> None:
        rows = Range(segment.preamble.epoch, frame.header.first, stop_of(frame))
        self._ledger.tell_lost(of_frame(segment.harm_of(frame), segment.path, frame), rows)


class _Search:
    """Looking for frames beyond the end of a segment, which costs as much as the segment is long: not at each look."""

    def __init__(self, segment: Segment, always: bool):
        self._segment = segment
        self._always = always
        self._offset = -1
        self._changed_ns = -1
        self._not_before_s = 0.0

    def is_due(self, offset: int) -> bool:
        """Whether something can have come since it was searched last. Not at the first look at an offset: a log that
        grows has its next frame there at the second."""
        if self._always:
            return True
        if offset != self._offset:
            self._offset, self._changed_ns = offset, -1
            return False
        return time.monotonic() >= self._not_before_s and self._segment.changed_ns != self._changed_ns

    def hole_at(self, offset: int) -> Frame | Hole | None:
        """What is there now: a frame after all, bytes that are none, or nothing yet."""
        begun_s = time.monotonic()
        changed_ns = self._segment.changed_ns
        # What was written just now may be written again within the same tick: that would not show.
        self._changed_ns = changed_ns if time.time_ns() - changed_ns > _TICK_NS else -1
        found = next(self._segment.scan(offset), None)
        if isinstance(found, Hole) and not found.last:
            # What lies before the frame that was found may have been read before it was written.
            found = next(self._segment.scan(offset), None)
        now_s = time.monotonic()
        self._not_before_s = now_s + _SEARCH_SHARE * (now_s - begun_s)
        return found


def of_frame(harm: Harm, path: Path, frame: Frame, detail: str = "") -> Damage:
    """Damage to one frame."""
    return Damage(harm, str(path), frame.offset, frame.end - frame.offset, detail=detail)
