"""The segments that one writer makes: which is active, which comes next, in which folder, and which are suspect.

Invariants: numbers only grow, over both folders. A frame in a new segment is synced only after all frames before it in
the old one are: a segment is synced before the next one gets its name. No descriptor on which something failed is used
again: its segment is suspect, and stays.

One thread at a time calls, but for `prepare_next`, which may run beside the others.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from wal.files import Files
from wal.format import Preamble
from wal.names import segment_name, segments
from wal.options import LogOptions
from wal.pending import Ready
from wal.segment_writer import Prepared, SegmentWriter, discard, prepare

SUSPECTS_EMPTY_MAX = 8
"""Of suspect segments without a single sync of a frame, whose frames are all in memory: older ones are removed."""


class LogDisk:
    """See the module. `preamble` is what all segments of this writer have in common; `number` the first to use."""

    def __init__(
        self,
        files: Files,
        folders: Sequence[Path],
        preamble: Preamble,
        number: int,
        options: LogOptions,
        now_ns: Callable[[], int],
    ):
        self._files = files
        self._folders = folders
        self._preamble = preamble
        self._number = number
        self._options = options
        self._now_ns = now_ns
        self._made = 0
        self._active: SegmentWriter | None = None
        self._lock = threading.Lock()
        self._next: Prepared | None = None
        self._preparing: Path | None = None
        """In which folder the next segment is being made."""
        self.folder = folders[0]
        """Where the next segment is made."""
        self.suspects: set[int] = set()
        self._unheld: list[SegmentWriter] = []
        self.made: dict[Path, SegmentWriter] = {}
        """Every segment that has its name, and was not removed."""

    @property
    def active(self) -> int | None:
        """The number of the segment that is written to."""
        return self._active.number if self._active is not None else None

    @property
    def folder_count(self) -> int:
        """How many folders there are to go to."""
        return len(self._folders)

    @property
    def in_last_folder(self) -> bool:
        """Whether segments are made in the second folder now; of one folder, in that."""
        return self.folder == self._folders[-1]

    @property
    def dirty(self) -> bool:
        """Whether something was written and not synced."""
        return self._active is not None and self._active.dirty

    @property
    def prepared_bytes(self) -> int:
        """What the file takes that was made ahead of time."""
        prepared = self._next
        return prepared.size if prepared is not None else 0

    # -- writing -------------------------------------------------------------------------------------------------

    def room_for(self, frames: Sequence[Ready]) -> int:
        """How many of these, from the first on, go into the active segment."""
        return self._active.room_for(frames) if self._active is not None else 0

    def write(self, frames: Sequence[Ready]) -> int:
        """Write frames for which there is room; how many bytes."""
        assert self._active is not None
        return self._active.write(frames)

    def sync(self) -> None:
        """Return when everything that was written is on disk."""
        if self._active is not None and self._active.dirty:
            self._active.sync()

    def rotate(self, head: Ready) -> bool:
        """Make the next segment the active one, for frames from `head` on; False while it is still being made there.

        What was written before is synced: the caller has seen to it, since it has to tell of it.
        """
        assert not self.dirty
        needed = self._preamble.frames_from + head.nbytes
        with self._lock:
            if self._preparing == self.folder:
                return False
            prepared, self._next = self._next, None
        if prepared is not None and (prepared.size < needed or prepared.path.parent != self.folder):
            discard(self._files, prepared)
            prepared = None
        if prepared is None:
            try:
                prepared = self._prepare(self.folder, max(self._next_bytes(), needed))
            except OSError:
                self._made = 0  # there may be room for a small one, the next time
                raise
        number = self._free_number()
        preamble = self._preamble._replace(number=number, first=head.header.first, created_ns=self._now_ns())
        try:
            segment = SegmentWriter(self._files, prepared, preamble)
        except BaseException:
            if os.path.lexists(self.folder / segment_name(number)):  # it has its name, and no frame
                self._number = number + 1
                self.suspects.add(number)
            raise
        self._number = number + 1
        self._made += 1
        self.made[segment.path] = segment
        self.close_active()
        self._active = segment
        return True

    def _free_number(self) -> int:
        """The next number, above those of all files: a rename would replace what came there meanwhile, as with a folder
        that is back, and a reader that is at a higher number does not come to a lower one any more.

        Raises:
            OSError: nobody knows which files there are where the segment is to be made.
        """
        number = self._number
        for folder in self._folders:
            try:
                number = max([number, *(taken + 1 for taken, _ in segments([folder]))])
            except OSError as error:
                # Of the other one that is no reason not to write here.
                if folder == self.folder and not isinstance(error, FileNotFoundError):
                    raise
        while any(os.path.lexists(folder / segment_name(number)) for folder in self._folders):
            number += 1
        return number

    def _next_bytes(self) -> int:
        return min(self._options.segment_bytes_max, self._options.segment_bytes_min << min(self._made, 32))

    def _prepare(self, folder: Path, size: int) -> Prepared:
        self._files.make_folder(folder)
        return prepare(self._files, folder, self._number, size)

    # -- the next one, ahead of time -----------------------------------------------------------------------------

    def wants_next(self) -> bool:
        """Whether the active segment is half full and the next one is not there yet; if so, `prepare_next` is due."""
        active = self._active
        if active is None or not active.half_full:
            return False
        with self._lock:
            if self._next is not None or self._preparing is not None:
                return False
            self._preparing = self.folder
            return True

    @property
    def preparing(self) -> bool:
        """Whether `prepare_next` is under way, or about to be."""
        with self._lock:
            return self._preparing is not None

    def prepare_next(self, *, wanted: bool) -> None:
        """Make the next segment, if it is still wanted. On a thread of its own: it takes as long as zeroing and syncing
        64 MiB does.

        Raises:
            OSError: it cannot be made now.
        """
        prepared = None
        folder = self._preparing
        assert folder is not None
        try:
            if wanted:
                prepared = self._prepare(folder, self._next_bytes())
        finally:
            with self._lock:
                self._preparing = None
                self._next = prepared

    # -- when something failed -----------------------------------------------------------------------------------

    def abandon(self) -> int | None:
        """The active segment is suspect, and used no more; its number."""
        segment, self._active = self._active, None
        if segment is None:
            return None
        segment.close()
        self.suspects.add(segment.number)
        self._made = 0
        if not segment.held:
            self._unheld.append(segment)
            if len(self._unheld) > SUSPECTS_EMPTY_MAX and self._unheld[0].remove():
                self.removed(self._unheld.pop(0).path)
        return segment.number

    def held(self) -> None:
        """Everything is on disk: suspect segments are as good as any, and stay."""
        self._unheld.clear()

    def other_folder(self) -> None:
        """Go on in the other folder, if there is one."""
        at = self._folders.index(self.folder)
        self.folder = self._folders[(at + 1) % len(self._folders)]

    def last_folder(self) -> None:
        """Go on in the second folder, if there is one, with the next segment."""
        self.folder = self._folders[-1]

    def first_folder(self) -> None:
        """Go back to the first folder with the next segment."""
        self.folder = self._folders[0]

    def removed(self, path: Path) -> None:
        """A segment was removed."""
        segment = self.made.pop(path, None)
        if segment is not None:
            self.suspects.discard(segment.number)

    # -- the end -------------------------------------------------------------------------------------------------

    def close_active(self) -> None:
        """Let go of the active segment, which is synced, as it is: a reader may have it in its memory up to its end."""
        segment, self._active = self._active, None
        if segment is not None:
            segment.close()

    def finish(self) -> None:
        """Cut the active segment to what it holds, and close it; what was written is on disk already.

        Raises:
            OSError: it could not be cut; it is closed all the same.
        """
        self._discard_next()
        segment, self._active = self._active, None
        if segment is not None:
            segment.finish()

    def give_up(self) -> None:
        """Let go of everything, as it is."""
        self._discard_next()
        self.close_active()

    def _discard_next(self) -> None:
        with self._lock:
            prepared, self._next = self._next, None
        if prepared is not None:
            discard(self._files, prepared)
