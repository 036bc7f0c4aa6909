"""What of a log still has to be sent, and where it stands: worked out before the first row is read.

`survey` goes through the log once and keeps stretches, of at most `STRETCH_BYTES` each, and never a value a frame: an
index of 1 GiB takes a few MB whatever its frames are like. `plan` is pure: places to do, seals that hold, in order.

Order is by place: epochs as the log has them, sequences rising, a seal at its first row. Seals that hold share no row,
so each row is in one item, or in none where it is done.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from wal.damage import Damage, Harm
from wal.errors import FormatError
from wal.format import Kind, Preamble
from wal.order import openings
from wal.places import PlaceSet, Range
from wal.reader import LogReader
from wal.seals import Seal, Void, live_seals, read_seal, read_void
from wal.segment import Segment, open_or_tell

STRETCH_BYTES = 262_144
END = 2**63
"""No epoch has so many rows."""


class Stretch(NamedTuple):
    """Frames of one segment whose rows follow on one another. Of the rows in them, those of `range` are meant."""

    range: Range
    path: Path
    offset: int
    """Where the first of the frames begins."""
    nbytes: int
    """What they take in the file."""
    schema_hash: int


@dataclass
class Survey:
    """A log as it was when it was gone through. Nothing in it changes after that."""

    stretches: dict[int, list[Stretch]] = field(default_factory=dict)
    """Of each epoch, in the order of the log; by sequence within one, none with a row of another."""
    present: PlaceSet = field(default_factory=PlaceSet)
    """Rows that can be read."""
    begins: dict[int, int] = field(default_factory=dict)
    """The lowest sequence of an epoch that the log has had since it was last purged."""
    seals: list[Seal] = field(default_factory=list)
    """Those that hold."""
    lost: PlaceSet = field(default_factory=PlaceSet)
    """Rows that there were, and that cannot be read."""
    unread: PlaceSet = field(default_factory=PlaceSet)
    """Rows that there are, as far as is known, and that the disk does not give now: they are not lost."""
    hidden: PlaceSet = field(default_factory=PlaceSet)
    """Where rows may be that the disk does not give now, up to the end of an epoch where nothing follows."""
    blind: bool = False
    """Whether files were not read at all: any row may be in them."""
    broken: PlaceSet = field(default_factory=PlaceSet)
    """Rows of frames that were read, and are not what was written."""
    damage: list[Damage] = field(default_factory=list)

    def stretches_of(self, asked: Range) -> list[Stretch]:
        """Those that have rows of a range, in order."""
        listed = self.stretches.get(asked.epoch, [])
        at = max(0, bisect_right(listed, asked.first, key=lambda one: one.range.first) - 1)
        found = []
        for stretch in listed[at:]:
            if stretch.range.first >= asked.stop:
                break
            if stretch.range.stop > asked.first:
                found.append(stretch)
        return found

    def missing(self, asked: Range) -> tuple[list[Range], list[Range]]:
        """Of a range that the log had, what it cannot give: lost; and unread for now, which may be had another time."""
        lost, unread = list[Range](), list[Range]()
        for gone in self.present.missing_of(asked):
            hidden = PlaceSet([gone] if self.blind else self.hidden.common_of(gone))
            for one in self.broken.common_of(gone):
                hidden.remove(one)
            unread += hidden
            lost += hidden.missing_of(gone)
        return lost, unread

    def bytes_of(self, asked: Range) -> int:
        """About what these rows take in the files."""
        return sum(
            one.nbytes * common.rows // one.range.rows
            for one in self.stretches_of(asked)
            if (common := one.range.common(asked)) is not None
        )


def survey(reader: LogReader) -> Survey:
    """Go through the log once, payloads looked at.

    Raises:
        OSError: of this process and not of a file, such as too many open files.
    """
    found = Survey()
    said: list[tuple[int, Seal | Void]] = []
    made: list[tuple[int, Path, Preamble]] = []
    damage: list[Damage] = []
    path, schema_hash = None, 0
    for entry, contents in reader.entries():
        if entry.path != path:
            path = entry.path
            opened = open_or_tell(path)
            if isinstance(opened, Segment):
                with opened as segment:
                    preamble = segment.preamble
                    schema_hash = preamble.schema_hash
                    made.append((entry.segment, path, preamble))
                    begin = found.begins.get(preamble.epoch, preamble.first)
                    found.begins[preamble.epoch] = min(begin, preamble.first)
        if entry.kind is Kind.ROWS:
            if entry.range.rows:
                header = entry.frame
                _extend(
                    found, Stretch(entry.range, path, header.offset, header.end - header.offset, schema_hash)
                )
            continue
        payload = contents.payload()
        if payload is None:
            continue
        try:
            meant = read_seal(payload) if entry.kind is Kind.SEAL else read_void(payload)
            said.append((entry.range.epoch, meant))
        except FormatError as error:
            nbytes = entry.frame.end - entry.frame.offset
            damage.append(
                Damage(Harm.UNDECODABLE, str(entry.path), entry.frame.offset, nbytes, detail=str(error))
            )
    for stretches in found.stretches.values():
        stretches.sort(key=lambda one: one.range.first)
        found.present.update(one.range for one in stretches)
    # Of two seals with a row the later one holds, and numbers alone do not say which that is (`wal.order`).
    order = openings(made)
    said.sort(key=lambda one: order.get(one[0], len(order)))
    found.seals = live_seals(meant for _, meant in said)
    found.damage = reader.damage + damage
    _find_lost(found)
    return found


def _extend(found: Survey, fresh: Stretch) -> None:
    """Take in a frame: as part of the stretch before it, if it goes on there."""
    stretches = found.stretches.setdefault(fresh.range.epoch, [])
    if stretches:
        last = stretches[-1]
        if (
            last.path == fresh.path
            and last.range.stop == fresh.range.first
            and last.offset <= fresh.offset
            and fresh.offset + fresh.nbytes - last.offset <= STRETCH_BYTES
        ):
            nbytes = fresh.offset + fresh.nbytes - last.offset
            stretches[-1] = last._replace(
                range=last.range._replace(stop=fresh.range.stop), nbytes=max(last.nbytes, nbytes)
            )
            return
    stretches.append(fresh)


def _find_lost(found: Survey) -> None:
    """What the log had, by its preambles, its damage and its seals, and cannot give."""
    had = [
        Range(epoch, found.begins.get(epoch, stretches[0].range.first), stretches[-1].range.stop)
        for epoch, stretches in found.stretches.items()
    ]
    had += [_rows_of(one) for one in found.damage if one.epoch and one.rows]
    for seal in found.seals:
        # What lies before the first segment was purged, which means settled.
        begin = found.begins.get(seal.epoch)
        if begin is not None:
            had += [one._replace(first=max(begin, one.first)) for one in seal.ranges]
    _find_hidden(found)
    for span in had:
        lost, unread = found.missing(span)
        found.lost.update(lost)
        found.unread.update(unread)


def _find_hidden(found: Survey) -> None:
    """Where rows may be that the disk does not give now."""
    for one in found.damage:
        if one.harm in (Harm.PAYLOAD, Harm.UNDECODABLE) and one.epoch:
            found.broken.add(_rows_of(one))
        if one.harm is not Harm.UNREAD:
            continue
        if not one.nbytes or not one.epoch:
            found.blind = True  # a whole file or folder
        else:  # whatever was in those bytes: up to the next row that there is
            first = found.present.stop_of_run(one.epoch, one.first)
            after = (there.first for there in found.present.ranges(one.epoch) if there.first > first)
            found.hidden.add(Range(one.epoch, first, min(after, default=END)))


def _rows_of(damage: Damage) -> Range:
    """The rows that a broken frame had: more than it cost, where some of them stand elsewhere too."""
    if damage.harm in (Harm.PAYLOAD, Harm.UNDECODABLE, Harm.UNREAD):
        opened = open_or_tell(Path(damage.file))
        if isinstance(opened, Segment):
            with opened as segment:
                frame = segment.frame_at(damage.offset)
            if frame is not None:
                return Range(damage.epoch, frame.header.first, frame.header.first + frame.header.rows)
    return Range(damage.epoch, damage.first, damage.first + (damage.rows or 0))


class Item(NamedTuple):
    """Rows to send. Under the seal's token if `whole`, else cut as one likes; `seal` is None where they have none."""

    ranges: tuple[Range, ...]
    seal: Seal | None
    whole: bool


def plan(
    found: Survey, done: PlaceSet, only: Iterable[Range] | None = None
) -> tuple[list[Item], list[Damage]]:
    """What has to be sent, in order, and what is told of seals whose rows are not all there.

    `done` needs no sending; `only` says what is asked for, else all is. A seal of which one row is to be sent is sent
    whole: a part of its rows under its token would be swallowed. One that has lost rows cannot be sent any more as it
    was: what is left of it comes as an item of its own, without what is done.
    """
    asked = PlaceSet(only) if only is not None else None
    items: list[Item] = []
    damage: list[Damage] = []
    seals: dict[int, list[Seal]] = {}
    for seal in found.seals:
        seals.setdefault(seal.epoch, []).append(seal)
    for epoch in found.stretches:
        rest = PlaceSet(
            wanted
            for there in found.present.ranges(epoch)
            for open_ in done.missing_of(there)
            for wanted in (asked.common_of(open_) if asked is not None else [open_])
        )
        of_epoch = []
        for seal in seals.get(epoch, []):
            wanted = tuple(part for one in seal.ranges for part in rest.common_of(one))
            if not wanted:
                continue
            whole = all(found.present.covers(one) for one in seal.ranges)
            if not whole:
                damage.append(_incomplete(found, seal))
            of_epoch.append(Item(seal.ranges if whole else wanted, seal, whole))
            for one in seal.ranges:
                rest.remove(one)
        of_epoch += [Item((one,), None, False) for one in rest.ranges(epoch)]
        items += sorted(of_epoch, key=lambda item: item.ranges[0])
    return items, damage


def _incomplete(found: Survey, seal: Seal) -> Damage:
    gone = sum(part.rows for one in seal.ranges for part in found.present.missing_of(one))
    first = seal.ranges[0]
    where = found.stretches_of(Range(seal.epoch, first.first, seal.ranges[-1].stop))
    return Damage(
        Harm.SEAL,
        str(where[0].path) if where else "",
        epoch=seal.epoch,
        first=first.first,
        detail=f"token {seal.token}, {seal.rows} rows, {gone} of them gone",
    )


def ahead(found: Survey, done: PlaceSet) -> list[Damage]:
    """What a checkpoint says of rows that come after the last one of an epoch: the log was restored, or cut short."""
    told = []
    for epoch, stretches in found.stretches.items():
        stop = stretches[-1].range.stop
        beyond = [one for one in done.ranges(epoch) if one.stop > stop]
        if beyond and not found.lost.covers(Range(epoch, stop, beyond[-1].stop)):
            detail = f"up to {beyond[-1].stop}, the log ends at {stop}"
            told.append(Damage(Harm.CHECKPOINT_AHEAD, "checkpoint", epoch=epoch, first=stop, detail=detail))
    return told
