"""Rows at a steady rate through the whole service: publisher, bus, recorder and server in processes of their own.

Open loop, as `load_run`. Two waits are measured. A row's *lag*, by the recorder, from its acceptance to its being
queryable. And from `publish()` to the acknowledgement, by the publisher: a count of messages taken is noted every few
milliseconds, with the moment at which as many were acknowledged. The second has the bus and all queues in it.
"""

from __future__ import annotations

import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import rig
from benchmarks.rows import make_reel
from benchmarks.service_processes import ServiceProcesses, cpu_of, running
from benchmarks.stats import Nanoseconds, quantiles
from recorder import Publisher, Settings
from recorder.own_rows import OWN_TABLES
from recorder.simulate.pace import Phase, Schedule, drive
from recorder.simulate.reel import Reel
from schemas.core.tables import PACK

DRAIN_S = 60.0
SAMPLE_S = 0.005

Message = tuple[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class ServiceResult:
    """What came of a run. Durations in seconds."""

    offered_rows: Counter[str]
    elapsed_s: float
    drain_s: float
    publish: Mapping[str, float]
    lateness_max_s: float
    acked: Mapping[str, float]
    shed_messages: int
    status: Mapping[str, Any]
    stored: Mapping[str, rig.Stored]
    cpu_s: Mapping[str, float]
    rss_bytes: Mapping[str, int]

    def problems(self) -> list[str]:
        """Where counts do not agree; empty when all do."""
        found = []
        for table, balance in self.status["balance"].items():
            accounted = sum(count for name, count in balance.items() if name != "received")
            if balance["received"] != accounted or (balance["pending"] and table not in OWN_TABLES):
                found.append(f"{table}: balance {balance}")
            offered, stored = self.offered_rows[table], self.stored[table]
            if table in OWN_TABLES:
                continue  # the recorder writes rows of its own into them, up to its end
            if balance["received"] != offered:
                found.append(f"{table}: offered {offered}, received {balance['received']}")
            if stored.rows != balance["inserted"]:
                found.append(f"{table}: inserted {balance['inserted']}, in the database {stored.rows}")
        found += [
            f"{table}: {stored.rows - stored.identities} rows are there twice"
            for table, stored in self.stored.items()
            if stored.rows != stored.identities
        ]
        return found

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "elapsed_s": self.elapsed_s,
            "drain_s": self.drain_s,
            "publish_s": dict(self.publish),
            "lateness_max_s": self.lateness_max_s,
            "acked_s": dict(self.acked),
            "shed_messages": self.shed_messages,
            "problems": self.problems(),
            "cpu_s": dict(self.cpu_s),
            "rss_bytes": dict(self.rss_bytes),
            "tables": {
                table: {
                    **balance,
                    "offered_rows": self.offered_rows[table],
                    "stored_rows": self.stored[table].rows,
                    "lag": self.status["tables"][table]["lag"],
                }
                for table, balance in self.status["balance"].items()
            },
        }

    @property
    def shed_rows(self) -> int:
        """Rows the recorder shed."""
        return sum(balance["shed"] for balance in self.status["balance"].values())


def messages(reel: Reel, rows_a_message: int) -> Iterator[Message]:
    """A reel's rows, without end, so many of one table in a message."""
    names = {table.name: tuple(column.name for column in table.columns) for table in PACK.tables}
    waiting: dict[str, list[dict[str, Any]]] = {table: [] for table in reel.rows}
    for table, row in reel.events(time.time_ns()):
        rows = waiting[table]
        named = zip(names[table], row, strict=False)
        rows.append({name: value for name, value in named if value is not None})
        if len(rows) == rows_a_message:
            waiting[table] = []
            yield table, rows


class AckWatch:
    """Measures how long messages wait to be acknowledged: `look` between the calls of `publish`, on their thread.

    A thread of its own would need the interpreter's lock for each look, and make the calls late that are measured.
    """

    def __init__(self, publisher: Publisher):
        self._publisher = publisher
        self._waits: list[float] = []
        self._marks: deque[tuple[float, int]] = deque()
        self._next_s = 0.0

    def look(self) -> None:
        """Note which of the marked messages were acknowledged, and mark the last one; every `SAMPLE_S` at most."""
        now = time.perf_counter()
        if now < self._next_s:
            return
        self._next_s = now + SAMPLE_S
        stats = self._publisher.stats()
        while self._marks and self._marks[0][1] <= stats.acked:
            began, _ = self._marks.popleft()
            self._waits.append(now - began)
        if stats.waiting and (not self._marks or self._marks[-1][1] != stats.accepted):
            self._marks.append((now, stats.accepted))

    def drain(self, timeout_s: float) -> bool:
        """Flush, looking meanwhile; whether all was acknowledged in time."""
        end = time.perf_counter() + timeout_s
        done = False
        while not done and time.perf_counter() < end:
            done = self._publisher.flush(SAMPLE_S)
            self.look()
        return done

    def waits(self) -> Mapping[str, float]:
        """Quantiles of the waits so far, in seconds."""
        if not self._waits:
            return {}
        return _seconds(np.array(self._waits) * 1e9)


def _seconds(found: Any) -> Mapping[str, float]:
    taken: Nanoseconds = np.asarray(found, dtype=np.int64)
    return {name: value / 1e9 for name, value in quantiles(taken).items()}


def timed(publisher: Publisher, costs: array[int], watch: AckWatch) -> Callable[[str, Any], bool]:
    """`publish`, each call's duration noted in ns."""
    publish, now, look = publisher.publish, time.perf_counter_ns, watch.look

    def record(topic: str, rows: Any) -> bool:
        before = now()
        taken = publish(topic, rows)
        costs.append(now() - before)
        look()
        return taken

    return record


def run_service(
    folder: Path, tables: Sequence[str], *, rows_per_s: float, rows_a_message: int, seconds: float
) -> ServiceResult:
    """Start a service, publish for so long, wait until all is acknowledged, stop it, and count.

    Raises:
        ProcessFailed: a part of the service failed.
    """
    schedule = Schedule((Phase(rows_per_s / rows_a_message, seconds),))
    costs: array[int] = array("q")
    reel = make_reel(tables, rows_per_s)
    with running(folder, {"RECORDER_TABLES__BOOK_DELTAS__ENABLED": "true"}) as service:
        parts = {"server": service.server, "recorder": service.recorder}
        with Publisher(service.bus_url, name="bench") as publisher:

            def cpu_s() -> dict[str, float]:
                found = {name: part.cpu_s() for name, part in parts.items()}
                return found | {"sender": cpu_of(publisher.sender_pid), "publisher": time.process_time()}

            before = cpu_s()
            watch = AckWatch(publisher)
            sent = drive(messages(reel, rows_a_message), timed(publisher, costs, watch), schedule)
            for progress in sent:  # noqa: B007 - its last value is what was sent
                service.recorder.check()
            drain_began = time.perf_counter()
            drained = watch.drain(DRAIN_S)
            if drained:
                service.drained(DRAIN_S)
            drain_s = time.perf_counter() - drain_began
            after = cpu_s()
            stats = publisher.stats()
            if not drained:
                raise TimeoutError(
                    f"{stats.waiting} messages are not acknowledged {DRAIN_S:g} s after the last"
                )
        status = service.status()
        rss = {name: part.rss_bytes() for name, part in parts.items()}
        stored = _stored(service, folder)
    offered = Counter({table: count * rows_a_message for table, count in progress.accepted.items()})
    return ServiceResult(
        offered_rows=offered,
        elapsed_s=progress.elapsed_s,
        drain_s=drain_s,
        publish=_seconds(costs),
        lateness_max_s=progress.max_lateness_s,
        acked=watch.waits(),
        shed_messages=stats.shed,
        status=status,
        stored=stored,
        cpu_s={name: after[name] - before[name] for name in after},
        rss_bytes=rss,
    )


def _stored(service: ServiceProcesses, folder: Path) -> dict[str, rig.Stored]:
    settings = Settings(target=service.target, data_dir=str(folder / "asking"))
    return rig.stored(settings, list(service.status()["balance"]))
