"""One segment file, read: its preamble, its frames, their rows. Never written here, and never mapped.

Others may write, cut or remove the file meanwhile (the writer, recovery, the purger): what is gone is not found, what
is being written is not sound yet, and nothing that is not sound is ever given out.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from wal.damage import Damage, Harm
from wal.errors import BrokenSegment, ForeignFile, FormatError, NewerFormat
from wal.filedata import FileData
from wal.format import PREAMBLE_BYTES_MAX, Preamble, read_preamble
from wal.frames import Frame, Hole, frame_at, payload, scan
from wal.rows import read_rows, read_schema

_FIRST_LOOK_BYTES = 65_536
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that say something of this process or machine, and nothing of a file."""
_NO_FILE = frozenset({errno.ELOOP, errno.ENOTDIR})
"""Errors that say that there is no file or folder to be read, at any time."""


class Segment:
    """See the module. A context manager; after `close` its bytes cannot be read any more."""

    def __init__(self, path: Path, fd: int, preamble: Preamble, sound: bool):
        self.path = path
        self.preamble = preamble
        self.sound = sound
        """Whether both copies of the preamble are."""
        self._fd = fd
        self.data = FileData(fd)
        self._size_seen = 0

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a segment and read its preamble.

        Raises:
            ForeignFile: this is no segment.
            NewerFormat: a later version wrote it.
            BrokenSegment: neither of its preambles can be read.
            OSError: it is not there, or cannot be read.
        """
        # Not blocking: a pipe of that name must not stop us.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ForeignFile(f"{path}: this is no file; it is left alone, move it away")
            preamble, sound = _preamble_of(fd, path)
            return cls(path, fd, preamble, sound)
        except BaseException:
            os.close(fd)
            raise

    @property
    def size(self) -> int:
        """Bytes of the file, now."""
        return os.fstat(self._fd).st_size

    @property
    def changed_ns(self) -> int:
        """When the file was written last, by the file system's clock."""
        return os.fstat(self._fd).st_mtime_ns

    @cached_property
    def schema(self) -> pa.Schema:
        """Of its rows. Raises `FormatError` if it is none."""
        return read_schema(self.preamble.schema)

    def scan(self, start: int | None = None) -> Iterator[Frame | Hole]:
        """Frames and holes as they are now, from `start`, where a frame begins, or from the first one."""
        self.data.forget()
        self._size_seen = self.size
        return scan(self.data, self._size_seen, self.preamble, start)

    def frame_at(self, offset: int) -> Frame | None:
        """The frame that begins there now, if one does."""
        frame = frame_at(self.data, self._size_seen, self.preamble, offset)
        if frame is None:
            self.data.forget()
            self._size_seen = self.size
            frame = frame_at(self.data, self._size_seen, self.preamble, offset)
        return frame

    def payload(self, frame: Frame) -> bytes | None:
        """A frame's payload; None if it is not what was written."""
        found = payload(self.data, frame)
        if found is None:
            self.data.forget()
            found = payload(self.data, frame)
        return found

    def harm_of(self, frame: Frame) -> Harm:
        """Why a frame has no payload: it is not what was written, or nobody knows what it is."""
        return Harm.UNREAD if self.data.refused(frame.offset, frame.end) else Harm.PAYLOAD

    def rows(self, frame: Frame) -> pa.RecordBatch:
        """A frame's rows. Raises `FormatError` if they cannot be had."""
        found = self.payload(frame)
        if found is None:
            raise FormatError(
                f"{self.path}: the payload of the frame at {frame.offset}, {frame.header.payload_bytes} bytes, is not "
                'what was written; run "recorder wal verify"'
            )
        return self.decode(frame, found)

    def decode(self, frame: Frame, found: bytes) -> pa.RecordBatch:
        """The rows in a payload. Raises `FormatError` if there are none, or not as many as the frame says."""
        rows = read_rows(found, self.schema)
        if rows.num_rows != frame.header.rows:
            raise FormatError(
                f"{self.path}: the frame at {frame.offset} says {frame.header.rows} rows and holds {rows.num_rows}"
            )
        return rows

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self.data = FileData(-1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _preamble_of(fd: int, path: Path) -> tuple[Preamble, bool]:
    data = FileData(fd)
    try:
        preamble, sound = read_preamble(data[0:_FIRST_LOOK_BYTES], str(path))
    except FormatError:
        pass
    else:
        if sound:
            return preamble, True
    try:
        return read_preamble(data[0 : 2 * PREAMBLE_BYTES_MAX], str(path))
    except FormatError:
        if data.failed is not None:
            raise data.failed from None  # nobody knows what it is
        raise


def open_or_tell(path: Path) -> Segment | Damage | None:
    """A segment; or why it cannot be read; or None if it is no longer there.

    Raises:
        OSError: of this process and not of the file, such as too many open files.
    """
    try:
        return Segment.open(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in _OURS:
            raise
        return _refusal(path, error)
    except ForeignFile as error:
        return Damage(Harm.FOREIGN, str(path), rows=None, detail=str(error))
    except NewerFormat as error:
        return Damage(Harm.NEWER, str(path), rows=None, detail=str(error))
    except BrokenSegment as error:
        return Damage(Harm.UNREADABLE, str(path), rows=None, detail=str(error))


def _refusal(path: Path, error: OSError) -> Damage:
    """A file or folder that cannot be read at all."""
    harm = Harm.UNREADABLE if error.errno in _NO_FILE else Harm.UNREAD
    return Damage(harm, str(path), rows=None, detail=f"{error.strerror}")


def foreign(segment: Segment, name: str) -> Damage | None:
    """Whether a segment belongs to another log than the one of this name."""
    if segment.preamble.name == name:
        return None
    return Damage(
        Harm.FOREIGN,
        str(segment.path),
        rows=None,
        detail=f"of the log {segment.preamble.name}, expected {name}",
    )


def listable(folders: Iterable[Path]) -> tuple[list[Path], list[Damage]]:
    """The folders whose files can be listed, now or once they are made; and what is wrong with the others."""
    good, damage = [], []
    for folder in folders:
        try:
            with os.scandir(folder):
                pass
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in _OURS:
                raise
            damage.append(_refusal(folder, error))
            continue
        good.append(folder)
    return good, damage
