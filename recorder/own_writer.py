"""Records the recorder's own rows: they go through doors and queues like all others, and may be shed like them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from recorder.bad_rows import BadRow
from recorder.entries import Block
from recorder.identity import UNDATED_NS, letter_log
from recorder.log import get_logger
from recorder.own_rows import DEAD_LETTERS, EVENTS, GAPS, dead_letter_row, event_row, gap_row
from recorder.recorded_table import RecordedTables
from recorder.shed import Gap

log = get_logger("recorder")


class OwnWriter:
    """See the module. Used on the recorder's loop."""

    def __init__(self, tables: RecordedTables, recorder_run_id: str):
        self._tables = tables
        self._recorder_run_id = recorder_run_id

    def put(self, table: str, row: Mapping[str, Any]) -> bool:
        """Record a row of the recorder's own; False if it was shed."""
        door = self._tables[table].door
        return door.queue.put((row, time.monotonic_ns(), None, door.wide_bytes(row)))

    def gap(self, table: str, gap: Gap) -> bool:
        """Tell of rows that were shed; False if there was no room to."""
        return self.put(GAPS, gap_row(self._recorder_run_id, table, gap))

    def event(
        self,
        kind: str,
        severity: str,
        component: str,
        message: str,
        payload: Mapping[str, Any] | None = None,
    ) -> None:
        """Tell of something that happened to the recorder."""
        self.put(EVENTS, event_row(kind, severity, component, message, payload))

    def dead_letter(self, table: str, row: BadRow) -> None:
        """Keep a row that can never be inserted; one that finds no room is told in the log, and counted as shed."""
        if table == DEAD_LETTERS:
            log.critical("a dead letter cannot be recorded", reason=row.reason, detail=row.detail)
            return
        letter = dead_letter_row(self._recorder_run_id, table, row)
        if row.log == self._tables[table].pipeline.epoch:
            kept = self.put(DEAD_LETTERS, letter)
        else:
            kept = self._put_letter_of_source(table, row, letter)
        if not kept:
            _say_shed(letter)

    def _put_letter_of_source(self, table: str, row: BadRow, letter: dict[str, Any]) -> bool:
        # A source delivers its bad rows again too: with their identity and time the letter is kept once.
        door = self._tables[DEAD_LETTERS].door
        letter["ts_local"] = row.ts_local or UNDATED_NS
        log_id = letter_log(row.log, table)
        block = Block([letter], time.monotonic_ns(), log_id, [row.seq], door.wide_bytes(letter))
        return bool(door.queue.put_block(block, wait=False))


def _say_shed(letter: Mapping[str, Any]) -> None:
    """Say which dead letter was shed; not what is in it, which may be long or secret."""
    log.critical(
        "a dead letter was shed",
        table=letter.get("table_name"),
        reason=letter.get("reason"),
        source_log=letter.get("source_log"),
        source_seq=letter.get("source_seq"),
        payload_bytes=len(letter.get("payload") or b""),
    )
