"""Where an export goes: a file that gets its name when it is complete, or standard output.

A file is written under a name of its own in the same folder, synced, and renamed; whatever ends the export before,
but SIGKILL and a power cut, removes it. Both kinds are written from front to back and know how many bytes they took;
neither knows what is written.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from recorder.cli.errors import Failure
from recorder.cli.output import write_bytes

STANDARD_OUTPUT = "-"
UNFINISHED = ".part"
"""What the names of files end in that are not complete."""
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Output(io.RawIOBase):
    """What an export is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.nbytes = 0
        self._given_up = False

    def writable(self) -> bool:
        """It is for writing."""
        return True

    def tell(self) -> int:
        """Bytes written so far."""
        return self.nbytes

    def write(self, data: Any, /) -> int:
        """Take all of the bytes.

        Raises:
            Failure: they cannot be written.
        """
        view = memoryview(data).cast("B")
        if not self._given_up:  # else what closes a writer on the way out still writes the end of its file
            self._take(view)
            self.nbytes += view.nbytes
        return view.nbytes

    def give_up(self) -> None:
        """Take no more: what is written from now on goes nowhere."""
        self._given_up = True

    def complete(self) -> None:
        """All is written.

        Raises:
            Failure: it cannot be synced, or get its name.
        """

    def _take(self, view: memoryview) -> None:
        raise NotImplementedError


class StandardOutput(Output):
    """Standard output."""

    def _take(self, view: memoryview) -> None:
        write_bytes(bytes(view))


class NewFile(Output):
    """A file under a name of its own until it is complete. Use it with `with`: leaving removes what is not complete."""

    def __init__(self, path: Path, *, force: bool):
        super().__init__()
        self._said, self._force = path, force
        check(path, force=force)
        # Through a link: it is its file that is replaced.
        self._path = Path(os.path.realpath(path))
        self._unfinished = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}{UNFINISHED}")
        self._fd = -1

    def complete(self) -> None:
        """See `Output`; the file has its name, and would have it after a power cut.

        Raises:
            Failure: it cannot be synced, or another file has got the name meanwhile.
        """
        with _told(self._said):
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(self._fd, stat.S_IMODE(self._path.stat().st_mode))
            os.fsync(self._fd)
            check(self._said, force=self._force)
            os.replace(self._unfinished, self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _take(self, view: memoryview) -> None:
        with _told(self._said):
            while view.nbytes:
                view = view[os.write(self._fd, view) :]

    def __enter__(self) -> NewFile:
        try:
            with _told(self._said):
                self._fd = os.open(
                    self._unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666
                )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        self.give_up()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        with contextlib.suppress(OSError):
            self._unfinished.unlink(missing_ok=True)
        super().__exit__(*_ or (None, None, None))


def check(path: Path, *, force: bool) -> None:
    """Refuse a place where no file can get this name, before an answer is asked for.

    Raises:
        Failure: a file is there already and is not to be replaced, or there is no such folder.
        click.UsageError: the name is that of a folder, or of something else that is no file.
    """
    if path.is_dir():
        raise click.UsageError(f"--out {path} is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise click.UsageError(
            f'--out {path} is no file that could be replaced; write to standard output with --out "-"'
        )
    if path.exists() and not force:
        raise Failure(f"{path} is there already; name another with --out, or replace it with --force")
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise Failure(f"{path}: there is no folder {folder}; make it, or name another with --out")


@contextlib.contextmanager
def opened(out: str, *, force: bool, binary: bool) -> Iterator[Output]:
    """The file of this name, or standard output for "-"; it still has to be completed.

    Raises:
        Failure, click.UsageError: it cannot be written there.
    """
    if out != STANDARD_OUTPUT:
        with NewFile(Path(out), force=force) as file:
            yield file
        return
    if binary and sys.stdout.isatty():
        raise click.UsageError("this form is not for a terminal; name a file with --out, or redirect it")
    pipe = StandardOutput()
    try:
        yield pipe
    finally:
        pipe.give_up()


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "free some room, or name another place with --out"
        if error.errno not in _NO_ROOM:
            remedy = "name a place with --out that can be written"
        raise Failure(f"{path}: {error.strerror}; {remedy}") from error
