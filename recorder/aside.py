"""Calls that a hung disk may never let return, beside the event loop: each on a thread of its own, that nobody has to
wait for.

`asyncio.to_thread` has few threads for everybody: calls that hang take them all, also from who closes, and the loop and
the interpreter wait at their end until the last of them has come back.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


async def aside(call: Callable[..., T], *args: Any) -> T:
    """As `asyncio.to_thread`, on a thread of its own. Cancelled, it leaves the call to that thread."""
    return await asyncio.wrap_future(begun(partial(contextvars.copy_context().run, call, *args)))


def begun(call: Callable[[], T]) -> concurrent.futures.Future[T]:
    """A call on a thread of its own, which the interpreter does not wait for at its end."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    future.set_running_or_notify_cancel()  # it can be left, and not be stopped

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it belongs to who waits
            future.set_exception(error)

    threading.Thread(target=work, name="recorder-aside", daemon=True).start()
    return future
