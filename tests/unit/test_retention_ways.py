"""A run in a thread of the recorder's process ends, whatever becomes of the thread."""

from __future__ import annotations

import asyncio
import pathlib
import threading
from typing import Any

import pytest

from recorder.retaining import run as retention_run
from recorder.retaining.book import Ended
from recorder.service.retention_ways import InThread
from recorder.settings import Settings


async def test_a_thread_that_dies_ends_its_run(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the code was replaced below a recorder that runs: told as a failure, and not at work for ever."""

    def gone(*_: Any) -> Any:
        raise ImportError("no module of that name")

    monkeypatch.setattr(retention_run, "said", gone)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # which tells the log of it
    way = InThread(Settings(target=f"chdb://{tmp_path}/db", data_dir=tmp_path), [])
    async with asyncio.timeout(30):
        end = await way.run(lambda told: None)
    assert (end.how, end.why) == (Ended.FAILED, "no module of that name")
    assert not way.stuck
    for thread in threading.enumerate():
        if thread.name == "retention":
            thread.join(30)  # its error comes last, to the hook that is replaced here
