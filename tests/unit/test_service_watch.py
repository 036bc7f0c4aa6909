"""What the service does about itself: tasks that end, a database that is silent, settings read again too early."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from recorder import Recorder
from recorder.errors import RecorderClosed
from recorder.service import service
from recorder.service.service import Service
from recorder.settings import Settings


class Idle:
    """As much of a recorder as the look-out needs."""

    running = True
    in_contact = True
    tables = ("orders",)

    def __init__(self, ask: Callable[[], Any]):
        self._ask = ask
        self.asked: list[float | None] = []

    def ask(self, question: object, timeout_s: float | None = None) -> Any:
        self.asked.append(timeout_s)
        return self._ask()


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
    monkeypatch.setattr(service, "LEARN_S", 0.0)
    recorder, one = Idle(lambda: raises(error)), made(tmp_path)
    looking = asyncio.create_task(one._look_after(recorder, learnt=False))  # type: ignore[arg-type]
    async with asyncio.timeout(30):
        while len(recorder.asked) < 3:
            assert not looking.done()
            await asyncio.sleep(0.005)
    assert set(recorder.asked) == {service.ASK_S}
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


async def test_a_consumer_whose_task_ended_ends_the_service(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would acknowledge any more; a supervisor starts it again."""
    monkeypatch.setattr(service, "LOOK_S", 0.001)
    one = made(tmp_path)
    one._consumers = [type("Ended", (), {"failed": "tend x ended unexpectedly"})()]
    async with asyncio.timeout(30):
        await one._look_after(Idle(list), learnt=True)  # type: ignore[arg-type]
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
    made(tmp_path)._told_to_reload()
    assert "settings are not read again" in caplog.text


async def test_normalisers_are_opened_with_the_settings_of_the_start(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They need a restart: one that is opened later must not differ from those that are open."""
    opened: list[Any] = []
    monkeypatch.setattr(service, "open_normaliser", lambda name, settings: opened.append(settings))
    one = made(tmp_path)
    one._open_normaliser("binance")
    one._settings = Settings(normalisers={"binance": {"snapshot_interval_s": 4.5}})
    one._open_normaliser("binance")
    assert opened[0] == opened[1]


def test_unknown_fields_of_columns_stay_as_at_the_start(tmp_path: pathlib.Path) -> None:
    """As those of rows do."""
    started = Settings(target=f"chdb://{tmp_path}/db", data_dir=tmp_path)
    recorder = Recorder(started)
    recorder.settings = Settings(tables={"orders": {"unknown_fields": "ignore"}})
    assert recorder._ignores_unknown("orders") is False
