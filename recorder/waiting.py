"""Waits on the recorder's loop, for who is elsewhere: a thread that blocks, or a coroutine of another loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from recorder.errors import NotDurable, RecorderClosed
from recorder.pipeline import TablePipeline

T = TypeVar("T")
Wait = Callable[[], Coroutine[Any, Any, T]]

OVERTAKEN = "the recorder was closed meanwhile; its balance says what became of the rows"


def on_loop(wait: Wait[T], loop: asyncio.AbstractEventLoop) -> concurrent.futures.Future[T]:
    """Start a wait on the recorder's loop, from any thread.

    Raises:
        RecorderClosed: the loop is gone.
    """
    waiting = wait()
    try:
        return asyncio.run_coroutine_threadsafe(waiting, loop)
    except RuntimeError:
        waiting.close()
        raise RecorderClosed(OVERTAKEN) from None


def blocked(future: concurrent.futures.Future[T], timeout_s: float | None) -> T:
    """Block on a wait on the recorder's loop.

    Raises:
        TimeoutError: it is not over yet, and was given up.
        RecorderClosed: the recorder's closing ended it.
    """
    try:
        return future.result(timeout_s)
    except concurrent.futures.CancelledError:
        raise RecorderClosed(OVERTAKEN) from None
    except TimeoutError:
        future.cancel()
        raise


async def awaited(future: concurrent.futures.Future[T]) -> T:
    """Await a wait on the recorder's loop; one that its closing ended raises `RecorderClosed`."""
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():  # it is the caller that was cancelled
            raise
        raise RecorderClosed(OVERTAKEN) from None


def not_durable(pipelines: Mapping[str, TablePipeline], state: str, timeout_s: float | None) -> NotDurable:
    """What to raise when rows are not `state` (durable, queryable) in time: names the tables and how many."""
    under_way = {
        name: pipeline.queue.waiting_rows + pipeline.flying_rows for name, pipeline in pipelines.items()
    }
    waiting = [
        f"{name} {rows} rows" + (f" (held: {why})" if (why := pipelines[name].why_held) else "")
        for name, rows in under_way.items()
        if rows
    ]
    return NotDurable(
        f"not all rows are {state} after {timeout_s} s; still on their way: {', '.join(waiting)}"
    )
