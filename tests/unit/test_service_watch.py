"""What the service does about itself: tasks that end, a database that is silent, settings read again too early."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from recorder import Recorder
from recorder.errors import RecorderClosed
from recorder.flush_worker import WorkerState
from recorder.normalise.order_ids import OrderIds
from recorder.service import assembly, orders_before, service
from recorder.service.assembly import Assembly
from recorder.service.orders_before import OrdersBefore
from recorder.service.service import Service
from recorder.settings import Settings


class Idle:
    """As much of a recorder as the look-out needs."""

    running = True
    in_contact = True
    tables = ("orders",)
    state = WorkerState.FLOWING
    reasons: Sequence[str] = ()

    def __init__(self, ask: Callable[[], Any]):
        self._ask = ask
        self.asked: list[float | None] = []

    def ask(self, question: object, timeout_s: float | None = None) -> Any:
        self.asked.append(timeout_s)
        return self._ask()

    def state_of(self, table: str) -> WorkerState:
        return self.state

    def unready(self) -> list[str]:
        return list(self.reasons)


def before_of(recorder: Idle) -> OrdersBefore:
    """What learns the orders from before; of no table where it is to learn nothing."""
    return OrdersBefore(recorder, OrderIds(10), "db")  # type: ignore[arg-type]


def made(tmp_path: pathlib.Path, **changes: Any) -> Service:
    """A service that was not started."""
    settings = Settings(target=f"chdb://{tmp_path}/db", data_dir=tmp_path, **changes)
    return Service(settings, reread=lambda: settings, set_up_log=lambda _: None)


def raises(error: Exception) -> Any:
    """As an expression."""
    raise error


@pytest.mark.parametrize("error", [RecorderClosed("closed"), TimeoutError(), KeyError("odd")])
async def test_orders_that_cannot_be_learnt_now_are_tried_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The look-out goes on, and each question has a time."""
    monkeypatch.setattr(service, "LOOK_S", 0.001)
    monkeypatch.setattr(orders_before, "LEARN_S", 0.0)
    recorder, one = Idle(lambda: raises(error)), made(tmp_path)
    looking = asyncio.create_task(one._look_after(recorder, before_of(recorder)))  # type: ignore[arg-type]
    async with asyncio.timeout(30):
        while len(recorder.asked) < 3:
            assert not looking.done()
            await asyncio.sleep(0.005)
    assert set(recorder.asked) == {orders_before.ASK_S}
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


async def test_orders_of_a_held_table_are_not_asked_for() -> None:
    """It is not there, or not as it should be: who holds it says so, and a question would only fail."""
    recorder = Idle(list)
    recorder.state = WorkerState.HELD
    before = before_of(recorder)
    await before.learn()
    assert (recorder.asked, before.learnt) == ([], False)
    recorder.state = WorkerState.FLOWING
    await before.learn()
    assert before.learnt


async def test_ready_is_said_when_it_is(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not before the last reason is gone, and once: what happens later is told by who finds it out."""
    monkeypatch.setattr(service, "LOOK_S", 0.001)
    recorder, one = Idle(list), made(tmp_path)
    recorder.reasons = ("no contact",)
    with caplog.at_level("INFO", logger="recorder"):
        one._readiness.saw(recorder.unready())
        assert caplog.messages == ["started, not ready yet"]
        looking = asyncio.create_task(one._look_after(recorder, before_of(recorder)))  # type: ignore[arg-type]
        for reasons in (("bus is down",), (), ("no contact",), ()):
            recorder.reasons = reasons
            async with asyncio.timeout(30):
                while one._readiness.reasons != list(reasons):  # noqa: ASYNC110 - it is looked at every so often
                    await asyncio.sleep(0.001)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    assert caplog.messages == ["started, not ready yet", "ready"]


async def test_a_consumer_whose_task_ended_ends_the_service(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would acknowledge any more; a supervisor starts it again."""
    monkeypatch.setattr(service, "LOOK_S", 0.001)
    one = made(tmp_path)
    one._consumers = [type("Ended", (), {"failed": "tend x ended unexpectedly"})()]
    recorder = Idle(list)
    async with asyncio.timeout(30):
        await one._look_after(recorder, before_of(recorder))  # type: ignore[arg-type]
    assert one._stop.is_set()
    assert one._failed == "tend x ended unexpectedly"


async def test_a_look_out_that_ends_ends_the_service(tmp_path: pathlib.Path) -> None:
    """With the exit code of a failure."""
    one = made(tmp_path)
    task = asyncio.create_task(asyncio.sleep(0))
    task.add_done_callback(one._looked)
    await task
    await asyncio.sleep(0)
    assert one._stop.is_set()
    assert one._exit_code(0) == service.EXIT_FAILED


async def test_settings_read_again_too_early_are_told(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever sent the signal must not believe that it was heard."""
    made(tmp_path)._reload_now()
    assert "settings are not read again" in caplog.text


async def test_a_storm_of_signals_is_one_reading(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that comes after it is heard too; after the end nothing is read."""
    monkeypatch.setattr(service, "RELOAD_S", 0.001)
    read: list[int] = []
    one = made(tmp_path)
    monkeypatch.setattr(one, "_reload", lambda: read.append(1))
    for count in (1, 2):
        for _ in range(300):
            one._told_to_reload()
        async with asyncio.timeout(30):
            while one._reload_soon is not None:  # noqa: ASYNC110 - a timer ends it
                await asyncio.sleep(0.001)
        assert len(read) == count
    one._stop.set()
    one._reload_now()
    assert len(read) == 2


def test_normalisers_are_opened_with_the_settings_of_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """They need a restart: one that is opened later must not differ from those that are open."""
    opened: list[Any] = []
    monkeypatch.setattr(assembly, "open_normaliser", lambda name, settings: opened.append(settings))
    one = Assembly(Settings())
    one.open_normaliser("binance")
    changed = {"binance": {"snapshot_interval_s": 4.5}}
    one.topics(Settings(topics={"x": "normaliser:binance"}, normalisers=changed))
    assert opened[0] == opened[1]


def test_unknown_fields_of_columns_stay_as_at_the_start(tmp_path: pathlib.Path) -> None:
    """As those of rows do."""
    started = Settings(target=f"chdb://{tmp_path}/db", data_dir=tmp_path)
    recorder = Recorder(started)
    recorder.settings = Settings(tables={"orders": {"unknown_fields": "ignore"}})
    assert recorder._ignores_unknown("orders") is False
