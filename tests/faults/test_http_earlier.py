"""What a recorder that was killed had sent, and the server still works on, when the next recorder starts."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pathlib
import uuid
from collections.abc import AsyncIterator

import pytest
from harness.dev_server import DevServerProcess
from harness.sink_tables import create, plain

from recorder.sink.errors import InsertStillRunning
from recorder.sink.http import HttpSink
from recorder.target import parse_target

BRAKE = "parts_to_delay_insert = 1, min_delay_to_insert_ms = 8000, max_delay_to_insert = 8"


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[HttpSink]:
    sink = HttpSink(parse_target(url), "d", create_database=True)
    await sink.start()
    try:
        yield sink
    finally:
        await sink.close()


async def inserts(sink: HttpSink, wanted: bool) -> None:
    """Return when the server runs an insert, or none."""
    for _ in range(3_000):
        ((count,),) = await sink.query("SELECT count() FROM system.processes WHERE query_kind = 'Insert'")
        if bool(count) is wanted:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the server did not get there")


async def test_rows_that_come_again_wait_for_the_insert_of_the_recorder_before(
    tmp_path: pathlib.Path,
) -> None:
    """While an insert from before runs, which of its rows are there is no question with an answer; after it, it is."""
    with DevServerProcess(tmp_path / "server") as server:
        async with opened(server.url) as before, opened(server.url) as asking:
            await before.command(create("t"))
            await before.insert(plain("t", log=1), timeout_s=30)
            await before.command(f"ALTER TABLE t MODIFY SETTING {BRAKE}")
            old = plain("t", 10, log=8)
            sending = asyncio.create_task(before.insert(old, timeout_s=50))
            await inserts(asking, True)
            async with opened(server.url) as after:
                again = dataclasses.replace(old, from_source=True, token=uuid.uuid4().hex)
                with pytest.raises(InsertStillRunning, match="began before this recorder"):
                    await after.look_up(again)
                fresh = dataclasses.replace(again, from_source=False)
                assert await after.look_up(fresh) == set(), "rows nobody had before need not wait"
                await sending
                await inserts(asking, False)
                assert len(await after.look_up(again)) == old.rows
