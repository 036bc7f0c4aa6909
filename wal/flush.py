"""What the threads of a commit do for one log: encode, write, rotate, sync, tell; and go on after a failure.

One round at a time. What fails in a round never leaves it: it is counted, the segment is suspect, and what was not
certain is written again: at once in the other folder if there is one, else after a pause that doubles up to
`PAUSE_MAX_S`, with full jitter. A call that hangs holds up its round, and nothing but it.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from wal.commit import GroupCommit, Member
from wal.intake import Intake
from wal.log_disk import LogDisk
from wal.options import LogOptions, Sync
from wal.pending import Ready, cut, encode

PAUSE_MIN_S = 0.02
PAUSE_MAX_S = 5.0
CLOSING_PAUSE_MAX_S = 0.2
FOLDER_AGAIN_S = 60.0
"""So long after a failure in a folder it is tried again, at a rotation, if that is where segments should go."""
WRITE_FRAMES_MAX = 64
"""Frames of one write."""
SYNC_FRAMES_MAX = 4_096
"""Frames between two syncs: what is let go of at once, while nobody can append."""

log = logging.getLogger("wal.flush")


class Flush:
    """Rounds of one log. `tell` is called after each sync that put something on disk, `release` once, at the end."""

    def __init__(
        self,
        member: Member,
        intake: Intake,
        disk: LogDisk,
        commit: GroupCommit,
        options: LogOptions,
        tell: Callable[[], None],
        release: Callable[[], None],
    ):
        self._member = member
        self._intake = intake
        self._disk = disk
        self._commit = commit
        self._options = options
        self._tell = tell
        self._release = release
        self._pause_s = PAUSE_MIN_S
        self._retry_at_s = 0.0
        self._sync_at_s: float | None = None
        self._first_again_s = 0.0
        self._second_again_s = 0.0
        self._prepare_at_s = 0.0
        self._rotating = False
        self._waits_for_next = False
        self.spare_first = False
        """Whether new segments are made in the second folder, while that one takes them: the first one's disk is full,
        if it does not fail yet."""
        self.closing = False
        """From now on everything is synced, and in the end the log is let go of."""
        self.given_up = False
        """The time for that is over: nothing more is written."""
        self.over = False
        self._counting = threading.Lock()
        self.failures = 0
        self.last_error = ""

    def nudge(self) -> None:
        """Do not wait: things may be better."""
        self._retry_at_s = 0.0

    def round(self) -> float | None:
        """Write what there is; when to come again, of the monotonic clock, if nobody appends anything."""
        if self.over:
            return None
        if self.given_up:
            self._end()
            return None
        if not self._encode():
            return self._retry_at_s
        now_s = time.monotonic()
        if now_s < self._retry_at_s:
            return self._retry_at_s
        if not self._write_somewhere():
            return self._retry_at_s
        if self.closing and self._intake.all_held:
            self._end()
            return None
        self._prepare_next()
        return self._sync_at_s

    # -- one after the other -------------------------------------------------------------------------------------

    def _encode(self) -> bool:
        """What was appended becomes frames; whether that succeeded."""
        self._intake.take()
        try:
            for group in cut(list(self._intake.items)):
                self._intake.encoded(group, encode(group, self._options.codec))
        except Exception as error:  # noqa: BLE001 - no memory, for one: it may pass, and the rows are still there
            self._failed(error)
            self._pause()
            return False
        return True

    def _write_somewhere(self) -> bool:
        """Write everything, to whichever folder takes it; whether one does."""
        for _ in range(self._disk.folder_count):
            try:
                self._write()
            except Exception as error:  # noqa: BLE001 - whatever it is, the frames are still there
                self._failed(error)
                if self.given_up:
                    return False
                self._suspect()
            else:
                self._well()
                return True
        self._pause()
        return False

    def _write(self) -> None:
        intake, disk = self._intake, self._disk
        self._waits_for_next = False
        while frames := intake.backlog.unwritten(WRITE_FRAMES_MAX):
            if self.given_up:
                return
            count = disk.room_for(frames)
            if not count:
                self._sync()  # in every case: the next segment's frames must not be on disk before these
                if not self._rotate(frames[0]):
                    return
                continue
            intake.wrote(frames[:count], disk.write(frames[:count]))
            if self._options.sync is Sync.ALWAYS and intake.backlog.written >= SYNC_FRAMES_MAX:
                self._sync()
        if disk.dirty and self._sync_is_due():
            self._sync()

    def _rotate(self, head: Ready) -> bool:
        self._rotating = True
        now_s = time.monotonic()
        if self.spare_first:
            self._first_again_s = now_s  # as soon as that is over
            if now_s >= self._second_again_s:  # else it failed just now: whichever folder takes it
                self._disk.last_folder()
        elif self._first_again_s and now_s >= self._first_again_s:
            self._first_again_s = 0.0
            self._disk.first_folder()
        self._waits_for_next = not self._disk.rotate(head)
        self._rotating = False
        return not self._waits_for_next

    def _sync_is_due(self) -> bool:
        """By the policy; where it is not yet, `_sync_at_s` says when."""
        sync = self._options.sync
        if self.closing or sync is Sync.ALWAYS:
            return True
        if sync is Sync.OFF:
            return False
        now_s = time.monotonic()
        if self._sync_at_s is None:
            self._sync_at_s = now_s + self._options.interval_ms / 1_000
        half_full = 2 * self._intake.pending_bytes > self._options.pending_bytes_max
        return half_full or now_s >= self._sync_at_s

    def _sync(self) -> None:
        if not self._disk.dirty:
            return
        self._disk.sync()
        self._sync_at_s = None
        if self._intake.synced():
            self._tell()

    def _prepare_next(self) -> None:
        if time.monotonic() >= self._prepare_at_s and not self.closing and self._disk.wants_next():
            self._commit.submit(self._member, self._prepare)

    def _prepare(self) -> None:
        """On another thread, beside the rounds."""
        try:
            self._disk.prepare_next(wanted=not self.closing)
        except Exception as error:  # noqa: BLE001 - the round that needs it finds out for itself
            self._prepare_at_s = time.monotonic() + 1.0
            self._count(error)
        if self._waits_for_next or self.closing:
            self._commit.due(self._member, now=True)

    # -- failures ------------------------------------------------------------------------------------------------

    def _count(self, error: Exception) -> None:
        with self._counting:
            self.failures += 1
        self.last_error = f"{type(error).__name__}: {error}"

    def _failed(self, error: Exception) -> None:
        self._count(error)
        if not self._intake.recovering:
            log.error(
                "%s: cannot be written: %s; %d bytes wait in memory, it is tried again",
                self._member.name,
                self.last_error,
                self._intake.pending_bytes,
            )
        self._intake.recovering = self.last_error

    def _suspect(self) -> None:
        """After a failure: which segment is none any more, and where to go on."""
        if self._rotating:  # it was the next one that failed; the active one is synced, and full
            self._rotating = False
        else:
            number = self._disk.abandon()
            again = self._intake.again()
            self._sync_at_s = None
            if number is not None:
                log.error(
                    "%s: segment %d is suspect and stays; %d frames are written again",
                    self._member.name,
                    number,
                    again,
                )
        again_s = time.monotonic() + FOLDER_AGAIN_S
        self._first_again_s = again_s
        if self._disk.in_last_folder:
            self._second_again_s = again_s
        self._disk.other_folder()

    def _pause(self) -> None:
        most_s = CLOSING_PAUSE_MAX_S if self.closing else PAUSE_MAX_S
        self._retry_at_s = time.monotonic() + random.uniform(0, min(self._pause_s, most_s))
        self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)

    def _well(self) -> None:
        self._retry_at_s = 0.0
        if self._intake.recovering and not self._waits_for_next:
            log.warning("%s: is written again, after %s", self._member.name, self._intake.recovering)
            self._intake.recovering = ""
            self._pause_s = PAUSE_MIN_S
            self._disk.held()

    def _end(self) -> None:
        """Let go of the log: cut to what it holds if all of that is on disk, as it is if not."""
        if self._disk.preparing:  # which is still at work in our folder, and has us called when it is done
            return
        self.over = True
        try:
            if self.given_up:
                self._disk.give_up()
            else:
                self._disk.finish()
        except Exception as error:  # noqa: BLE001 - it holds zeros at its end, which recovery knows
            self._count(error)
        finally:
            self._release()
            self._intake.end()
