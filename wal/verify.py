"""Is a log whole: every checksum computed, every row decoded, every place counted. Changes nothing, takes no lock.

Works beside a writer: what is unfinished at the end of the newest segment is looked at a few times before it is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from wal import names
from wal.damage import Damage, Harm
from wal.errors import FormatError
from wal.format import Kind
from wal.frames import Frame
from wal.ledger import Ledger
from wal.places import Range
from wal.runs import stop_of
from wal.segment import Segment, listable
from wal.walk import Walk, of_frame

_LOOKS = 3
_BETWEEN_LOOKS_S = 0.02
"""Many times what a write of one frame takes."""


@dataclass(frozen=True)
class SegmentTotals:
    """What one segment holds that is sound."""

    number: int
    path: Path
    epoch: int
    created_ns: int
    nbytes: int
    """Of the file, zeros too."""
    first: int
    """Sequence of its first row, by its preamble."""
    stop: int
    """Sequence after its last row."""
    frames: int
    rows: int


@dataclass(frozen=True)
class Verified:
    """What was found. `rows` counts each place once."""

    segments: tuple[SegmentTotals, ...]
    frames: int
    rows: int
    nbytes: int
    damage: tuple[Damage, ...]
    seconds: float

    @property
    def whole(self) -> bool:
        """Whether nothing at all is wrong."""
        return not self.damage


def verify(
    folders: Sequence[Path],
    *,
    name: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Verified:
    """Read all of a log.

    Args:
        folders: of the log.
        name: of the log, if its segments' name shall be looked at.
        progress: told bytes done and bytes in all, after each segment and now and then within one.

    Raises:
        OSError: of this process and not of the log, such as too many open files.
    """
    begun_s = time.monotonic()
    ledger, looks = Ledger(), iter(range(_LOOKS))

    def wait() -> bool:
        time.sleep(_BETWEEN_LOOKS_S)
        return next(looks, None) is not None

    counts: list[_Count] = []

    def entered(number: int, segment: Segment) -> None:
        counts.append(_Count(number, segment))

    sizes = {
        path: size for _, path in names.segments(listable(folders)[0]) if (size := _size(path)) is not None
    }
    told = _Progress(sizes, progress)
    rows = 0
    walk = Walk(folders, ledger, name=name, wait=wait, end_told=True, entered=entered)
    for _, segment, frame, payload in walk.frames():
        told.at(segment.path, frame.end)
        places = Range(segment.preamble.epoch, frame.header.first, stop_of(frame))
        if why := _why_not(segment, frame, payload or b""):
            ledger.tell_lost(of_frame(Harm.UNDECODABLE, segment.path, frame, why), places)
            continue
        fresh = ledger.meet(places, segment.path, frame.offset, frame.end - frame.offset)
        rows += sum(part.rows for part in fresh)
        counts[-1].add(places)
    told.done()
    segments = tuple(count.totals() for count in counts)
    return Verified(
        segments,
        sum(totals.frames for totals in segments),
        rows,
        sum(totals.nbytes for totals in segments),
        tuple(ledger.damage),
        time.monotonic() - begun_s,
    )


class _Count:
    """Of one segment, so far."""

    def __init__(self, number: int, segment: Segment):
        self._number = number
        self._path = segment.path
        self._nbytes = segment.size
        self._preamble = segment.preamble
        self._stop = segment.preamble.first
        self._frames = 0
        self._rows = 0

    def add(self, rows: Range) -> None:
        self._frames += 1
        self._rows += rows.rows
        self._stop = max(self._stop, rows.stop)

    def totals(self) -> SegmentTotals:
        preamble = self._preamble
        return SegmentTotals(
            *(self._number, self._path, preamble.epoch, preamble.created_ns, self._nbytes),
            *(preamble.first, self._stop, self._frames, self._rows),
        )


def _why_not(segment: Segment, frame: Frame, payload: bytes) -> str | None:
    """Why the rows of a frame cannot be decoded."""
    if frame.header.kind != Kind.ROWS:
        return None
    try:
        segment.decode(frame, payload).validate(full=True)
    except (FormatError, pa.ArrowInvalid) as error:
        return str(error)
    return None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


class _Progress:
    """How far a reader is, in bytes of all segments that were there when it began."""

    def __init__(self, sizes: dict[Path, int], progress: Callable[[int, int], None] | None):
        self._progress = progress
        self._total = sum(sizes.values())
        self._before, before = {}, 0
        for path, size in sizes.items():
            self._before[path] = before
            before += size
        self._told_s = 0.0

    def at(self, path: Path, offset: int) -> None:
        now_s = time.monotonic()
        if self._progress is None or now_s - self._told_s < 0.1:
            return
        self._told_s = now_s
        self._progress(min(self._total, self._before.get(path, self._total) + offset), self._total)

    def done(self) -> None:
        if self._progress is not None:
            self._progress(self._total, self._total)
