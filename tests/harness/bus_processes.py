"""A recorder's end of a bus, and a publisher, in processes of their own: to be killed.

`SubscriberProcess` takes messages, writes each down as a line and acknowledges it only then, as a recorder does with
rows and its log. `PublisherProcess` publishes numbers until it is told to stop or killed.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import Any, Self

TESTS = pathlib.Path(__file__).parents[1]
START_S = 30.0


@dataclass(frozen=True)
class Taken:
    """One message as a subscriber wrote it down."""

    log: int
    position: int
    redelivered: bool
    number: int


class _Process:
    def __init__(self, *arguments: str):
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            cwd=TESTS.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def answer(self) -> Any:
        """Its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process has ended"
        return json.loads(line)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def finish(self) -> Any:
        """End its input; its last line."""
        out, _ = self._process.communicate(timeout=START_S)
        lines = out.splitlines()
        return json.loads(lines[-1]) if lines else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class SubscriberProcess(_Process):
    """Writes what it takes to `file`. Its last line is the number of messages shed that it heard of."""

    def __init__(self, url: str, file: pathlib.Path, *, window_messages: int = 8_192):
        self.file = file
        super().__init__("subscribe", url, str(file), str(window_messages))
        self.url = str(self.answer())


def taken(file: pathlib.Path) -> list[Taken]:
    """What was written down, whole lines only: the last one may be cut off by a kill."""
    if not file.exists():
        return []
    return [
        Taken(*json.loads(line)) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")
    ]


class PublisherProcess(_Process):
    """Publishes numbers from 0 on at a rate. Its last line are its stats. How many it has published, all of them taken,
    is in memory that outlives it."""

    def __init__(self, url: str, *, name: str = "child", rate: float = 2_000.0):
        with tempfile.NamedTemporaryFile() as file:
            file.write(bytes(8))
            file.flush()
            self._published = mmap.mmap(file.fileno(), 8)
            super().__init__("publish", url, name, str(rate), file.name)
            self.answer()

    @property
    def published(self) -> int:
        return int.from_bytes(self._published, "little")


def until(condition: Any, patience_s: float = 60.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.01)


async def _subscribe(url: str, path: str, window: str) -> None:
    from recorder.bus.open import open_subscription
    from recorder.bus.options import BusOptions

    subscription = open_subscription(url, BusOptions(window_messages=int(window)))
    await subscription.start()
    print(json.dumps(subscription.name), flush=True)
    with open(path, "a") as file:  # noqa: ASYNC230 - nothing else runs here

        async def take() -> None:
            async for messages in subscription.messages():
                file.write(
                    "".join(
                        json.dumps([m.log, m.position, m.redelivered, int(m.payload)]) + "\n"
                        for m in messages
                    )
                )
                file.flush()
                await subscription.ack(messages)

        taking = asyncio.create_task(take())
        await asyncio.to_thread(sys.stdin.read)
        shed = sum(n.messages for n in subscription.take_notices() if n.kind == "bus_overflow")
        await subscription.close()
        await taking
    print(json.dumps(shed), flush=True)


def _publish(url: str, name: str, rate: str, path: str) -> None:
    from recorder import Publisher

    with open(path, "r+b") as file:
        published = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")
    print(json.dumps("opened"), flush=True)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    with Publisher(url, name=name) as publisher:
        start, number = time.monotonic(), 0
        while not ended.is_set():
            while number < (time.monotonic() - start) * float(rate):
                assert publisher.publish_raw("t", str(number).encode())
                published[0] = number = number + 1
            time.sleep(0.001)
        publisher.flush(START_S)
        stats = publisher.stats()
    print(json.dumps({"accepted": stats.accepted, "acked": stats.acked, "shed": stats.shed}), flush=True)


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    if command == "subscribe":
        asyncio.run(_subscribe(*rest))
    else:
        _publish(*rest)
