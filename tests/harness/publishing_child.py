"""The process of `PublishingProcess`."""

from __future__ import annotations

import json
import sys
import threading
import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from recorder import Publisher

from .publishing import FLUSH_S, Calls

STEP_S = 0.001
MOST_BEHIND_S = 0.2
"""A producer that the machine has held up for longer leaves out what it missed."""


class Load:
    """Publishes at a rate until told to stop."""

    def __init__(self, publisher: Publisher, rows_per_s: float, size: int):
        self.publisher = publisher
        self.offered_messages = 0
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
        began = time.monotonic()
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

    def _publish(self, number: int) -> None:
        size = self._size
        rows = [
            {
                "client_order_id": str(row),
                "symbol": "A",
                "status": "Open",
                "qty": 1,
                "ts_local": time.time_ns(),
            }
            for row in range(number * size, (number + 1) * size)
        ]
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
        }  # fmt: skip
        print(json.dumps(told), flush=True)
    load.stopped.set()
    thread.join()
    publisher.close(0)


if __name__ == "__main__":
    main()
