"""The event loop of the recorder's thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from recorder.aside import begun

T = TypeVar("T")


class _Threads(concurrent.futures.ThreadPoolExecutor):
    """The loop's threads. The standard ones take no more work once the interpreter exits, and closing needs some."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        """As the base class; at the interpreter's exit on a thread of its own."""
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError:
            return begun(partial(fn, *args, **kwargs))


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
