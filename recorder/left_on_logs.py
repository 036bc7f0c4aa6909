"""What the logs under a data folder still hold for the database, told from files alone. It changes nothing.

Read beside a recorder that runs, it is how things were at its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from schemas.table import Table
from wal import names
from wal.checkpoint import CheckpointFile
from wal.damage import Damage
from wal.reader import LogReader
from wal.replay import Replay

FOLDER = "wal"
"""Under the data folder: the logs, one a table."""


@dataclass(frozen=True, kw_only=True)
class LeftOnLog:
    """One table's log."""

    folder: Path
    rows: int
    """Not known to be in the database: to be looked up, and sent if they are not there."""
    nbytes: int
    """About what these take in the log."""
    lost: int
    """Rows that the log had, and cannot give."""
    unsettled: int
    """Confirmed rows: looked up again if the database was started anew."""
    damage: tuple[Damage, ...]
    refused: str
    """Why a replay cannot take it; empty where it can."""


def left_on_logs(data_dir: Path, tables: Mapping[str, Table]) -> dict[str, LeftOnLog]:
    """By table, in order of their names, what each log with segments holds; `tables` are those of the loaded packs.

    Raises:
        OSError: of this process and not of a log, such as too many open files.
    """
    try:
        folders = sorted(path for path in (data_dir / FOLDER).iterdir() if path.is_dir())
    except FileNotFoundError:
        return {}
    return {
        folder.name: _left(folder, tables.get(folder.name)) for folder in folders if names.segments([folder])
    }


def _left(folder: Path, table: Table | None) -> LeftOnLog:
    checkpoint, damage = CheckpointFile(folder).read()
    replay = Replay(LogReader([folder], name=folder.name), checkpoint)
    return LeftOnLog(
        folder=folder,
        rows=replay.rows_to_go,
        nbytes=replay.bytes_to_go,
        lost=sum(one.rows for one in replay.lost),
        unsettled=sum(one.range.rows for one in checkpoint.confirmed),
        damage=(*replay.damage, *([damage] if damage is not None else [])),
        refused=_refused(folder.name, table),
    )


def _refused(name: str, table: Table | None) -> str:
    if table is None:
        return f'no loaded pack has the table; name its pack in "packs", or keep them: recorder wal export {name}'
    if not table.policy.critical:
        return "the table keeps no log by these settings; give it the durability it had"
    return ""
