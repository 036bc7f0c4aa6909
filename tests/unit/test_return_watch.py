"""A pause between attempts ends when the database is back, and only then: nudges and back-off stay what they are."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from recorder.contact import Contact
from recorder.flush_worker import WorkerState
from recorder.pause import Pause
from recorder.return_watch import TOLD_LOOKS, ReturnWatch
from recorder.sink.errors import SinkUnavailable

FOR_EVER_S = 3_600.0
SHORT_S = 0.001


class Database:
    """Answers or not."""

    def __init__(self) -> None:
        self.away = False
        self.asked = 0

    async def server(self) -> None:
        self.asked += 1
        if self.away:
            raise SinkUnavailable("connection refused")


class Tables:
    """Of which one may retry; `told` is how often it was told that the database is back."""

    def __init__(self) -> None:
        self.told = 0
        self.pipeline = SimpleNamespace(state=WorkerState.FLOWING)
        worker = SimpleNamespace(database_is_back=self._told)
        self.tables = {"orders": SimpleNamespace(pipeline=self.pipeline, worker=worker)}

    def _told(self) -> None:
        self.told += 1


@pytest.fixture
def tables() -> Tables:
    return Tables()


async def look(database: Database, tables: Tables, watch: ReturnWatch, times: int = 1) -> int:
    """How often the table was told in so many looks."""
    before = tables.told
    for _ in range(times):
        await watch.look()
    return tables.told - before


def watch_of(database: Database, tables: Tables) -> ReturnWatch:
    return ReturnWatch(cast("Any", database), cast("Any", tables.tables))


async def test_nobody_asks_while_nobody_waits(tables: Tables) -> None:
    """Rows that flow cost no question."""
    database = Database()
    assert await look(database, tables, watch_of(database, tables), 5) == 0
    assert database.asked == 0


async def test_who_waits_is_told_when_it_is_back_and_for_a_few_looks(tables: Tables) -> None:
    """An attempt that began before the return may fail after it; then back-off stands again."""
    database = Database()
    watch = watch_of(database, tables)
    tables.pipeline.state, database.away = WorkerState.RETRYING, True
    assert await look(database, tables, watch, 5) == 0
    database.away = False
    assert await look(database, tables, watch, 3 * TOLD_LOOKS) == TOLD_LOOKS
    database.away = True
    await watch.look()
    database.away = False
    assert await look(database, tables, watch) == 1, "each return counts"


async def test_a_database_that_answers_leaves_back_off_as_it_is(tables: Tables) -> None:
    """Its trouble is of another kind."""
    database = Database()
    tables.pipeline.state = WorkerState.RETRYING
    assert await look(database, tables, watch_of(database, tables), 20) == 0


async def test_the_first_contact_is_made_soon_after_the_database_is_there() -> None:
    """Whatever the back-off."""
    tried = 0

    async def start() -> None:
        nonlocal tried
        tried += 1
        if tried < 3:
            raise SinkUnavailable("connection refused")

    async def server() -> Any:
        return SimpleNamespace(version="26.1")

    async def run() -> None:
        return

    async def unfit(tables: Any) -> dict[str, str]:
        return {}

    sink, schema = SimpleNamespace(start=start, server=server), SimpleNamespace(run=run, unfit=unfit)
    backoff = SimpleNamespace(wait_s=lambda attempt: FOR_EVER_S)
    contact = Contact(cast("Any", sink), cast("Any", schema), cast("Any", backoff))
    await contact.make(list, wait=True)
    assert not contact.made
    async with asyncio.timeout(30):
        assert await contact.unfit("orders") == ""
    assert contact.made
    await contact.close()


async def test_the_end_ends_a_pause_also_after_a_nudge_that_counted() -> None:
    """Two nudges in a row do not count; the end does."""
    pause = Pause(SHORT_S)
    async with asyncio.timeout(30):
        waiting = asyncio.create_task(pause.wait(FOR_EVER_S))
        await asyncio.sleep(0)
        pause.nudge()
        await waiting
        waiting = asyncio.create_task(pause.wait(FOR_EVER_S))
        for _ in range(20):
            await asyncio.sleep(SHORT_S)
            pause.nudge()
        assert not waiting.done()
        pause.end()
        await waiting


async def test_an_end_before_the_pause_is_none_of_it() -> None:
    """It was for the one before."""
    pause = Pause(SHORT_S)
    pause.end()
    waiting = asyncio.create_task(pause.wait(FOR_EVER_S))
    await asyncio.sleep(20 * SHORT_S)
    assert not waiting.done()
    waiting.cancel()
