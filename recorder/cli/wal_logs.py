"""What the commands of `recorder wal` share: which logs are meant, and how long work is shown.

A log is a folder named after its table. `--dir` is the folder of such folders, or one such folder itself.
`--second-dir` is where a log goes on whose first folder fails: the same names, one level below it.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from recorder.cli.errors import Failure
from recorder.cli.options import Invocation, PathName
from recorder.cli.output import note, notes, progress
from wal import names
from wal.damage import Damage, Harm

F = TypeVar("F", bound=Callable[..., Any])

PLAIN_EVERY_S = 10.0
"""How often progress is told where no terminal shows a bar."""


@dataclass(frozen=True)
class Log:
    """One table's log: its folder, and the second one if there is any."""

    name: str
    folders: tuple[Path, ...]

    @property
    def folder(self) -> Path:
        """Where its lock and its checkpoint are."""
        return self.folders[0]


class Places:
    """The folders that hold logs, as the options name them."""

    def __init__(self, folder: Path, second: Path | None):
        self._folder, self._second = folder, second

    def every(self) -> list[Log]:
        """All logs, by name.

        Raises:
            Failure: there are none.
        """
        if not self._folder.is_dir():
            raise Failure(
                f"there are no logs at {self._folder}; name their folder with --dir, or the data folder with "
                '--data-dir before "wal"'
            )
        if _is_log(self._folder):
            second = () if self._second is None else (self._second,)
            return [Log(self._folder.name, (self._folder, *second))]
        found = [self._log(path.name) for path in sorted(self._folder.iterdir()) if _is_log(path)]
        if not found:
            raise Failure(f"{self._folder} holds no log: none of its folders has a segment; see --dir")
        return found

    def chosen(self, tables: Sequence[str]) -> list[Log]:
        """The logs of these tables, each once; all where none is named.

        Raises:
            Failure: there are none.
            UsageError: a table has no log.
        """
        found = {log.name: log for log in self.every()}
        for name in tables:
            if name not in found:
                near = difflib.get_close_matches(name, found, n=1)
                hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(found)}"
                raise click.UsageError(f'there is no log of "{name}" at {self._folder}; {hint}')
        return [found[name] for name in dict.fromkeys(tables)] or list(found.values())

    def one(self, table: str | None) -> Log:
        """The log of this table; without a name the only one there is.

        Raises:
            Failure: there is none.
            UsageError: there are several, or none of this name.
        """
        logs = self.chosen([table] if table is not None else [])
        if len(logs) > 1:
            raise click.UsageError(
                f"there are {len(logs)} logs; name one: {', '.join(log.name for log in logs)}"
            )
        return logs[0]

    def _log(self, name: str) -> Log:
        second = () if self._second is None else (self._second / name,)
        return Log(name, (self._folder / name, *second))


def _is_log(path: Path) -> bool:
    """Whether a log has, or had, files in this folder."""
    if not path.is_dir():
        return False
    own = (path / names.LOCK, path / names.CHECKPOINT)
    with contextlib.suppress(PermissionError):  # such as lost+found, on a disk's own folder
        return bool(names.segments([path]) or names.broken([path])) or any(one.is_file() for one in own)
    return False


def place_options(function: F) -> F:
    """`--dir` and `--second-dir`, as `folder` and `second`."""
    for flag, name, text in (
        (
            "--second-dir",
            "second",
            "Folder where logs go on whose own folder fails.  [default: wal_second_dir]",
        ),
        ("--dir", "folder", "Folder of the logs, or of one log.  [default: wal in the data folder]"),
    ):
        kind = PathName(file_okay=False, path_type=Path)
        function = click.option(flag, name, metavar="FOLDER", type=kind, help=text)(function)
    return function


def places(invocation: Invocation, folder: Path | None, second: Path | None) -> Places:
    """Where the options say that logs are."""
    if folder is None:
        folder, *more = invocation.settings().log_folders
        second = second or next(iter(more), None)
    return Places(folder.absolute(), second.absolute() if second is not None else None)


Show = Callable[[int, int], None]
"""Told how many bytes of how many are done."""


@contextlib.contextmanager
def shown(invocation: Invocation, what: str) -> Iterator[Show]:
    """Progress of long work: a bar on a terminal, a line every ten seconds elsewhere, nothing with `--json`."""
    if invocation.json:
        yield lambda done_bytes, total_bytes: None
    elif notes().is_terminal:
        with progress(unit="MiB", transient=True) as bar:
            task = bar.add_task(what, total=None)
            began_s = time.monotonic()

            def show(done_bytes: int, total_bytes: int) -> None:
                rate = done_bytes / 2**20 / max(1e-3, time.monotonic() - began_s)
                bar.update(task, total=max(1, total_bytes), completed=done_bytes, rate=f"{rate:,.0f}")

            yield show
    else:
        next_s = itertools.count(time.monotonic() + PLAIN_EVERY_S, PLAIN_EVERY_S)
        due_s = [next(next_s)]

        def tell(done_bytes: int, total_bytes: int) -> None:
            if time.monotonic() >= due_s[0]:
                due_s[0] = next(next_s)
                note(f"{what}: {100 * done_bytes / max(1, total_bytes):.0f} % of {mebibytes(total_bytes)}")

        yield tell


def mebibytes(nbytes: int) -> str:
    """Bytes as people read them."""
    return f"{nbytes / 2**20:,.1f} MiB" if nbytes >= 2**17 else f"{nbytes:,} B"


def damage_of(log: Log, damage: Damage) -> dict[str, Any]:
    """One damage for JSON. `rows` is null where nobody can know how many are lost."""
    return {
        "table": log.name,
        "harm": damage.harm.name.lower(),
        "file": damage.file,
        "offset": damage.offset,
        "bytes": damage.nbytes,
        "epoch": f"{damage.epoch:016x}",
        "first": damage.first,
        "rows": damage.rows,
        "loses": loses(damage),
        "what": str(damage),
    }


def loses(damage: Damage) -> bool:
    """Whether rows are lost by it, or may be: somebody else's file holds none of ours."""
    return damage.rows != 0 and damage.harm is not Harm.FOREIGN


def tell(log: Log, found: Sequence[Damage]) -> None:
    """Damage that was met on the way, for whoever reads the answer: a line each."""
    for damage in found:
        note(f"{log.name}: {damage}")
