"""Laws of tasks that are to run for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from harness.waiting import until

from recorder import supervised
from recorder.backoff import Backoff
from recorder.supervised import Supervised

QUICK = Backoff(0.001, 0.002)


class Waits(Backoff):
    """Remembers which attempts were waited before."""

    def __init__(self) -> None:
        super().__init__(0.001, 0.002)
        object.__setattr__(self, "attempts", [])

    attempts: list[int]

    def wait_s(self, attempt: int) -> float:
        self.attempts.append(attempt)
        return 0.0


def dying(times: int, *, returns: bool = False) -> tuple[Callable[[], Any], list[int]]:
    """What dies so often, or ends, and then runs for ever; and its lives."""
    lives: list[int] = []

    async def run() -> None:
        lives.append(len(lives))
        if len(lives) <= times:
            if returns:
                return
            raise RuntimeError(f"death {len(lives)}")
        await asyncio.Event().wait()

    return run, lives


async def test_one_that_dies_is_started_again_counted_and_logged_once_a_death(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each line has the traceback; who wants to know is told why."""
    run, lives = dying(3)
    told: list[str] = []
    one = Supervised("worker", run, table="orders", died=told.append, backoff=QUICK)
    one.start()
    await until(lambda: len(lives) == 4, "three deaths")
    assert one.deaths == 3
    assert told == [f"worker died: RuntimeError('death {n}')" for n in (1, 2, 3)]
    lines = [record for record in caplog.records if "a task died" in record.message]
    assert len(lines) == 3
    assert all(line.exc_info and "table='orders'" in line.message for line in lines)
    await one.close()


async def test_an_end_that_nobody_asked_for_is_a_death() -> None:
    """What is to run for ever and returns has failed, too."""
    run, lives = dying(1, returns=True)
    one = Supervised("gaps", run, backoff=QUICK)
    one.start()
    await until(lambda: len(lives) == 2, "the second life")
    assert one.deaths == 1
    assert one.trouble() == "gaps ended"
    await one.close()


async def test_it_is_trouble_from_its_death_until_it_is_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Down while it waits, troubled until it has lived for its time, well after that."""
    monkeypatch.setattr(supervised, "HEALTHY_S", 0.2)
    run, lives = dying(1)
    one = Supervised("worker", run, backoff=QUICK)
    assert (one.down(), one.trouble()) == ("", "")
    one.start()
    await until(lambda: len(lives) == 2, "the second life")
    assert one.down() == ""
    assert one.trouble() == "worker died: RuntimeError('death 1')"
    await until(lambda: one.trouble() == "", "health")
    await one.close()


async def test_it_is_down_while_it_waits_to_be_started() -> None:
    """The reason is there for whoever asks for health."""
    run, _ = dying(1)

    class Long(Backoff):
        def wait_s(self, attempt: int) -> float:
            return 3_600.0

    one = Supervised("worker", run, backoff=Long(1.0, 1.0))
    one.start()
    await until(lambda: one.deaths == 1, "its death")
    assert one.down() == one.trouble() == "worker died: RuntimeError('death 1')"
    await one.close()
    assert one.down() == one.trouble() == ""


async def test_back_off_grows_with_each_death_and_is_forgotten_after_health(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A life that was long enough makes the next death a first one."""
    waits = Waits()
    lives = 0

    async def run() -> None:
        nonlocal lives
        lives += 1
        if lives == 4:
            monkeypatch.setattr(supervised, "HEALTHY_S", 0.0)  # this life counts as healthy
        elif lives == 5:
            monkeypatch.setattr(supervised, "HEALTHY_S", 3_600.0)
        elif lives == 7:
            await asyncio.Event().wait()
        raise RuntimeError("again")

    monkeypatch.setattr(supervised, "HEALTHY_S", 3_600.0)
    one = Supervised("worker", run, backoff=waits)
    one.start()
    await until(lambda: lives == 7, "its seventh life")
    assert waits.attempts == [0, 1, 2, 0, 1, 2]
    await one.close()


async def test_one_that_somebody_else_cancelled_is_gone() -> None:
    """Nobody starts it again: whoever supervises the process has to know."""
    run, lives = dying(0)
    one = Supervised("tend", run)
    task = one.start()
    await until(lambda: len(lives) == 1, "its life")
    task.cancel()
    await until(task.done, "its end")
    assert one.down() == one.trouble() == "tend is gone"
    await one.close()
    assert one.down() == ""


async def test_secrets_in_an_error_are_not_told() -> None:
    """What is shown in status and alarms is cut like a log line."""

    async def run() -> None:
        raise RuntimeError("https://user:hunter2@host/?api_key=abc")

    one = Supervised("worker", run, backoff=Backoff(1.0, 1.0))
    one.start()
    await until(lambda: one.deaths == 1, "its death")
    assert "hunter2" not in one.trouble()
    await one.close()
