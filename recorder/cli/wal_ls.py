"""`recorder wal ls`: what logs hold, how much of it is settled, and who writes. Headers are read, rows hardly."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.compute as pc

from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import emit_json, emit_table
from recorder.cli.wal_logs import Log, damage_of, mebibytes, place_options, places, tell
from recorder.log_holder import holder, torn_tail
from wal import names
from wal.checkpoint import CheckpointFile
from wal.damage import Damage
from wal.errors import FormatError
from wal.format import Preamble
from wal.frames import Frame
from wal.places import PlaceSet, Range
from wal.reader import LogReader
from wal.segment import Segment, listable

TIME = "ts_local"


@dataclass
class _Held:
    """What one segment holds."""

    number: int
    path: Path
    nbytes: int = 0
    preamble: Preamble | None = None
    frames: list[Frame] = field(default_factory=list)
    """The first and the last one with rows."""
    rows: PlaceSet = field(default_factory=PlaceSet)
    times: tuple[int, int] | None = None


@dataclass(frozen=True)
class Found:
    """What one log holds."""

    log: Log
    segments: Sequence[_Held]
    broken: Sequence[Path]
    rows: PlaceSet
    settled: int
    confirmed: int
    """Rows that the checkpoint calls confirmed, and not settled."""
    holder: str | None
    damage: Sequence[Damage]

    @property
    def times(self) -> tuple[int, int] | None:
        """Of its first and its last rows."""
        found = [one.times for one in self.segments if one.times is not None]
        return (min(first for first, _ in found), max(last for _, last in found)) if found else None

    @property
    def nbytes(self) -> int:
        """Of all segments' files, with the zeros that were made ahead."""
        return sum(one.nbytes for one in self.segments)


def look(log: Log) -> Found:
    """Look at one log; who writes meanwhile is not disturbed.

    Raises:
        OSError: of this process and not of the log, such as too many open files.
    """
    reader = LogReader(log.folders)
    folders, _ = listable(log.folders)  # what is wrong with the others the reader tells
    rows, held = PlaceSet(), {path: _Held(number, path) for number, path in names.segments(folders)}
    for entry, _ in reader.entries(check=False):
        one = held.setdefault(entry.path, _Held(entry.segment, entry.path))
        if entry.range.rows:
            rows.add(entry.range)
            one.rows.add(entry.range)
            one.frames = [*one.frames[:1], entry.frame]
    for one in held.values():
        _complete(one)
    checkpoint, damage = CheckpointFile(log.folder).read()
    return Found(
        log,
        sorted(held.values(), key=lambda one: (one.number, one.path)),
        [path for _, _, path in names.broken(folders)],
        rows,
        _shared(rows, checkpoint.settled),
        _shared(rows, [one.range for one in checkpoint.confirmed]),
        holder(log.folder),
        [*reader.damage, *torn_tail(log.folders), *([damage] if damage is not None else [])],
    )


def _complete(one: _Held) -> None:
    """What is known of a segment beside its rows; what is broken of it the reader has told."""
    try:
        with Segment.open(one.path) as segment:
            one.nbytes, one.preamble = segment.size, segment.preamble
            times = [_times(segment, frame) for frame in one.frames]
    except (OSError, FormatError):
        return
    found = [pair for pair in times if pair is not None]
    if found:
        one.times = (min(first for first, _ in found), max(last for _, last in found))


def _times(segment: Segment, frame: Frame) -> tuple[int, int] | None:
    """Earliest and latest local time of a frame, if its rows have one."""
    at = segment.schema.get_field_index(TIME)
    if at < 0 or not pa.types.is_timestamp(segment.schema.field(at).type):
        return None
    try:
        column = segment.rows(frame).column(at)
    except FormatError:
        return None
    both = pc.min_max(column.cast(pa.timestamp("ns", tz=column.type.tz)).cast(pa.int64()))
    return None if both["min"].as_py() is None else (both["min"].as_py(), both["max"].as_py())


def _shared(rows: PlaceSet, ranges: Sequence[Range]) -> int:
    return sum(common.rows for one in ranges for common in rows.common_of(one))


@click.command()
@click.argument("tables", nargs=-1)
@place_options
@click.option("--segments", is_flag=True, help="A line a segment.")
@pass_invocation
def ls(
    invocation: Invocation, tables: tuple[str, ...], folder: Path | None, second: Path | None, segments: bool
) -> None:
    """List logs: rows, bytes, times, how much is settled, and who writes.

    Rows that are confirmed or settled need not be sent again; "open" ones are replayed by the next recorder. Times
    are those of the first and the last rows, UTC. Epochs are 16 hexadecimal digits.

    \b
    Example:
        recorder wal ls
        recorder wal ls fills --segments
        recorder wal ls --dir /mnt/rescued/wal --json
    """
    found = [look(log) for log in places(invocation, folder, second).chosen(tables)]
    if invocation.json:
        emit_json([_json(one) for one in found])
        return
    if segments:
        _show_segments(found)
    else:
        _show(found)
    for one in found:
        tell(one.log, one.damage)


def _json(found: Found) -> dict[str, Any]:
    first, last = found.times or (None, None)
    return {
        "table": found.log.name,
        "folders": [str(one) for one in found.log.folders],
        "writer": found.holder,
        "rows": found.rows.rows,
        "settled": found.settled,
        "confirmed": found.confirmed,
        "open": found.rows.rows - found.settled - found.confirmed,
        "bytes": found.nbytes,
        "first_ns": first,
        "last_ns": last,
        "epochs": [f"{epoch:016x}" for epoch in found.rows.epochs],
        "segments": [_segment_json(one) for one in found.segments],
        "broken": [str(path) for path in found.broken],
        "damage": [damage_of(found.log, one) for one in found.damage],
    }


def _segment_json(one: _Held) -> dict[str, Any]:
    first, last = one.times or (None, None)
    preamble = one.preamble
    return {
        "number": one.number,
        "file": str(one.path),
        "bytes": one.nbytes,
        "rows": one.rows.rows,
        "epoch": f"{preamble.epoch:016x}" if preamble else None,
        "first": min((part.first for part in one.rows), default=None),
        "stop": max((part.stop for part in one.rows), default=None),
        "made_ns": preamble.created_ns if preamble else None,
        "schema_hash": f"{preamble.schema_hash:016x}" if preamble else None,
        "first_ns": first,
        "last_ns": last,
    }


def _show(found: Sequence[Found]) -> None:
    numbers = ["segments", "bytes", "rows", "settled", "confirmed", "open", "broken"]
    rows = [
        (
            one.log.name,
            len(one.segments),
            mebibytes(one.nbytes),
            f"{one.rows.rows:,}",
            f"{one.settled:,}",
            f"{one.confirmed:,}",
            f"{one.rows.rows - one.settled - one.confirmed:,}",
            len(one.broken),
            *(_time(at) for at in (one.times or (None, None))),
            one.holder or "nobody",
        )
        for one in found
    ]
    emit_table(["table", *numbers, "first", "last", "writer"], rows, right=numbers)


def _show_segments(found: Sequence[Found]) -> None:
    numbers = ["segment", "bytes", "rows", "from", "to"]
    # Both folders may have a segment of one number.
    where = ["folder"] if any(len({held.path.parent for held in one.segments}) > 1 for one in found) else []
    rows = [
        (
            one.log.name,
            *([str(held.path.parent)] if where else []),
            held.number,
            mebibytes(held.nbytes),
            f"{held.rows.rows:,}",
            f"{min(part.first for part in held.rows):,}" if held.rows else "-",
            f"{max(part.stop for part in held.rows) - 1:,}" if held.rows else "-",
            f"{held.preamble.epoch:016x}" if held.preamble else "cannot be read",
            *(_time(at) for at in (held.times or (None, None))),
        )
        for one in found
        for held in one.segments
    ]
    emit_table(["table", *where, *numbers, "epoch", "first", "last"], rows, right=numbers)


def _time(at_ns: int | None) -> str:
    """To the second: what people look for in a list."""
    if at_ns is None:
        return "-"
    return datetime.datetime.fromtimestamp(at_ns // 1_000_000_000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
