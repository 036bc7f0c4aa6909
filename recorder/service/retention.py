"""Retention by itself: `recorder run` carries out what is due at the times of `retention_schedule`.

    schedule ──turn──► Way.run ──Told, End──► Book ──► log, rows of `system_events`, metrics, status, alarm

One run at a time here, and one on the database, whoever begins it (`recorder.retaining.alone`). What goes wrong with a
run is told, and is never recording's: nothing here raises. What runs did is in `system_events`, so that a recorder that
starts, or leaves a run to another recorder, knows how the last one ended.

Everything is on the service's loop; `stats` may be called from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from recorder.errors import RecorderError
from recorder.log import get_logger
from recorder.own_rows import EVENTS, event_row
from recorder.redact import redacted
from recorder.retaining.book import Book, End, Ended, Told, moment, summary
from recorder.retaining.schedule import Schedule, Turns, begun, looked
from recorder.stats import RetentionStats
from recorder.supervised import Supervised

if TYPE_CHECKING:
    from recorder.recorder import Recorder
    from recorder.service.retention_ways import Way

log = get_logger("recorder.retention")

LOOK_S = 1.0
"""How often the clock is looked at."""
LEARN_S = 600.0
"""How often it is asked how runs of other recorders ended."""
ASK_S = 3.0
EVENTS_MOST = 200
"""Actions of one run that have a row and a line each; of the others the counts are told."""
ACTION, RUN = "retention", "retention_run"
"""Kinds of rows in `system_events`."""
LEARN = (
    "SELECT toUnixTimestamp64Nano(ts_local) AS at_ns, JSONExtractString(ifNull(payload, ''), 'outcome') AS outcome, "
    f"JSONExtractString(ifNull(payload, ''), 'why') FROM {EVENTS} WHERE kind = '{RUN}' "
    "AND outcome IN ('done', 'failed') AND at_ns <= {until_ns} ORDER BY ts_local DESC LIMIT 1 BY outcome"
)
AHEAD_S = 300.0
"""So much may the clock of another machine be ahead of this one's. What is later was told by a wrong clock, and would
stand until its time has come."""


class Retention:
    """See the module. `expression` is a cron expression, or None for never; `now_ns` is the wall clock."""

    def __init__(
        self,
        recorder: Recorder,
        way: Way,
        expression: str | None,
        *,
        now_ns: Callable[[], int] = time.time_ns,
        stop_s: float,
    ):
        self._recorder, self._way, self._now_ns, self._stop_s = recorder, way, now_ns, stop_s
        self._schedule: Schedule | None = None
        self._turns: Turns | None = None
        self._book = Book(started_ns=now_ns())
        self._shown: tuple[Book, Schedule | None] = self._book, None
        self._asked = False
        self._told = 0
        self._learned_s: float | None = None
        self._wake = asyncio.Event()
        self._keeper = Supervised("retention", self._keep)
        self._run: asyncio.Task[None] | None = None
        self.change(expression)

    # -- lifecycle ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; the recorder runs."""
        self._recorder.watch_retention(self.stats)
        self._keeper.start()
        if self._schedule is None:
            log.info("retention does not run by itself: retention_schedule is off")
        else:
            log.info(
                "retention runs by itself",
                schedule=self._schedule.expression,
                next=moment(self._book.next_ns),
            )

    def change(self, expression: str | None) -> None:
        """Go by another schedule from now on; a run that is at work goes on."""
        schedule = None if expression is None else Schedule(expression)
        if schedule == self._schedule and self._turns is not None:
            return
        if schedule is None and self._schedule is not None:
            self._book = self._book.switched_off()
        self._schedule = schedule
        last_ns = self._turns.last_ns if self._turns is not None else 0
        self._turns = None if schedule is None else begun(schedule, self._now_ns(), last_ns=last_ns)
        self._write(next_ns=self._turns.next_ns if self._turns is not None else 0)

    def run_now(self) -> None:
        """Run as soon as none is at work, whatever the schedule says."""
        self._asked = True
        self._wake.set()

    async def close(self) -> None:
        """Begin no more, and have the run that is at work end: between two steps, or killed after `stop_s`."""
        await self._keeper.close()
        run = self._run
        if run is None or run.done():
            return
        self._way.stop()
        if not (await asyncio.wait({run}, timeout=self._stop_s))[0]:
            self._way.kill()
            await asyncio.wait({run}, timeout=1.0)

    @property
    def stuck(self) -> bool:
        """After `close`: a run goes on that would not end."""
        return self._way.stuck

    def stats(self) -> RetentionStats:
        """How it stands."""
        book, schedule = self._shown
        stats = book.stats(schedule, self._now_ns())
        trouble = "; ".join(filter(None, (stats.trouble, self._keeper.trouble())))
        return dataclasses.replace(stats, trouble=trouble)

    # -- running ------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        while True:
            await self._learn()
            self._look()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()

    def _look(self) -> None:
        """See whether its time has come."""
        at_work = self._run is not None and not self._run.done()
        if self._schedule is not None and self._turns is not None:
            self._turns, turn = looked(self._schedule, self._turns, self._now_ns())
            if self._turns.next_ns != self._book.next_ns:
                self._write(next_ns=self._turns.next_ns)
            if turn is not None and turn.missed:
                self._pass(Ended.MISSED, turn.at_ns, "it was long over when the clock was seen")
            elif turn is not None and at_work:
                self._pass(Ended.SKIPPED, turn.at_ns, "the run before is still at work")
            elif turn is not None:
                self._begin("schedule")
                at_work = True
        if self._asked and not at_work:
            self._asked = False
            self._begin("signal")

    def _begin(self, by: str) -> None:
        self._told = 0
        self._book = self._book.begun(self._now_ns())
        self._write()
        self._run = asyncio.create_task(self._carry_out(by), name="retention run")

    async def _carry_out(self, by: str) -> None:
        log.info("retention runs", by=by)
        try:
            end = await self._way.run(self._hear)
        except Exception as error:
            log.debug("a run of retention ended", exc_info=True)
            end = End(how=Ended.FAILED, why=redacted(str(error) or repr(error)))
        assert self._book.running is not None
        run, now_ns = self._book.running, self._now_ns()
        end = run.end(end)
        self._book = self._book.ended(end, now_ns)
        self._write()
        message, details = summary(run, end, now_ns)
        failed = end.how is Ended.FAILED
        if self._told > EVENTS_MOST:
            details["untold"] = self._told - EVENTS_MOST
        self._event(RUN, failed, "", message, details | {"by": by, "why": end.why})
        (log.error if failed else log.info)(
            "retention ran", outcome=end.how.value, why=end.why, actions=dict(run.actions),
            seconds=details["seconds"],
        )  # fmt: skip
        if end.how is Ended.LEFT:
            self._learned_s = None

    def _hear(self, told: Told) -> None:
        """Of one action of the run."""
        self._book = self._book.told(told)
        self._write()
        self._told += 1
        if self._told > EVENTS_MOST:
            return
        failed = told.state == "failed"
        what = {"action": told.kind, "state": told.state, "partition": told.partition, "rows": told.rows,
                "bytes": told.bytes_on_disk}  # fmt: skip
        self._event(ACTION, failed, told.table, redacted(f"{told.state}: {told}"), what)
        (log.warning if failed else log.info)("retention", table=told.table, **what, told=told.told)

    def _pass(self, how: Ended, at_ns: int, why: str) -> None:
        """There is no run at this time."""
        self._book = self._book.passed(how)
        self._write()
        log.warning("retention did not run", at=moment(at_ns), outcome=how.value, why=why)
        message = f"a run of retention was {how.value} at {moment(at_ns)}: {why}"
        self._event(RUN, True, "", message, {"outcome": how.value, "why": why}, severity="warning")

    # -- telling ------------------------------------------------------------------------------------------------

    def _write(self, *, next_ns: int | None = None) -> None:
        """Show the book as it is now."""
        if next_ns is not None:
            self._book = self._book.planned(next_ns)
        self._shown = self._book, self._schedule

    def _event(
        self, kind: str, failed: bool, table: str, message: str, details: dict[str, Any], severity: str = ""
    ) -> None:
        row = event_row(kind, severity or ("error" if failed else "info"), table, message, details)
        with contextlib.suppress(RecorderError):  # it ends, and the log has it
            self._recorder.record(EVENTS, row)

    async def _learn(self) -> None:
        """Hear how runs of other recorders, and of this one before, ended."""
        now_s = time.monotonic()
        if (
            self._learned_s is not None and now_s - self._learned_s < LEARN_S
        ) or not self._recorder.in_contact:
            return
        self._learned_s = now_s
        learn = LEARN.format(until_ns=self._now_ns() + int(AHEAD_S * 1e9))
        try:
            found: Sequence[Sequence[Any]] = await asyncio.to_thread(
                self._recorder.ask, lambda sink: sink.query(learn), ASK_S
            )
            for at_ns, how, why in sorted((int(at_ns), str(how), str(why)) for at_ns, how, why in found):
                self._book = self._book.judged(End(how=Ended(how), why=why), at_ns)
        except Exception as error:  # noqa: BLE001 - it is only shown, and asked again
            log.debug("earlier runs of retention cannot be asked for", error=repr(error))
            return
        self._write()
