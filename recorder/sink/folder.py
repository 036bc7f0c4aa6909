"""What keeps an embedded engine's folder from being opened, said before the engine is asked.

The engine prints its reason to stderr and raises an error without one, so the folder is looked at first: is it a
folder, can it be written, does another process hold it. `reason_after` explains what is left when opening failed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pathlib
import re
import tempfile

from recorder.sink.errors import SinkUnavailable

_LOCK = "status"  # the engine writes its process id into it and holds a lock on it
_OTHER_PATH = re.compile(r"already initialized with path '(?P<path>[^']*)'")


def check(path: pathlib.Path) -> None:
    """Make the folder where it is missing, and see that this process may use it.

    Raises:
        SinkUnavailable: what is wrong, and what to do.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        raise SinkUnavailable(
            f"database {path}: {_no_folder(path)} is a file, not a folder; "
            "name another folder in RECORDER_TARGET or RECORDER_DATA_DIR"
        ) from error
    except OSError as error:
        remedy = {
            errno.EROFS: "mount it writable, or name a folder on another disk",
            errno.ENOSPC: "free space on its disk, or name a folder on another one",
            errno.EACCES: f"give user {os.getuid()} the right to write there, or name another folder",
        }.get(error.errno or 0, "name another folder in RECORDER_TARGET or RECORDER_DATA_DIR")
        raise SinkUnavailable(f"database {path}: cannot write there: {error.strerror}; {remedy}") from error
    holder = _holder(path)
    if holder is not None and holder != os.getpid():
        raise SinkUnavailable(
            f"database {path}: process {holder or 'unknown'} has it open, and an embedded database serves one "
            'process; stop that one, or let it be asked meanwhile: start it as "recorder run --serve 127.0.0.1:8123", '
            "and ask with --target http://127.0.0.1:8123; rows reach it over its bus",
            code=76,
        )


def _no_folder(path: pathlib.Path) -> pathlib.Path:
    """What stands in the way of a folder."""
    return next(
        (place for place in (*reversed(path.parents), path) if place.exists() and not place.is_dir()), path
    )


def reason_after(path: pathlib.Path, error: Exception) -> SinkUnavailable:
    """What to say when the engine refused a folder that `check` let pass."""
    if other := _OTHER_PATH.search(str(error)):
        return SinkUnavailable(
            f"database {path}: this process has the embedded database {other['path']} open, and a process can "
            "have one; close that one first, or use a process for each",
            code=36,
        )
    return SinkUnavailable(
        f"database {path}: the embedded engine cannot load it; its reason is on stderr just above. Where it names "
        "a damaged file, restore that file from a backup or move it and its table's folder away: nothing was "
        "deleted or changed",
        code=36,
    )


def _holder(path: pathlib.Path) -> int | None:
    """The process that holds the folder, 0 where it is unknown; None where nobody does."""
    try:
        with (path / _LOCK).open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found = re.search(r"^PID: (\d+)$", lock.read(), re.MULTILINE)
                return int(found[1]) if found else 0
            return None
    except FileNotFoundError:
        return None
