"""What a recorder gave up as it closed: what is lost, and what its bus delivers again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from recorder.log import get_logger
from recorder.own_rows import OWN_TABLES
from recorder.pipeline import TablePipeline
from recorder.reasons import by_reason
from recorder.settling import Settling

log = get_logger("recorder")


class GivenUp(NamedTuple):
    """Rows of one table that memory held at the end and that are not in the table."""

    lost: int = 0
    """Nobody has them any more."""
    again: int = 0
    """Of messages that were not acknowledged, by a bus that delivers them until they are."""


def given_up(rows: int, *, comes_again: int, comes_no_more: int) -> GivenUp:
    """Tell lost rows from others. Of `rows` given up at most `comes_again` are of messages that come again, and at
    most `comes_no_more` of messages that do not; where it could be either, it counts as lost.
    """
    lost = min(rows, max(rows - comes_again, comes_no_more))
    return GivenUp(lost, rows - lost)


def given_up_of(pipelines: Mapping[str, TablePipeline], settling: Settling) -> dict[str, GivenUp]:
    """By table that had rows to give up; the pipelines are closed."""
    return {
        name: given_up(
            pipeline.lost_rows,
            comes_again=settling.waiting_rows(name, comes_again=True),
            comes_no_more=settling.waiting_rows(name, comes_again=False),
        )
        for name, pipeline in pipelines.items()
        if pipeline.lost_rows
    }


def tell_lost(rows: Mapping[str, GivenUp], why: Callable[[str], str]) -> None:
    """Say in the log what is lost: table by table, and of the recorder's own in one line, with the reason."""
    own = {name: found.lost for name, found in rows.items() if found.lost and name in OWN_TABLES}
    for name, found in rows.items():
        if found.lost and name not in own:
            log.error("rows were lost at shutdown", table=name, rows=found.lost)
    if own:
        reasons = by_reason({name: why(name) for name in own})
        log.warning(
            "what the recorder had to say of itself was lost at shutdown",
            rows=own,
            why="; ".join(filter(None, reasons)),
        )
