"""What the next writer of a log does before it writes: looks at all of it, takes what is broken out of the way, tells.

By the holder of the lock. Of each epoch the last segment may end in what was being written when its writer died: that
is copied and cut off, and what was zero-filled for frames that never came is given back. Broken bytes elsewhere are
copied and stay. No sound frame is ever changed, no segment removed, none that is not understood touched; what the disk
does not give is left as it is, for when it does. A second run finds the same, but for what the first has mended; one
that is interrupted is completed by the next.

Only headers are read, and of each epoch's last segment the payloads too: a broken payload elsewhere is told by whoever
reads it. A disk that takes nothing is no reason not to go on: what could not be repaired is told as such.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wal import names
from wal.damage import Damage, Harm
from wal.files import OS_FILES, Files
from wal.format import Preamble
from wal.frames import Hole
from wal.ledger import Ledger
from wal.places import Range
from wal.repair import cut, keep
from wal.runs import BadPayload, Run, checked_runs, runs, stop_of
from wal.segment import Segment, foreign, listable, open_or_tell
from wal.walk import of_frame

BROKEN_SPANS_MAX = 256
"""Copies of one segment's broken spans. The segment keeps them anyway: more would only fill the folder."""


@dataclass(frozen=True)
class SegmentState:
    """A segment that can be read. `number` is its name's."""

    number: int
    path: Path
    preamble: Preamble
    end: int
    """Offset after its last sound frame."""
    stop: int
    """Sequence after its last row."""


@dataclass(frozen=True)
class Recovered:
    """What was found, and is as it says now."""

    segments: tuple[SegmentState, ...]
    next_number: int
    """No file of the log has it or a higher one, and none had, as far as anybody can know."""
    damage: tuple[Damage, ...]
    seconds: float


def recover(
    folders: Sequence[Path], *, name: str, files: Files = OS_FILES, dry_run: bool = False
) -> Recovered:
    """Repair what needs it; see the module.

    Args:
        folders: of the log; one that does not exist holds nothing and is not made.
        name: of the log. Segments of another one are left alone.
        files: through which everything is written.
        dry_run: change nothing and tell the same.

    Raises:
        OSError: of this process and not of the log, such as too many open files.
    """
    begun_s = time.monotonic()
    work = _Recovery(folders, name, files, dry_run)
    states = tuple(work.states())
    return Recovered(states, work.next_number, tuple(work.ledger.damage), time.monotonic() - begun_s)


class _Recovery:
    def __init__(self, folders: Sequence[Path], name: str, files: Files, dry_run: bool):
        self.ledger = Ledger()
        self._folders, damage = listable(folders)
        for told in damage:
            self.ledger.tell(told)
        self._name = name
        self._files = files
        self._dry_run = dry_run
        if not dry_run:
            self._remove_unfinished()
        self._listed = names.segments(self._folders)

    def _remove_unfinished(self) -> None:
        for path in names.unfinished(self._folders):
            with contextlib.suppress(OSError):
                self._files.unlink(path)
                self._files.sync_folder(path.parent)

    @property
    def next_number(self) -> int:
        """See `Recovered`."""
        numbers = [number for number, _ in self._listed]
        numbers += [number for number, _, _ in names.broken(self._folders)]
        numbers += [int(path.name[:12]) for path in names.unfinished(self._folders) if not self._dry_run]
        return max(numbers, default=0) + 1

    def states(self) -> Iterator[SegmentState]:
        """One segment after the other."""
        lasts = self._lasts()
        before = 0
        for number, path in self._listed:
            if before and number > before + 1:
                self._tell_missing(before + 1, number, path)
            before = number
            opened = open_or_tell(path)
            if isinstance(opened, Segment):
                with opened as segment:
                    if state := self._state(number, segment, path in lasts):
                        yield state
            elif opened is not None:
                self.ledger.tell_unknown(opened)

    def _lasts(self) -> set[Path]:
        """Of each epoch the last segment: the only one in which a writer can have been stopped."""
        lasts: dict[int, Path] = {}
        for _, path in self._listed:
            opened = open_or_tell(path)
            if isinstance(opened, Segment):
                with opened as segment:
                    lasts[segment.preamble.epoch] = path
        return set(lasts.values())

    def _tell_missing(self, first: int, stop: int, beside: Path) -> None:
        path = beside.with_name(names.segment_name(first))
        others = f"and {stop - first - 1} after it" if stop - first > 1 else ""
        self.ledger.tell_unknown(Damage(Harm.MISSING_SEGMENT, str(path), detail=others))

    def _state(self, number: int, segment: Segment, is_last: bool) -> SegmentState | None:
        preamble, path = segment.preamble, segment.path
        if other := foreign(segment, self._name):
            self.ledger.tell(other)
            return None
        self.ledger.enter(preamble.epoch, preamble.first, path)
        if not segment.sound:
            self.ledger.tell(Damage(Harm.PREAMBLE, str(path), 0, preamble.frames_from, preamble.epoch))
        size, end, stop = segment.size, preamble.frames_from, preamble.first
        copies = 0
        bad: list[Hole | BadPayload] = []
        find = checked_runs if is_last else runs
        for item in find(segment.data, size, preamble):
            if not isinstance(item, Run):
                bad.append(item)
                continue
            for broken in bad:
                copies += 1
                self._tell_broken(number, segment, broken, copies)
            bad.clear()
            rows = Range(preamble.epoch, item.first, item.stop)
            self.ledger.meet(rows, path, item.offset, item.end - item.offset)
            end, stop = item.end, max(stop, item.stop)
        if is_last:
            self._mend_end(number, segment, bad, end, size)
        else:
            for broken in bad:
                self._tell_broken(number, segment, broken, copies + 1)
        return SegmentState(number, path, preamble, end, stop)

    def _tell_broken(self, number: int, segment: Segment, broken: Hole | BadPayload, copies: int) -> None:
        """Corruption: a span with sound frames after it, or of a segment that another one follows. It stays."""
        preamble, path = segment.preamble, segment.path
        offset, stop = _span(broken)
        unread = segment.data.refused(offset, stop)
        detail = f"{segment.data.failed}" if unread else self._kept(number, segment, offset, stop, copies)
        if isinstance(broken, BadPayload):
            frame = broken.frame
            rows = Range(preamble.epoch, frame.header.first, stop_of(frame))
            self.ledger.tell_lost(of_frame(segment.harm_of(frame), path, frame, detail), rows)
            return
        harm, nbytes = Harm.TORN_TAIL if broken.last else Harm.HEADER, broken.end - broken.offset
        if unread:
            harm = Harm.UNREAD
        self.ledger.tell_unknown(
            Damage(harm, str(path), broken.offset, nbytes, preamble.epoch, detail=detail)
        )

    def _kept(self, number: int, segment: Segment, offset: int, stop: int, copies: int = 1) -> str:
        """Copy a span; what to say about it."""
        if copies > BROKEN_SPANS_MAX:
            return f"not copied: {BROKEN_SPANS_MAX} spans of this segment are"
        if not self._dry_run:
            try:
                keep(self._files, segment, number, offset, stop)
            except OSError as error:
                return f"not copied: {error}"
        return f"kept as {names.broken_name(number, offset)}"

    def _mend_end(
        self, number: int, segment: Segment, bad: list[Hole | BadPayload], end: int, size: int
    ) -> None:
        """What comes after the last sound frame of the last segment of an epoch."""
        path, epoch = segment.path, segment.preamble.epoch
        if not bad:
            self._cut(segment, end, size)
            return
        offset, stop = _span(bad[0])[0], min(size, _span(bad[-1])[1])
        harm = Harm.UNREAD if segment.data.refused(offset, stop) else Harm.TORN_TAIL
        if harm is Harm.UNREAD:
            detail = f"not cut off: {segment.data.failed}"
        else:
            detail = self._kept(number, segment, offset, stop)
            if detail.startswith("kept"):
                detail += self._cut(segment, offset, size)
        damage = Damage(harm, str(path), offset, stop - offset, epoch, detail=detail)
        frames = [item.frame for item in bad if isinstance(item, BadPayload)]
        if len(frames) == len(bad):
            self.ledger.tell_lost(damage, Range(epoch, frames[0].header.first, stop_of(frames[-1])))
        else:
            self.ledger.tell_unknown(damage)

    def _cut(self, segment: Segment, end: int, size: int) -> str:
        """Cut a segment's end off; why not, where it was not."""
        if end >= size or self._dry_run:
            return ""
        if segment.data.failed is not None:
            # Nobody knows what stands there.
            return f"; not cut off: {segment.data.failed}"
        try:
            cut(self._files, segment.path, end)
        except OSError as error:
            return f"; not cut off: {error}"
        return ""


def _span(item: Hole | BadPayload) -> tuple[int, int]:
    where = item if isinstance(item, Hole) else item.frame
    return where.offset, where.end
