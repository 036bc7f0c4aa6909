"""An engine whose inserts hang: for real, by its own brake on tables with too many parts, set to stop at the first.

An insert into such a table sleeps inside the engine. What is already asleep sleeps to its end (or until it is
killed); after `release` new inserts go through at once.
"""

from __future__ import annotations

from collections.abc import Iterable

from recorder import Recorder
from recorder.sink.base import Sink

_BRAKE = "parts_to_delay_insert, min_delay_to_insert_ms, max_delay_to_insert"


def _run(recorder: Recorder, statements: Iterable[str]) -> None:
    async def run(sink: Sink) -> None:
        for statement in statements:
            await sink.command(statement)

    recorder.ask(run)


def hang(recorder: Recorder, tables: Iterable[str], seconds: float) -> None:
    """From now on an insert into one of these tables that has rows hangs for `seconds`."""
    whole = max(1, round(seconds))
    _run(
        recorder,
        (
            f"ALTER TABLE {table} MODIFY SETTING parts_to_delay_insert = 1, "
            f"min_delay_to_insert_ms = {round(seconds * 1_000)}, max_delay_to_insert = {whole}"
            for table in tables
        ),
    )


def release(recorder: Recorder, tables: Iterable[str]) -> None:
    """Inserts go through again."""
    _run(recorder, (f"ALTER TABLE {table} RESET SETTING {_BRAKE}" for table in tables))
