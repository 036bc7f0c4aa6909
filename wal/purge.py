"""Removing segments that nobody needs: the oldest first, and only those whose rows are all settled.

`purgeable` decides, `purge` acts. A segment goes when every row that it holds or held is settled, no seal that still
holds and is not settled has a row in it, and all older ones that can be read go too or are gone: so a void outlives its
seal, and a seal stands no longer than its rows. What cannot be read, belongs to somebody else or was written by a later
version is never removed, and holds nothing up. Rows that were lost are settled by whoever counts them as lost.

The names are gone durably before the checkpoint forgets their epoch: the other way round, a power cut would bring back
rows that nothing speaks of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wal import names
from wal.files import OS_FILES, Files
from wal.order import openings
from wal.places import PlaceSet, Range
from wal.recovery import SegmentState
from wal.seals import Seal
from wal.segment import listable
from wal.settled import Checkpoint


def purgeable(
    segments: Sequence[SegmentState], active: int | None, settled: PlaceSet, seals: Iterable[Seal] = ()
) -> list[SegmentState]:
    """The segments that may go, oldest first.

    `segments` are all that can be read; `active` is the one being written, which never goes. `seals` are those that may
    still be sent: a row of one of them counts as settled only when all of its rows are, since it is sent whole or not
    at all. One that lost rows is none of these (`wal.replay.ReplayBatch.broken_seal`): it would hold them for ever.
    """
    settled = settled.copy()
    begins: dict[int, int] = {}
    for segment in segments:
        epoch, first = segment.preamble.epoch, segment.preamble.first
        begins[epoch] = min(first, begins.get(epoch, first))
    open_: list[Range] = []
    for seal in seals:
        # What lies before the first segment was purged, so it was settled, whether or not a checkpoint still says so.
        begin = begins.get(seal.epoch, 0)
        if not all(settled.covers(one._replace(first=max(begin, one.first))) for one in seal.ranges):
            open_ += seal.ranges
    for one in open_:  # when all were looked at: one of them opens no other
        settled.remove(one)
    going = []
    for segment in in_order(segments):
        held = Range(segment.preamble.epoch, segment.preamble.first, segment.stop)
        if segment.number == active or not settled.covers(held):
            break
        going.append(segment)
    return going


def in_order(segments: Sequence[SegmentState]) -> list[SegmentState]:
    """In the order in which they were made, over both folders (`wal.order`)."""
    opened = openings((one.number, one.path, one.preamble) for one in segments)
    return sorted(segments, key=lambda one: (opened[one.preamble.epoch], one.number, one.path))


class Log(Protocol):
    """A log at its owner: what `wal.writer.LogWriter` is."""

    @property
    def epoch(self) -> int:
        """The writer's own."""

    @property
    def active(self) -> int | None:
        """The segment that is written to, if there is one."""

    def segments(self) -> Sequence[SegmentState]:
        """All that can be read, as they are now."""

    def removed(self, paths: Iterable[Path]) -> None:
        """These are gone."""


@dataclass(frozen=True)
class Purged:
    """What became of it. `checkpoint` speaks of epochs that the log still has, and is to be written."""

    numbers: tuple[int, ...]
    nbytes: int
    """What the removed files took on the disk."""
    checkpoint: Checkpoint
    error: str | None = None
    """Why it ended early, in a line. The next time it goes on."""


def purge(
    log: Log,
    folders: Sequence[Path],
    checkpoint: Checkpoint,
    *,
    seals: Iterable[Seal] = (),
    files: Files = OS_FILES,
) -> Purged:
    """Remove what may go, durably, and tell the log. One call at a time; beside a writer that writes."""
    # In this order: a segment that is no longer the active one when it is listed has all its rows.
    active = log.active
    segments = log.segments()
    if active is None:
        # Between two segments: what this writer made last may become the active one, or has just done so.
        active = min((state.number for state in segments if state.preamble.epoch == log.epoch), default=None)
    going = purgeable(segments, active, PlaceSet(checkpoint.settled), seals)
    removed, nbytes, error = remove(going, files=files)
    log.removed(state.path for state in removed)
    if error is None:
        gone = {state.path for state in removed}
        left = [state for state in segments if state.path not in gone]
        checkpoint = checkpoint.forget(_gone(checkpoint, left, folders) - {log.epoch})
    return Purged(tuple(state.number for state in removed), nbytes, checkpoint, error)


def remove(
    segments: Iterable[SegmentState], *, files: Files = OS_FILES
) -> tuple[list[SegmentState], int, str | None]:
    """Remove these files, in this order, durably: which are gone, what they took on the disk, why it ended early."""
    removed: list[SegmentState] = []
    nbytes, error = 0, None
    for state in segments:
        try:
            took_bytes = state.path.stat().st_blocks * 512
            files.unlink(state.path)
            nbytes += took_bytes
        except FileNotFoundError:
            pass  # somebody else removed it
        except OSError as caught:
            error = f"{state.path}: cannot be removed: {caught.strerror}"
            break
        removed.append(state)
    for folder in dict.fromkeys(state.path.parent for state in removed):
        try:
            files.sync_folder(folder)
        except OSError as caught:
            error = error or f"{folder}: it is not certain that segments are gone: {caught.strerror}"
    return removed, nbytes, error


def _gone(checkpoint: Checkpoint, left: Sequence[SegmentState], folders: Sequence[Path]) -> frozenset[int]:
    """Epochs of which the log has nothing; none of them while there is a file that may be of any epoch."""
    known = {state.path for state in left}
    there, unlistable = listable(folders)
    if unlistable or any(path not in known for _, path in names.segments(there)):
        return frozenset()
    return checkpoint.epochs - {state.preamble.epoch for state in left}
