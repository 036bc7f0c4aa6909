"""The process of `PublishingProcess`."""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from recorder import Publisher

from .publishing import FLUSH_S, NS_A_ROW, Calls

STEP_S = 0.001
MOST_BEHIND_S = 0.2
"""A producer that the machine has held up for longer leaves out what it missed."""


def row(number: int, first_ns: int) -> dict[str, Any]:
    """A row that all follows from its number; `Published.wrong_rows` says the same to the database."""
    return {
        "client_order_id": str(number),
        "symbol": f"S{number % 7}",
        "status": "Open",
        "qty": f"{number}.000000000000000001",
        "ts_local": first_ns + number * NS_A_ROW,
    }


def jumping_clock(jump_s: float) -> Callable[[], int]:
    """The time in nanoseconds, on a clock that somebody sets back and forth, ten times a second."""
    real, calls = time.time_ns, itertools.count()
    return lambda: real() + int((next(calls) // 100 % 3 - 1) * jump_s * 1e9)


class Load:
    """Publishes at a rate until told to stop."""

    def __init__(self, publisher: Publisher, rows_per_s: float, size: int):
        self.publisher = publisher
        self.offered_messages = 0
        self.jumps = False
        self.seconds = 0.0
        self.first_ns = time.time_ns()
        self.shed: list[int] = []
        self.stopped = threading.Event()
        self.phase("start")
        self._size = size
        self._messages_per_s = rows_per_s / size

    def phase(self, name: str) -> None:
        """Measure under this name from now on."""
        if not hasattr(self, "phases"):
            self.phases: dict[str, tuple[array[int], array[int]]] = {}
        self._clock, self._cpu = self.phases.setdefault(name, (array("q"), array("q")))

    def run(self) -> None:
        """Publish until stopped."""
        began = started = time.monotonic()
        while not self.stopped.wait(STEP_S):
            now = time.monotonic()
            due = int((now - began) * self._messages_per_s)
            most = int(MOST_BEHIND_S * self._messages_per_s) + 1
            if due - self.offered_messages > most:
                due = self.offered_messages + most
                began = now - due / self._messages_per_s
            while self.offered_messages < due:
                self._publish(self.offered_messages)
                self.offered_messages += 1
            self.seconds = time.monotonic() - started

    def _publish(self, number: int) -> None:
        size = self._size
        rows = [row(n, self.first_ns) for n in range(number * size, (number + 1) * size)]
        if self.jumps:
            for one in rows:
                del one["ts_local"]
        cpu, clock = time.thread_time_ns(), time.perf_counter_ns()
        taken = self.publisher.publish("orders", rows)
        took = time.perf_counter_ns() - clock
        self._cpu.append(time.thread_time_ns() - cpu)
        self._clock.append(took)
        if not taken:
            self.shed.append(number)


def calls_of(clock: Sequence[int], cpu: Sequence[int]) -> Calls:
    """In microseconds."""
    if not clock:
        return Calls(0, 0, 0, 0, 0)
    us, cpu_us = np.asarray(clock) / 1_000, np.asarray(cpu) / 1_000
    p50, p999 = np.quantile(us, [0.5, 0.999])
    return Calls(len(us), float(p50), float(p999), float(us.max()), float(np.quantile(cpu_us, 0.999)))


def main() -> None:
    """Publish, and obey stdin."""
    said: dict[str, Any] = json.loads(sys.argv[1])
    size = said["rows_a_message"]
    publisher = Publisher(said["url"], **said["options"])
    load = Load(publisher, said["rows_per_s"], size)
    if jump_s := said["clock_jump_s"]:
        load.jumps = True
        time.time_ns = jumping_clock(jump_s)  # each message's time, and of its rows, which say none
    thread = threading.Thread(target=load.run)
    thread.start()
    for line in sys.stdin:
        word, _, name = line.strip().partition(" ")
        if word == "phase":
            load.phase(name)
            continue
        load.stopped.set()
        thread.join()
        acknowledged = publisher.flush(FLUSH_S)
        told = {
            "offered": load.offered_messages * size, "rows_a_message": size, "shed": load.shed,
            "calls": {name: asdict(calls_of(*found)) for name, found in load.phases.items()},
            "acknowledged": acknowledged, "stats": asdict(publisher.stats()),
            "seconds": load.seconds, "first_ns": load.first_ns,
        }  # fmt: skip
        print(json.dumps(told), flush=True)
    load.stopped.set()
    thread.join()
    publisher.close(0)


if __name__ == "__main__":
    main()
