"""A sink on servers over HTTP, and how a batch is got in through trouble."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from recorder.batch import Batch
from recorder.sink.errors import Retryable
from recorder.sink.http import HttpSink
from recorder.target import parse_target

IN_TIME_S = 30.0


@contextlib.asynccontextmanager
async def opened(url: str, *, start: bool = True, **options: Any) -> AsyncIterator[HttpSink]:
    """A sink on a target, with short limits."""
    given = {"kill_wait_s": 1.0, "close_wait_s": 1.0, "query_timeout_s": 5.0, **options}
    sink = HttpSink(parse_target(url), given.pop("database", "default"), **given)
    try:
        if start:
            await sink.start()
        yield sink
    finally:
        await sink.close()


async def count(sink: HttpSink, table: str = "t") -> int:
    """How many rows a table has."""
    return int((await sink.query(f"SELECT count() FROM {table}"))[0][0])


async def looked_up(sink: HttpSink, batch: Batch) -> set[tuple[int, int]]:
    """The look-up as the flush worker asks it: again until it answers."""
    deadline_s = time.monotonic() + IN_TIME_S
    while True:
        try:
            return await sink.look_up(batch)
        except Retryable:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.05)


async def brought_in(sink: HttpSink, batch: Batch, *, timeout_s: float = 5.0) -> None:
    """Insert as the flush worker does: look up after each failure, send again what is absent."""
    deadline_s = time.monotonic() + IN_TIME_S
    while True:
        try:
            await sink.insert(batch, timeout_s=timeout_s)
            return
        except Retryable:
            assert time.monotonic() < deadline_s
            if await looked_up(sink, batch):
                return
