"""Handles: clients of the driver, each with the one thread that uses it.

A client serves one call at a time, so calls that must not wait for each other need handles of their own. A
handle whose call hangs is simply busy: the others go on, and new ones are opened up to `limit`. What is waiting
for a handle has not been sent and can be withdrawn.

Threads are daemons: a call that cannot be ended must not keep the process from exiting.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from clickhouse_connect.driver.client import Client

from recorder.sink.errors import SinkUnavailable

T = TypeVar("T")
CLOSED = "the sink is closed; start a new one"
_Job = tuple["Future[Any]", Callable[[Client], Any]]


class Handles:
    """Runs calls on up to `limit` clients, opened as they are needed, oldest call first."""

    def __init__(self, name: str, open_client: Callable[[], Client], limit: int):
        self._name = name
        self._open_client = open_client
        self._limit = limit
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._free = 0  # threads waiting for a job, less the jobs put for them
        self._closed = False

    @property
    def limit(self) -> int:
        """How many there may be."""
        return self._limit

    @property
    def opened(self) -> int:
        """How many handles there are."""
        return len(self._threads)

    def submit(self, work: Callable[[Client], T]) -> Future[T]:
        """Run `work` on a handle; the future is running once a handle took it, and can be cancelled before.

        Raises:
            SinkUnavailable: the sink is closed.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise SinkUnavailable(CLOSED)
            self._jobs.put((future, work))
            if self._free > 0 or len(self._threads) == self._limit:
                self._free -= 1
            else:
                thread = threading.Thread(
                    target=self._serve, name=f"sink-{self._name}-{len(self._threads)}", daemon=True
                )
                self._threads.append(thread)
                thread.start()
        return future

    def close(self) -> None:
        """Take no more calls; what waits for a handle fails, and each handle closes after its running call."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            while not self._jobs.empty():
                job = self._jobs.get()
                if job is not None and job[0].set_running_or_notify_cancel():
                    job[0].set_exception(SinkUnavailable(CLOSED))
            for _ in self._threads:
                self._jobs.put(None)

    def join(self, timeout_s: float) -> int:
        """Wait until the handles are closed; how many are not after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        return sum(thread.is_alive() for thread in self._threads)

    def _serve(self) -> None:
        """One handle's life: open at the first call, serve, close."""
        client: Client | None = None
        while (job := self._jobs.get()) is not None:
            future, work = job
            if future.set_running_or_notify_cancel():
                try:
                    if client is None:
                        client = self._open_client()
                    result = work(client)
                except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the future
                    self._become_free()
                    future.set_exception(error)
                    del error
                else:
                    self._become_free()
                    future.set_result(result)
                    del result
            else:
                self._become_free()
            del job, future, work  # or the last batch would live until the next call
        if client is not None:
            client.close()

    def _become_free(self) -> None:
        with self._lock:
            self._free += 1


def join(pools: Sequence[Handles], timeout_s: float) -> int:
    """Wait for all of them together; how many handles are still open after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    return sum(handles.join(max(0.0, deadline_s - time.monotonic())) for handles in pools)


async def ended(call: Future[Any], timeout_s: float | None) -> bool:
    """Wait for a call without cancelling it; whether it ended in time."""
    waiting = asyncio.wrap_future(call)
    waiting.add_done_callback(_seen)
    done, _ = await asyncio.wait({waiting}, timeout=timeout_s)
    return bool(done)


def _seen(waiting: asyncio.Future[Any]) -> None:
    """Mark an error as seen: it is taken from the call itself, and a call given up has nobody to take it."""
    if not waiting.cancelled():
        waiting.exception()
