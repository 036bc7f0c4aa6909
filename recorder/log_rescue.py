"""What can still be read of rows that stand on the log alone, where not all of them can: a broken frame costs its own.

Goes through the whole log for it, which a reader that finds all in order never does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wal.places import Range
from wal.reader import LogReader
from wal.replay_plan import survey
from wal.replay_rows import Piece, RowFetch


def rescue(folders: Sequence[Path], name: str, places: Sequence[Range]) -> list[Piece]:
    """The rows at these places that can be read, in their order, by frame.

    Raises:
        OSError: of this process and not of the log, such as too many open files.
    """
    fetch = RowFetch(survey(LogReader(folders, name=name)), [])
    try:
        return [piece for place in places for piece in fetch.pieces(place)]
    finally:
        fetch.close()
