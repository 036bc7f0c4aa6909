"""When a service runs retention, and what it tells: a real recorder, a clock that is set, runs that end as told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from harness.alarms import standing
from harness.backends import Backend
from harness.recorders import WAIT_S, rows, settings_for
from harness.waiting import until

from recorder import Recorder
from recorder.retaining.book import End, Ended, Told
from recorder.retaining.schedule import Schedule
from recorder.service import retention
from recorder.service.retention import Retention
from recorder.service.retention_ways import Way

NIGHTLY = "0 2 * * *"
DAY_NS = 86_400 * 1_000_000_000
TWO_NS = Schedule(NIGHTLY).after_ns(20_779 * DAY_NS)
DROPPED = Told(
    kind="drop", state="done", table="fills", partition="202408", rows=7, bytes_on_disk=70, told="gone"
)


class Obedient(Way):
    """A run that waits until it is told how to end."""

    def __init__(self) -> None:
        self.runs = 0
        self.killed = False
        self.obeys = True
        self.hear: Callable[[Told], None] = lambda told: None
        self._end: asyncio.Future[End] | None = None

    async def run(self, told: Callable[[Told], None]) -> End:
        self.runs += 1
        self.hear = told
        self._end = asyncio.get_running_loop().create_future()
        return await self._end

    def end(self, how: Ended, why: str = "") -> None:
        assert self._end is not None
        self._end.set_result(End(how=how, why=why))

    def fail(self, error: Exception) -> None:
        assert self._end is not None
        self._end.set_exception(error)

    def stop(self) -> None:
        if self.obeys:
            self.end(Ended.STOPPED)

    def kill(self) -> None:
        self.killed = True
        self.end(Ended.STOPPED)

    @property
    def stuck(self) -> bool:
        return False


class Night:
    """A recorder, its retention, and the clock that this goes by."""

    def __init__(
        self,
        recorder: Recorder,
        expression: str | None = NIGHTLY,
        now_ns: int = TWO_NS - 3_600 * 1_000_000_000,
    ):
        self.now_ns = now_ns
        self.recorder, self.way = recorder, Obedient()
        self.retention = Retention(recorder, self.way, expression, now_ns=lambda: self.now_ns, stop_s=0.05)
        self.retention.start()

    async def begins(self, runs: int) -> None:
        await until(lambda: self.way.runs == runs, f"run {runs}")

    async def ended(self, how: Ended, count: int = 1) -> None:
        await until(lambda: self.retention.stats().runs[how.value] == count, f"{count} x {how}")

    async def events(self, kind: str) -> list[tuple[Any, ...]]:
        await asyncio.to_thread(self.recorder.flush, WAIT_S)
        sql = f"SELECT payload, severity FROM system_events WHERE kind = '{kind}' ORDER BY _seq"
        found = await asyncio.to_thread(rows, self.recorder, sql)
        return [(json.loads(payload), severity) for payload, severity in found]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "LOOK_S", 0.01)


@pytest.fixture
async def night(backend: Backend, database: str, tmp_path: pathlib.Path) -> AsyncIterator[Night]:
    """One hour before two."""
    recorder = Recorder(settings_for(backend, database, tmp_path, wal=False))
    await asyncio.to_thread(recorder.start)
    night = Night(recorder)
    yield night
    await night.retention.close()
    await asyncio.to_thread(recorder.close)


async def test_it_runs_at_its_time_and_tells_what_it_did(night: Night) -> None:
    """Once a night; an action is a row, a run is one, the next time is shown."""
    assert night.retention.stats().next_run_s * 1e9 == TWO_NS
    night.now_ns = TWO_NS
    await night.begins(1)
    night.way.hear(DROPPED)
    night.now_ns = TWO_NS + 5_000_000_000
    night.way.end(Ended.DONE)
    await night.ended(Ended.DONE)
    stats = night.retention.stats()
    assert (stats.last_seconds, stats.last_success_s * 1e9) == (5.0, night.now_ns)
    assert stats.next_run_s * 1e9 == TWO_NS + DAY_NS
    ((action, severity),) = await night.events("retention")
    assert action == {"action": "drop", "state": "done", "partition": "202408", "rows": 7, "bytes": 70}
    assert severity == "info"
    ((run, _),) = await night.events("retention_run")
    assert (run["outcome"], run["seconds"], run["by"], run["actions"]) == (
        "done",
        5.0,
        "schedule",
        {"done": 1},
    )
    assert night.way.runs == 1


async def test_a_time_during_a_run_is_skipped_and_one_slept_through_missed(night: Night) -> None:
    """Both are told, and neither is a run; the run that was at work goes on."""
    night.now_ns = TWO_NS
    await night.begins(1)
    night.now_ns = TWO_NS + DAY_NS
    await night.ended(Ended.SKIPPED)
    night.way.end(Ended.DONE)
    await night.ended(Ended.DONE)
    night.now_ns = TWO_NS + 2 * DAY_NS + DAY_NS // 2
    await night.ended(Ended.MISSED)
    assert night.way.runs == 1
    found = [(run["outcome"], severity) for run, severity in await night.events("retention_run")]
    assert found == [("skipped", "warning"), ("done", "info"), ("missed", "warning")]


async def test_told_to_it_runs_at_once_or_after_the_run_that_is_at_work(night: Night) -> None:
    """Also with the schedule off; told many times meanwhile is once."""
    night.retention.change(None)
    assert night.retention.stats().next_run_s == 0
    night.retention.run_now()
    await night.begins(1)
    for _ in range(3):
        night.retention.run_now()
    night.way.end(Ended.DONE)
    await night.begins(2)
    night.way.end(Ended.DONE)
    await night.ended(Ended.DONE, 2)
    night.now_ns = TWO_NS + DAY_NS
    for _ in range(3):
        await asyncio.sleep(0.02)
    assert night.way.runs == 2


async def test_whatever_a_run_raises_is_told_and_an_alarm(night: Night) -> None:
    """And the next one that succeeds ends it."""
    night.now_ns = TWO_NS
    await night.begins(1)
    night.way.fail(OSError("no process"))
    await night.ended(Ended.FAILED)
    await until(lambda: ("RecorderRetention", "") in standing(night.recorder), "the alarm")
    assert "no process" in standing(night.recorder)["RecorderRetention", ""]
    night.retention.run_now()
    await night.begins(2)
    night.way.end(Ended.DONE)
    await until(lambda: not standing(night.recorder), "the end of the alarm")


async def test_a_schedule_that_is_switched_off_ends_the_alarm_of_its_runs(night: Night) -> None:
    """Nothing else would; what is begun after that and fails is one again, also when settings are read once more."""
    night.now_ns = TWO_NS
    await night.begins(1)
    night.way.end(Ended.FAILED, "no grant")
    await night.ended(Ended.FAILED)
    assert "no grant" in night.retention.stats().trouble
    night.retention.change(None)
    assert night.retention.stats().trouble == ""
    night.retention.run_now()
    await night.begins(2)
    night.way.end(Ended.FAILED, "no grant")
    await night.ended(Ended.FAILED, 2)
    night.retention.change(None)
    assert "no grant" in night.retention.stats().trouble


async def test_of_very_many_actions_the_rows_are_bounded(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The summary counts all of them, and says how many have no row."""
    monkeypatch.setattr(retention, "EVENTS_MOST", 3)
    night.retention.run_now()
    await night.begins(1)
    for _ in range(10):
        night.way.hear(DROPPED)
    night.way.end(Ended.DONE)
    await night.ended(Ended.DONE)
    assert len(await night.events("retention")) == 3
    ((run, _),) = await night.events("retention_run")
    assert (run["actions"], run["untold"]) == ({"done": 10}, 7)


async def test_who_starts_later_knows_how_the_last_run_ended(night: Night) -> None:
    """Of whichever recorder of the database: a failure stands, and a success counts, from its own time."""
    for how in (Ended.DONE, Ended.FAILED, Ended.LEFT):
        night.retention.run_now()
        await night.begins(night.way.runs + 1)
        night.way.end(how, "no room" if how is Ended.FAILED else "")
        await night.ended(how)
    await asyncio.to_thread(night.recorder.flush, WAIT_S)
    other = Night(night.recorder, now_ns=time.time_ns())
    try:
        await until(lambda: "no room" in other.retention.stats().trouble, "the failure")
        assert other.retention.stats().last_success_s > 0
    finally:
        await other.retention.close()


async def test_what_a_clock_that_was_ahead_has_told_does_not_count(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure of next week, told before the clock was set back, would be newer than any success until then."""
    night.retention.run_now()
    await night.begins(1)
    night.way.end(Ended.FAILED, "no room")
    await night.ended(Ended.FAILED)
    await asyncio.to_thread(night.recorder.flush, WAIT_S)
    await night.retention.close()
    now = Night(night.recorder, now_ns=time.time_ns())
    try:
        await until(lambda: "no room" in now.retention.stats().trouble, "what is told of now")
    finally:
        await now.retention.close()
    monkeypatch.setattr(retention, "LEARN_S", 0.0)
    answers: list[object] = []
    ask = night.recorder.ask
    monkeypatch.setattr(night.recorder, "ask", lambda *asked: answers.append(ask(*asked)) or answers[-1])
    early = Night(night.recorder, now_ns=time.time_ns() - 7 * DAY_NS)
    try:
        await until(lambda: len(answers) >= 3, "answers")
        assert early.retention.stats().trouble == ""
    finally:
        await early.retention.close()


@pytest.mark.parametrize("obeys", [True, False])
async def test_a_run_ends_with_its_service(night: Night, obeys: bool) -> None:
    """Told to stop, or killed when it does not; either way that is no failure, and no other begins."""
    night.way.obeys = obeys
    night.retention.run_now()
    await night.begins(1)
    await night.retention.close()
    assert (night.way.killed, night.retention.stats().runs["stopped"]) == (not obeys, 1)
    assert night.retention.stats().trouble == ""
    night.retention.run_now()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await night.begins(2)
    assert night.way.runs == 1
