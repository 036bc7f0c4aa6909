"""`recorder wal drop`: remove old segments, or what recovery set aside. It proves, shows and asks first."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from recorder.cli.errors import Failure
from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import counted, emit_json, emit_table, note
from recorder.cli.wal_alone import alone
from recorder.cli.wal_logs import Log, mebibytes, place_options, places
from recorder.cli.wal_ls import look
from wal import names
from wal.checkpoint import CheckpointFile
from wal.damage import Harm
from wal.errors import BrokenSegment, FormatError
from wal.files import OS_FILES
from wal.segment import Segment


@dataclass(frozen=True)
class _File:
    """What would go. `unsettled` are rows of it that the checkpoint does not call settled; None: nobody can know."""

    path: Path
    nbytes: int
    rows: int | None = 0
    unsettled: int | None = 0

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "file": str(self.path),
            "bytes": self.nbytes,
            "rows": self.rows,
            "unsettled": self.unsettled,
        }


@click.command()
@click.argument("table")
@place_options
@click.option(
    "--upto", type=click.IntRange(min=1), metavar="NUMBER", help="All segments up to this one, oldest first."
)
@click.option("--broken", is_flag=True, help="The .broken files, with what recovery took out of the way.")
@click.option(
    "--even-unsettled", is_flag=True, help="Rows too that ClickHouse is not known to have for good."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_invocation
def drop(
    invocation: Invocation,
    table: str,
    folder: Path | None,
    second: Path | None,
    upto: int | None,
    broken: bool,
    even_unsettled: bool,
    yes: bool,
) -> None:
    """Remove the oldest segments of a log, or the .broken files beside them. What is removed is gone.

    The log must have no writer. Segments with rows that are not settled are refused, unless --even-unsettled is
    given: these rows will not be sent any more. The last segment always stays, so that no number comes twice.

    \b
    Example:
        recorder wal ls fills --segments
        recorder wal drop fills --upto 12
        recorder wal drop fills --broken --yes
    """
    if (upto is None) == (not broken):
        raise click.UsageError("say what goes: --upto NUMBER, or --broken")
    log = places(invocation, folder, second).chosen([table])[0]
    with alone(log):
        going = _broken(log) if upto is None else _segments(log, upto)
        if not going:
            _say(invocation, going, done=False)
            note("there is nothing to drop")
            return
        _refuse(log, going, even_unsettled)
        if not yes and not _agreed(invocation, log, going):
            return
        for file in going:
            OS_FILES.unlink(file.path)
            # Each for itself, so that a power cut leaves no hole in the middle.
            OS_FILES.sync_folder(file.path.parent)
    _say(invocation, going, done=True)


def _broken(log: Log) -> list[_File]:
    return [_File(path, path.stat().st_size) for _, _, path in names.broken(log.folders)]


def _segments(log: Log, upto: int) -> list[_File]:
    """The segments up to a number, with what the checkpoint knows of their rows.

    Raises:
        UsageError: the last one would be among them.
    """
    last = max((number for number, _ in names.segments(log.folders)), default=0)
    if upto >= last > 0:
        raise click.UsageError(
            f"{log.name}: segment {last} is the last and stays, so that no number comes twice; --upto {last - 1} is "
            "the most"
        )
    settled = CheckpointFile(log.folder).read()[0].settled
    found = []
    seen = look(log)
    unread = {damage.file for damage in seen.damage if damage.harm is Harm.UNREAD}
    for one in seen.segments:
        if one.number > upto:
            continue
        if str(one.path) in unread:  # rows may be there that nobody has seen
            found.append(_File(one.path, one.path.stat().st_size, None, None))
            continue
        why = _unreadable(one.path)
        if why is None:
            open_rows = one.rows.copy()
            for part in settled:
                open_rows.remove(part)
            found.append(_File(one.path, one.nbytes, one.rows.rows, open_rows.rows))
        elif isinstance(why, BrokenSegment):
            found.append(_File(one.path, one.path.stat().st_size, None, None))
        else:
            note(f"{why}; it stays")
    return found


def _unreadable(path: Path) -> FormatError | None:
    try:
        Segment.open(path).close()
    except FormatError as error:
        return error
    return None


def _refuse(log: Log, going: Sequence[_File], even_unsettled: bool) -> None:
    """Raises `Failure` if rows would be lost that nobody agreed to lose."""
    unknown = [file.path.name for file in going if file.unsettled is None]
    unsettled = sum(file.unsettled or 0 for file in going)
    if even_unsettled or not (unknown or unsettled):
        return
    what = [f"{counted(unsettled, 'row')} not known to be in ClickHouse for good"] if unsettled else []
    what += [f"an unknown number in {', '.join(unknown)}"] if unknown else []
    raise Failure(
        f"{log.name}: would lose {' and '.join(what)}; start a recorder, which sends them, keep them with "
        f'"recorder wal export {log.name}", or lose them with --even-unsettled'
    )


def _agreed(invocation: Invocation, log: Log, going: Sequence[_File]) -> bool:
    """Show what would go, and ask.

    Raises:
        UsageError: there is nobody to ask.
    """
    _say(invocation, going, done=False)
    if invocation.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError(
            f"{log.name}: {counted(len(going), 'file')} would be removed for good; say --yes"
        )
    agreed = click.confirm(f"Remove {counted(len(going), 'file')} of {log.name} for good?", err=True)
    if not agreed:
        note("nothing was dropped")
    return agreed


def _say(invocation: Invocation, going: Sequence[_File], *, done: bool) -> None:
    if invocation.json:
        emit_json({"done": done, "files": [file.as_dict() for file in going]})
    elif done:
        freed = sum(file.nbytes for file in going)
        note(f"dropped {counted(len(going), 'file')}, {mebibytes(freed)}")
    elif going:
        numbers = ["bytes", "rows", "not settled"]
        # Both folders may have a file of one name.
        where = len({file.path.parent for file in going}) > 1
        rows = [
            (
                str(file.path) if where else file.path.name,
                mebibytes(file.nbytes),
                *(_known(one) for one in (file.rows, file.unsettled)),
            )
            for file in going
        ]
        emit_table(["file", *numbers], rows, right=numbers)


def _known(rows: int | None) -> str:
    return "unknown" if rows is None else f"{rows:,}"
