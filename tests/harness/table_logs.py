"""The log of a table as a lane has it, with nothing that it would wait for."""

from __future__ import annotations

from pathlib import Path

from recorder.pulse import Pulse
from recorder.replay_memory import ReplayMemory
from recorder.table_log import TableLog
from schemas.table import Table
from wal.writer import LogWriter


def table_log_of(table: Table, writer: LogWriter, folder: Path) -> TableLog:
    """What its dead letters and gaps are durable in is there at once."""
    return TableLog(
        table,
        writer,
        folder,
        pulse=Pulse(),
        letters_durable=_at_once,
        gaps_durable=_at_once,
        batch_rows=100,
        memory=ReplayMemory(),
    )


async def _at_once() -> None:
    return
