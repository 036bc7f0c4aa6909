"""Names of the files of a log, and which of them are there. A log may stand in two folders, the second a reserve."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

SUFFIX = ".wal"
NEW_SUFFIX = ".wal.new"
LOCK = "LOCK"
CHECKPOINT = "checkpoint"
_SEGMENT = re.compile(r"(\d{12})\.wal")
_NEW = re.compile(r"\d{12}\.(?:wal|\d+\.broken)\.new")
_BROKEN = re.compile(r"(\d{12})\.(\d+)\.broken")


def segment_name(number: int) -> str:
    """The file of a segment."""
    return f"{number:012d}{SUFFIX}"


def new_name(number: int) -> str:
    """The file that will be a segment."""
    return f"{number:012d}{NEW_SUFFIX}"


def broken_name(number: int, offset: int) -> str:
    """The file with bytes that were taken out of a segment's way."""
    return f"{number:012d}.{offset}.broken"


def segments(folders: Iterable[Path]) -> list[tuple[int, Path]]:
    """Number and path of every segment, in order; a number that stands in both folders comes twice."""
    return sorted((int(found[1]), path) for path, found in _matching(folders, _SEGMENT))


def unfinished(folders: Iterable[Path]) -> list[Path]:
    """Segments, and copies of what was broken, that were being made."""
    return sorted(path for path, _ in _matching(folders, _NEW))


def broken(folders: Iterable[Path]) -> list[tuple[int, int, Path]]:
    """Segment, offset and path of what was taken out of the way."""
    return sorted((int(found[1]), int(found[2]), path) for path, found in _matching(folders, _BROKEN))


def strangers(folders: Iterable[Path]) -> list[Path]:
    """Files that are none of ours."""
    known = {LOCK, CHECKPOINT, *(f"{CHECKPOINT}.{end}" for end in ("new", "newer", "broken"))}
    patterns = (_SEGMENT, _NEW, _BROKEN)
    return sorted(
        path
        for folder in folders
        for path in _files(folder)
        if path.name not in known and not any(pattern.fullmatch(path.name) for pattern in patterns)
    )


def _matching(folders: Iterable[Path], pattern: re.Pattern[str]) -> Iterable[tuple[Path, re.Match[str]]]:
    for folder in folders:
        for path in _files(folder):
            if found := pattern.fullmatch(path.name):
                yield path, found


def _files(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
