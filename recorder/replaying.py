"""A recorder that only gets in what its logs hold: waiting for it, and what became of the rows.

The recorder does the work, as it does beside new rows after any start: look-up before sending, seals, back-off, hold.
What was confirmed stays so however a replay ends, and the next one goes on from there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from recorder.earlier_stats import EarlierStats
from recorder.errors import NotDurable
from recorder.left_on_logs import LeftOnLog
from recorder.recorder import Recorder

LOOK_S = 0.1
"""How often is looked how far it has come."""
OWN_ROWS_S = 10.0
"""How long the dead letters that it made, and the recorder's row about itself, are waited for at its end."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far it is. Rows are those of all tables."""

    done_rows: int
    total_rows: int
    elapsed_s: float
    waiting_for: str
    """Why nothing goes on; empty while it does."""

    @property
    def rows_per_s(self) -> float:
        """Since the start."""
        return self.done_rows / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def remaining_s(self) -> float | None:
        """At this rate; None while there is none."""
        return (self.total_rows - self.done_rows) / self.rows_per_s if self.done_rows else None


@dataclass(frozen=True, kw_only=True)
class TableReplayed:
    """What became of one table's rows. All counts are rows; `rows` is the sum of those after it but `restored`."""

    rows: int
    inserted: int
    there: int
    """The table had them when it was asked, or they had left it: they have moved, or are archived."""
    dead_lettered: int
    expired: int
    """Older than the table's TTL: it has taken them, or would at once."""
    lost: int
    """The log had them, and cannot give them."""
    left: int
    """Still on the log."""
    restored: int
    """Confirmed before, lost by the database since, and put back."""
    unsettled: int
    """Confirmed, not settled."""
    why: str
    """Why some are left."""
    unread: str
    """Where the disk does not give what is on the log, so that more may be left than anybody knows; else empty."""


class Replaying:
    """See the module. `left` is what the logs held before the recorder was started.

    Args:
        recorder: it has started, and has no source.
        wait_s: how long nothing may go on, because the database is away or tables are held, before it is given up.
        until_settled: wait, too, until what was confirmed is settled.
    """

    def __init__(
        self, recorder: Recorder, left: Mapping[str, LeftOnLog], *, wait_s: float, until_settled: bool = False
    ):
        self._recorder = recorder
        self._left = left
        self._meant = {
            name for name, one in left.items() if not one.refused and (one.rows or one.lost or one.unsettled)
        }
        self._wait_s = wait_s
        self._until_settled = until_settled
        self._why = ""
        self._began_s = time.monotonic()

    def run(self, show: Callable[[Progress], None]) -> bool:
        """Return when all is resolved (True), or nothing has gone on for too long (False). `show` is told meanwhile."""
        total = sum(one.rows for one in self._left.values() if not one.refused)
        moved, moved_s = (0, 0), time.monotonic()
        while self._recorder.running:
            found = self._recorder.earlier()
            open_ = {
                name: one for name, one in found.items() if name in self._meant and not self._finished(one)
            }
            if not open_:
                self._flush()
                return True
            done = sum(one.resolved for one in found.values())
            waits = not self._recorder.in_contact or all(one.why for one in open_.values())
            now_s = time.monotonic()
            if not waits or moved != (done, len(open_)):
                moved, moved_s = (done, len(open_)), now_s
            self._why = "; ".join(self._recorder.unready()) if waits else ""
            show(
                Progress(
                    done_rows=done,
                    total_rows=max(total, done),
                    elapsed_s=now_s - self._began_s,
                    waiting_for=self._why,
                )
            )
            if waits and self._why and now_s - moved_s >= self._wait_s:
                return False
            time.sleep(LOOK_S)
        return False

    def result(self) -> dict[str, TableReplayed]:
        """By table that had something, what became of it; also after the recorder was closed."""
        found = self._recorder.earlier()
        return {name: _became(left, found.get(name), self._why) for name, left in self._left.items()}

    def _finished(self, one: EarlierStats) -> bool:
        return one.done and not (self._until_settled and one.unsettled)

    def _flush(self) -> None:
        with contextlib.suppress(NotDurable):
            self._recorder.flush(timeout_s=OWN_ROWS_S)


def untouched(left: Mapping[str, LeftOnLog]) -> dict[str, TableReplayed]:
    """The result of a replay that did not begin."""
    return {name: _became(one, None, "") for name, one in left.items()}


def _became(left: LeftOnLog, found: EarlierStats | None, why: str) -> TableReplayed:
    resolved = found.resolved if found is not None else 0
    rest = max(0, left.rows - resolved)
    done = found is not None and found.done
    kept = min(rest, found.kept) if found is not None else 0
    why = left.refused or (found.kept_why or found.why if found is not None else "") or why
    return TableReplayed(
        rows=max(left.rows, resolved) + left.lost,
        inserted=found.inserted if found is not None else 0,
        there=found.there if found is not None else 0,
        dead_lettered=found.dead_lettered if found is not None else 0,
        expired=found.expired if found is not None else 0,
        # What it gave out all of, and is nowhere, could not be read after all.
        lost=left.lost + (rest - kept if done else 0),
        left=kept if done else rest,
        restored=found.restored if found is not None else 0,
        unsettled=found.unsettled if found is not None else left.unsettled,
        why=why if kept or (rest and not done) else "",
        unread=left.unread or (found.unread if found is not None else ""),
    )
