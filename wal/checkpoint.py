"""The checkpoint: what of a log needs no replay. Lost, torn, older or newer than the log, nothing is lost or doubled.

It only saves work: what is replayed for want of it is looked up before it is sent. It speaks of places by epoch, and
every writer draws a new epoch, so that the checkpoint of a restored or copied folder never speaks of new rows.

The file is text, one thing a line, its last line the CRC32C of all bytes before it, in hexadecimal:

    wal checkpoint 1
    settled <epoch, 16 hexadecimal digits> <first> <stop>
    confirmed <epoch> <first> <stop> <when, seconds since 1970> <server, JSON text>
    note <key, JSON text> <value, JSON>
    crc32c 1f2a3b4c

It is ASCII, lines of a kind are in order, and no two speak of the same rows. A later version changes the number in the
first line, and nothing before that.

It is replaced whole: `checkpoint.new` is written, synced and renamed. One that cannot be read counts as empty, is told,
and is kept when the next one is written: `checkpoint.newer` if a later version wrote it, else `checkpoint.broken`, the
last of each.
"""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

from wal.damage import Damage, Harm
from wal.errors import FormatError, NewerFormat
from wal.files import OS_FILES, Files, write_all
from wal.format import crc32c
from wal.names import CHECKPOINT
from wal.places import PlaceSet, Range
from wal.seals import Json
from wal.settled import Checkpoint, Confirmed

__all__ = ["Checkpoint", "CheckpointFile", "Confirmed", "pack_checkpoint", "read_checkpoint"]

VERSION = 1
_TITLE = "wal checkpoint "
_TITLE_LINE = re.compile(rb"wal checkpoint (\d{1,9})\n")
_CRC_LINE = re.compile(rb"crc32c ([0-9a-f]{8})\n")
_CRC_LINE_BYTES = len("crc32c 1f2a3b4c\n")
_RANGE = r"([0-9a-f]{16}) (\d{1,20}) (\d{1,20})"
_SETTLED = re.compile(rf"settled {_RANGE}")
_CONFIRMED = re.compile(rf"confirmed {_RANGE} (\d{{1,20}}) (.*)")
_NOTE = re.compile(r'note ("(?:[^"\\]|\\.)*") (.*)')


class CheckpointFile:
    """The file of one log's checkpoint. One owner at a time: the one that writes the log; anybody may read."""

    def __init__(self, folder: Path, *, files: Files = OS_FILES):
        self.path = folder / CHECKPOINT
        self._files = files
        self._looked = False
        self._closed = False
        self._keep_as: str | None = None
        """What stands in the file and cannot be read is given this name before another takes its place."""

    def read(self) -> tuple[Checkpoint, Damage | None]:
        """What the file says, and what is wrong with it; empty where there is none, or it cannot be read."""
        self._looked, self._keep_as = True, None
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return Checkpoint(), None
        except OSError as error:
            self._keep_as = f"{CHECKPOINT}.broken"
            return Checkpoint(), Damage(Harm.CHECKPOINT, CHECKPOINT, detail=str(error))
        try:
            return read_checkpoint(data), None
        except FormatError as error:
            self._keep_as = f"{CHECKPOINT}.{'newer' if isinstance(error, NewerFormat) else 'broken'}"
            return Checkpoint(), Damage(Harm.CHECKPOINT, CHECKPOINT, nbytes=len(data), detail=str(error))

    def write(self, checkpoint: Checkpoint) -> None:
        """Put this one in the place of the one that is there. On disk when it returns.

        Raises:
            OSError: it could not; what was there stands, or, after a failed sync of the folder, one of the two.
            TypeError, ValueError: a note is no JSON.
        """
        data = pack_checkpoint(checkpoint)
        if not self._looked:
            self.read()
        unfinished = self.path.with_name(f"{CHECKPOINT}.new")
        try:
            self._write_new(unfinished, data)
            if self._keep_as is not None and self.path.exists():
                self._files.rename(self.path, self.path.with_name(self._keep_as))
            self._keep_as = None
            if self._closed:
                raise OSError("the log was closed before its disk took this one")
            self._files.rename(unfinished, self.path)
        except OSError:
            self._clear(unfinished)
            raise
        self._files.sync_folder(self.path.parent)

    def close(self) -> None:
        """Put no other one in its place, nor one that a disk which hangs has not taken yet: when that is back the
        folder may be somebody else's.
        """
        self._closed = True

    def _write_new(self, unfinished: Path, data: bytes) -> None:
        # A file of its own each time: a descriptor whose sync failed once is never trusted again.
        if unfinished.exists():
            self._files.unlink(unfinished)
        fd = self._files.create(unfinished)
        try:
            write_all(self._files, fd, data, 0)
            self._files.fsync(fd)
        finally:
            self._files.close(fd)

    def _clear(self, unfinished: Path) -> None:
        try:
            if unfinished.exists():
                self._files.unlink(unfinished)
        except OSError:
            return  # The next write tries again, and says why it cannot.


# -- to bytes and back --------------------------------------------------------------------------------------------


def pack_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The bytes of the file.

    Raises:
        TypeError, ValueError: a note is no JSON (a NaN is none).
    """
    lines = [f"{_TITLE}{VERSION}"]
    lines += [f"settled {_range_text(one)}" for one in checkpoint.settled]
    lines += [
        f"confirmed {_range_text(one)} {at_s} {_json(server)}" for one, at_s, server in checkpoint.confirmed
    ]
    lines += [f"note {_json(key)} {_json(checkpoint.notes[key])}" for key in sorted(checkpoint.notes)]
    body = "".join(f"{line}\n" for line in lines).encode()
    return body + f"crc32c {crc32c(body):08x}\n".encode()


def read_checkpoint(data: bytes) -> Checkpoint:
    """A checkpoint from the bytes of its file.

    Raises:
        NewerFormat: a later version wrote it.
        FormatError: it is torn, or no checkpoint.
    """
    title = _TITLE_LINE.match(data)
    if title is not None and int(title[1]) != VERSION:
        raise NewerFormat(
            f"checkpoint of version {int(title[1])}, this program reads {VERSION}; use the program that wrote it, or "
            "a later one, to go on from there"
        )
    body, crc_line = data[:-_CRC_LINE_BYTES], data[-_CRC_LINE_BYTES:]
    said = _CRC_LINE.fullmatch(crc_line)
    if title is None or said is None:
        raise FormatError(
            f"no checkpoint, or one that was cut off: {len(data)} bytes, at first {data[:40]!r}"
        )
    if crc32c(body) != int(said[1], 16):
        raise FormatError(f"its checksum is {said[1].decode()}, computed {crc32c(body):08x}")
    try:
        return _parse(body.decode("ascii").split("\n")[1:-1])
    except (ValueError, RecursionError) as error:
        raise FormatError(f"its checksum is right, and a line is none of ours: {error}") from error


def _parse(lines: list[str]) -> Checkpoint:
    settled, confirmed, notes = list[Range](), list[Confirmed](), dict[str, Json]()
    for line in lines:
        if found := _SETTLED.fullmatch(line):
            settled.append(_range_of(found))
        elif found := _CONFIRMED.fullmatch(line):
            confirmed.append(Confirmed(_range_of(found), int(found[4]), str(json.loads(found[5]))))
        elif found := _NOTE.fullmatch(line):
            notes[str(json.loads(found[1]))] = json.loads(found[2])
        else:
            raise ValueError(f"{line[:120]!r}")
    spoken = sorted([*settled, *(one.range for one in confirmed)])
    if any(left.common(right) for left, right in itertools.pairwise(spoken)):
        raise ValueError("two lines speak of the same rows")
    return Checkpoint(tuple(PlaceSet(settled)), tuple(sorted(confirmed)), notes)


def _range_of(found: re.Match[str]) -> Range:
    read = Range(int(found[1], 16), int(found[2]), int(found[3]))
    if read.rows <= 0:
        raise ValueError(f"{found[0][:120]!r}: a range without rows")
    return read


def _range_text(one: Range) -> str:
    return f"{one.epoch:016x} {one.first} {one.stop}"


def _json(value: Json) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
