"""What the logs under a data folder still hold for the database, told from files alone. It changes nothing.

Read beside a recorder that runs, it is how things were at its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recorder.log_holder import torn_tail
from schemas.policy import Durability
from schemas.table import Table
from wal import names
from wal.checkpoint import CheckpointFile
from wal.damage import Damage, Harm
from wal.reader import LogReader
from wal.replay import Replay
from wal.segment import listable


@dataclass(frozen=True, kw_only=True)
class LeftOnLog:
    """One table's log."""

    folder: Path
    """Where its lock and its checkpoint are."""
    rows: int
    """Not known to be in the database: to be looked up, and sent if they are not there."""
    nbytes: int
    """About what these take in the log."""
    lost: int
    """Rows that the log had, and cannot give."""
    unsettled: int
    """Confirmed rows: looked up again if the database was started anew."""
    unread: str
    """Where the disk does not give what is on the log, so that there may be more rows than these; else empty."""
    damage: tuple[Damage, ...]
    refused: str
    """Why a replay cannot take it; empty where it can."""


def left_on_logs(
    roots: Sequence[Path], tables: Mapping[str, Table], *, besides: Container[str] = ()
) -> dict[str, LeftOnLog]:
    """By table, in order of their names, what each log with segments holds; `roots` are `Settings.log_folders`,
    `tables` those of the loaded packs. Those of the names in `besides` are not looked at.

    Raises:
        OSError: of this process and not of a log, such as too many open files.
    """
    found = {}
    for name in sorted(
        {path.name for root in roots if root.is_dir() for path in root.iterdir() if path.is_dir()}
    ):
        folders = [root / name for root in roots]
        # On a disk's own folder there are such that are not ours to look into (lost+found); a log of ours is told of.
        there, unlistable = listable(folders)
        if name not in besides and (names.segments(there) or (unlistable and name in tables)):
            found[name] = _left(name, folders, tables.get(name))
    return found


def _left(name: str, folders: Sequence[Path], table: Table | None) -> LeftOnLog:
    checkpoint, damage = CheckpointFile(folders[0]).read()
    replay = Replay(LogReader(folders, name=name), checkpoint)
    return LeftOnLog(
        folder=folders[0],
        rows=replay.rows_to_go + sum(one.rows for one in replay.unread),
        nbytes=replay.bytes_to_go,
        lost=sum(one.rows for one in replay.lost),
        unsettled=sum(one.range.rows for one in checkpoint.confirmed),
        unread=next((str(one) for one in replay.damage if one.harm is Harm.UNREAD), ""),
        damage=(*replay.damage, *torn_tail(folders), *([damage] if damage is not None else [])),
        refused=_refused(name, table),
    )


def _refused(name: str, table: Table | None) -> str:
    if table is None:
        return f'no loaded pack has the table; name its pack in "packs", or keep them: recorder wal export {name}'
    if table.policy.durability is Durability.MEMORY:
        return "the table keeps no log by these settings; give it the durability it had"
    return ""
