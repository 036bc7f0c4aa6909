"""The event loop of the recorder's thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class _Threads(concurrent.futures.ThreadPoolExecutor):
    """The loop's threads. The standard ones take no more work once the interpreter exits, and closing needs some."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        """As the base class; at the interpreter's exit on a thread of its own."""
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError:
            future: concurrent.futures.Future[T] = concurrent.futures.Future()

            def work() -> None:
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:  # noqa: BLE001 - it belongs to who waits for the future
                    future.set_exception(error)

            threading.Thread(target=work, daemon=True).start()
            return future


def new_loop() -> asyncio.AbstractEventLoop:
    """A loop, the fastest there is, whose threads serve until the very end."""
    loop: asyncio.AbstractEventLoop
    try:
        import uvloop
    except ImportError:
        loop = asyncio.new_event_loop()
    else:
        loop = uvloop.new_event_loop()
    loop.set_default_executor(_Threads())
    return loop
