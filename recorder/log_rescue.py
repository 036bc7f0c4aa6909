"""What can still be read of rows that stand on the log alone, where not all of them can: a broken frame costs its own,
and what the disk does not give now is told apart from what is lost.

Goes through the whole log for it, which a reader that finds all in order never does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from wal.damage import Damage
from wal.places import PlaceSet, Range
from wal.reader import LogReader
from wal.replay_plan import survey
from wal.replay_rows import Piece, RowFetch


class Rescued(NamedTuple):
    """Rows by frame, in their order; where others stood that are lost; where others stand that were not read; and what
    was found wrong.
    """

    pieces: list[Piece]
    lost: tuple[Range, ...]
    unread: tuple[Range, ...]
    damage: list[Damage]


def rescue(folders: Sequence[Path], name: str, places: Sequence[Range]) -> Rescued:
    """What can be had of the rows at these places.

    Raises:
        OSError: of this process and not of the log, such as too many open files.
    """
    found = survey(LogReader(folders, name=name))
    damage = found.damage.copy()
    fetch = RowFetch(found, damage)
    try:
        pieces = [piece for place in places for piece in fetch.pieces(place)]
    finally:
        fetch.close()
    there = PlaceSet(piece.range for piece in pieces)
    gone = [part for place in places for part in there.missing_of(place)]
    unread = PlaceSet(part for one in gone for part in (*found.missing(one)[1], *fetch.unread.common_of(one)))
    lost = tuple(part for one in gone for part in unread.missing_of(one))
    return Rescued(pieces, lost, tuple(unread), damage)
