"""Rows of earlier runs on logs that this run does not read: it records without a log, or has no such table any more.

They are told once at the start, with what to do, and shown in the status. Read from files alone; it changes nothing and
leaves out logs that another recorder writes, whose rows are that one's.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from recorder.left_on_logs import LeftOnLog, left_on_logs
from recorder.log import get_logger
from recorder.log_holder import holder
from schemas.table import Table

log = get_logger("recorder.log")

REMEDY = 'run "recorder replay", or start with wal = true'


def unread_logs(
    roots: Sequence[Path], tables: Mapping[str, Table], *, read: Container[str]
) -> dict[str, LeftOnLog]:
    """By table, the logs with rows that are not known to be in the database; `roots` are `Settings.log_folders`, `read`
    those that this run has open.

    Raises:
        OSError: of this process and not of a log, such as too many open files.
    """
    return {
        name: one
        for name, one in left_on_logs(roots, tables, besides=read).items()
        if (one.rows or one.unread) and holder(one.folder) is None
    }


def tell(unread: Mapping[str, LeftOnLog]) -> None:
    """One line of the log for all of them."""
    if unread:
        log.warning(
            "rows of earlier runs stay on logs that this run does not read",
            rows={name: one.rows for name, one in unread.items()},
            mib=round(sum(one.nbytes for one in unread.values()) / 1_048_576, 1),
            remedy="; ".join(dict.fromkeys(remedy(one) for one in unread.values())),
        )


def remedy(one: LeftOnLog) -> str:
    """What to do about one."""
    return one.refused or (f"{one.unread}; when that is mended, {REMEDY}" if one.unread else REMEDY)


def as_status(unread: Mapping[str, LeftOnLog]) -> dict[str, dict[str, Any]]:
    """The same for the status, ready for JSON."""
    return {
        name: {"rows": one.rows, "bytes": one.nbytes, "folder": str(one.folder), "remedy": remedy(one)}
        for name, one in unread.items()
    }
