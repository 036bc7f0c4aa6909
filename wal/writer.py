"""`LogWriter`: rows into a log, from any thread, in a few microseconds; on disk a little later.

`append` puts rows in memory, gives them their sequences, and returns. The threads of a `GroupCommit` write and sync
them, and then say so: `synced_mark`, `wait`, `on_synced`.

Invariants: sequences are consecutive in the order of the calls. Nothing is told to be on disk before a sync of all of
it and of everything before it has succeeded. Whatever fails on the disk, what was not certain stays in memory and is
written again, to another segment; no caller sees it, until `LogFull`. It does not know which rows were settled, and
removes no segment with rows that were told to be on disk.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from wal.columns import check_columns, difference
from wal.commit import GroupCommit
from wal.errors import FrameTooLarge, LogClosed, NotDurable
from wal.files import OS_FILES, Files
from wal.flush import Flush
from wal.format import PAYLOAD_BYTES_MAX, Kind, Preamble, pack_preamble
from wal.intake import Intake
from wal.lock import FolderLock
from wal.log_disk import LogDisk
from wal.log_stats import LogStats
from wal.options import LogOptions
from wal.pending import FRAME_ARROW_BYTES, FRAME_ROWS_MAX, data_bytes, pieces
from wal.places import Range
from wal.recovery import Recovered, SegmentState, recover
from wal.rows import schema_hash, schema_message

GRACE_S = 0.5
"""Beyond its time, how long closing waits for a thread that does not hang to let go."""

log = logging.getLogger("wal.writer")

_live: weakref.WeakSet[LogWriter] = weakref.WeakSet()


def _in_child() -> None:
    """After a fork: the logs are the parent's. Told once, so that no call has to ask the system."""
    for writer in _live:
        writer._leave_to_parent()


os.register_at_fork(after_in_child=_in_child)


class Appended(NamedTuple):
    """Where rows will stand, and the mark that says when they do."""

    range: Range
    mark: int


class LogWriter:
    """The one writer of a log. Made by `open`; for use from any thread."""

    def __init__(
        self,
        folders: list[Path],
        name: str,
        schema: pa.Schema,
        *,
        commit: GroupCommit,
        options: LogOptions,
        files: Files,
        locks: list[FolderLock],
        recovered: Recovered,
        preamble: Preamble,
        on_synced: Callable[[LogWriter], None] | None,
        now_ns: Callable[[], int],
    ):
        self._name = name
        self._schema = schema
        self._commit = commit
        self._options = options
        self._locks = locks
        self._on_synced = on_synced
        self.epoch = preamble.epoch
        """A random number, never 0: the rows of this opening have it."""
        self.recovered = recovered
        """What was found when the log was opened."""
        # By their files: where a folder was missing at an opening, both may have a segment of one number.
        self._before = {state.path: (state, _size(state.path)) for state in recovered.segments}
        self._intake = Intake(name, len(schema), options)
        self._disk = LogDisk(files, folders, preamble, recovered.next_number, options, now_ns)
        self._flush = Flush(self, self._intake, self._disk, commit, options, self._tell, self._release)
        self._forked = False
        commit.join(self)
        _live.add(self)

    @classmethod
    def open(
        cls,
        folder: Path,
        name: str,
        schema: pa.Schema,
        *,
        commit: GroupCommit,
        options: LogOptions = LogOptions(),  # noqa: B008 - it is frozen
        second: Path | None = None,
        files: Files = OS_FILES,
        on_synced: Callable[[LogWriter], None] | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> LogWriter:
        """Lock a log, recover it, and take it to write to. The lock's file apart, nothing is made before the first
        append.

        `name` and `schema` are written into each segment. `second` is another folder, on another disk if it is to
        help, for when the first one fails. `on_synced` is called on a thread of the commit, after each sync.

        Raises:
            LogLocked: somebody writes to it, who is named.
            LogClosed: the commit is closed, or its process forked.
            FrameTooLarge: name and schema do not fit into a segment's preamble.
            ValueError: a column's type is a dictionary, which does not fit into single frames; or both folders are one.
            OSError: the folder cannot be made, locked or read.
        """
        check_columns(name, schema)
        message = schema_message(schema)
        epoch = secrets.randbits(64) or 1
        preamble = Preamble(0, epoch, 0, 0, schema_hash(schema), name, message)
        pack_preamble(preamble)  # raises now what it would raise later
        if second is not None and second.absolute() == folder.absolute():
            raise ValueError(
                f"{name}: {folder} is its first folder and its second; the second is another one, or None"
            )
        folders = [folder.absolute(), *([second.absolute()] if second is not None else [])]
        locks: list[FolderLock] = []
        try:
            files.make_folder(folders[0])
            locks.append(FolderLock(folders[0], files))
            if second is not None:
                with contextlib.suppress(OSError):  # a log goes on without its reserve
                    files.make_folder(folders[1])
                    locks.append(FolderLock(folders[1], files))
            recovered = recover(folders, name=name, files=files)
            return cls(
                folders,
                name,
                schema,
                commit=commit,
                options=options,
                files=files,
                locks=locks,
                recovered=recovered,
                preamble=preamble,
                on_synced=on_synced,
                now_ns=now_ns,
            )
        except BaseException:
            for lock in locks:
                lock.release()
            raise

    @property
    def name(self) -> str:
        """Of the log."""
        return self._name

    # -- appending -----------------------------------------------------------------------------------------------

    def append(self, rows: pa.RecordBatch) -> Appended:
        """Take rows. From any thread; waits for no I/O. They must not change any more, as Arrow's never do.

        Raises:
            LogFull: what waits to be written has reached its bound.
            LogClosed: the writer is closed, or the process forked.
            FrameTooLarge: a single row, or all of them together, are larger than can be taken.
            ValueError: they have another schema.
        """
        self._check_fork()
        if not rows.schema.equals(self._schema):
            raise ValueError(f"{self._name}: rows of another schema, {difference(self._schema, rows.schema)}")
        count, nbytes = rows.num_rows, data_bytes(rows)
        if not count:
            return Appended(Range(self.epoch, self._intake.rows, self._intake.rows), self._intake.mark)
        parts = [rows]
        if nbytes > FRAME_ARROW_BYTES or count > FRAME_ROWS_MAX:
            if nbytes > self._options.pending_bytes_max:
                raise FrameTooLarge(
                    f"{self._name}: {nbytes} bytes at once, pending_bytes_max={self._options.pending_bytes_max}; "
                    "append the rows in parts"
                )
            parts = pieces(rows)
        first, mark, tell = self._intake.put_rows(parts, nbytes)
        if tell:
            self._commit.due(self)
        return Appended(Range(self.epoch, first, first + count), mark)

    def append_seal(self, payload: bytes) -> int:
        """Take a seal, behind the rows that were appended before; its mark.

        Raises:
            LogFull, LogClosed, FrameTooLarge: as `append`.
        """
        return self._append_note(Kind.SEAL, payload)

    def append_void(self, payload: bytes) -> int:
        """Take a void, behind what was appended before; its mark.

        Raises:
            LogFull, LogClosed, FrameTooLarge: as `append`.
        """
        return self._append_note(Kind.VOID, payload)

    def _append_note(self, kind: Kind, payload: bytes) -> int:
        self._check_fork()
        if len(payload) > min(PAYLOAD_BYTES_MAX, self._options.pending_bytes_max):
            raise FrameTooLarge(
                f"{self._name}: a {kind.name} of {len(payload)} bytes; a frame has at most {PAYLOAD_BYTES_MAX}, "
                f"and pending_bytes_max={self._options.pending_bytes_max}"
            )
        mark, tell = self._intake.put_note(kind, payload)
        if tell:
            self._commit.due(self)
        return mark

    def _check_fork(self) -> None:
        if self._forked:
            raise LogClosed(f"{self._name}: the process forked after the log was opened; it is the parent's")

    @property
    def room_bytes(self) -> int:
        """What may be appended before anything more is written: what is left of `pending_bytes_max`."""
        return max(0, self._options.pending_bytes_max - self._intake.pending_bytes)

    # -- on disk -------------------------------------------------------------------------------------------------

    @property
    def synced_mark(self) -> int:
        """Everything that was appended with a mark up to it is on disk (`Sync.OFF`: is written)."""
        return self._intake.synced_mark

    @property
    def synced_rows(self) -> int:
        """Rows of this epoch with sequences below it are on disk."""
        return self._intake.synced_rows

    def wait(self, mark: int, timeout_s: float) -> None:
        """Return when everything that was appended with a mark up to this one is on disk.

        Raises:
            NotDurable: it is not, in time; or never will be, since the log was closed or is not synced.
        """
        if self._forked:
            raise NotDurable(f"{self._name}: the process forked after the log was opened; it is the parent's")
        self._intake.wait(mark, timeout_s)

    def nudge(self) -> None:
        """There may be room again, or a disk: try now what failed, and do not wait for the next time."""
        if not self._forked:
            self._flush.nudge()
            self._commit.due(self, now=True)

    def spare_first(self, spare: bool) -> None:
        """Make new segments in the second folder, if there is one, until this is taken back: the first one's disk is
        full. What its active segment still has room for goes there.
        """
        self._flush.spare_first = spare

    def _tell(self) -> None:
        if self._on_synced is not None:
            try:
                self._on_synced(self)
            except Exception:
                log.exception("%s: whoever is told of syncs failed", self._name)

    def round(self) -> float | None:
        """For the commit alone."""
        return self._flush.round()

    # -- what there is -------------------------------------------------------------------------------------------

    @property
    def active(self) -> int | None:
        """The number of the segment that is written to, if there is one."""
        return self._disk.active

    def segments(self) -> tuple[SegmentState, ...]:
        """Segments as they are now, by their numbers: those found when the log was opened, and those made since."""
        before = [state for state, _ in list(self._before.values())]
        made = [
            SegmentState(one.number, one.path, one.preamble, one.offset, one.stop)
            for one in list(self._disk.made.values())
        ]
        return tuple(sorted([*before, *made], key=lambda state: (state.number, state.path)))

    def removed(self, paths: Iterable[Path]) -> None:
        """These segments were removed, by whoever purges."""
        for path in set(paths):
            self._before.pop(path, None)
            self._disk.removed(path)

    def stats(self) -> LogStats:
        """Counts and sizes, as they are now."""
        intake, disk = self._intake, self._disk
        oldest_s = None if self._forked else intake.oldest_s()
        before, made = list(self._before.values()), list(disk.made.values())
        synced, now_s = intake.synced_rows, time.monotonic()
        return LogStats(
            rows_appended=intake.rows,
            rows_written=intake.written_rows,
            rows_synced=synced,
            bytes_appended=intake.bytes_appended,
            bytes_written=intake.bytes_written,
            bytes_synced=intake.bytes_synced,
            pending_bytes=intake.pending_bytes,
            unsynced_rows=max(0, intake.rows - synced),
            unsynced_age_s=0.0 if oldest_s is None else now_s - oldest_s,
            still_s=0.0 if oldest_s is None else max(0.0, now_s - max(oldest_s, intake.held_s)),
            segments=len(before) + len(made),
            suspects=tuple(sorted(disk.suspects)),
            disk_bytes=sum(size for _, size in before) + sum(s.size for s in made) + disk.prepared_bytes,
            failures=self._flush.failures,
            last_error=self._flush.last_error,
            recovering=bool(intake.recovering),
        )

    # -- the end -------------------------------------------------------------------------------------------------

    def close(self, timeout_s: float) -> bool:
        """Take no more, and wait until all is on disk, at most so long; whether it is. Idempotent.

        The segment is cut to what it holds, and the lock is let go of. Where a call of the system hangs, that is left
        to its thread, which does nothing more when it comes back: until then the lock is held, since that call may
        still change the file.
        """
        if self._forked:
            return False
        self._intake.close(f"{self._name}: the log is closed")
        self._flush.closing = True
        self.nudge()
        if not self._intake.wait_for_end(timeout_s):
            self._flush.given_up = True
            self.nudge()
            self._intake.wait_for_end(GRACE_S)
        return self._intake.all_held

    def _release(self) -> None:
        self._commit.leave(self)
        for lock in self._locks:
            lock.release()

    def _leave_to_parent(self) -> None:
        self._forked = True
        for lock in self._locks:
            lock.leave_to_parent()

    def __repr__(self) -> str:
        return f"<LogWriter {self._name}, epoch {self.epoch:016x}>"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
