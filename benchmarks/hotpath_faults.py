"""The publishing process while the server behind the recorder fails: calls stay as cheap, the memory of all within
its bounds, and afterwards every row that was taken is in the database once, or in a gap row.

The troubles of `faulty_server` come one after the other, each with a while of peace after it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import cores, rig
from benchmarks.cores import Cores
from benchmarks.faulty_server import TROUBLES, FaultyServer
from benchmarks.gcstate import gc_state
from benchmarks.hotpath_sides import NS, Quantiles
from benchmarks.machine import describe_machine
from benchmarks.memory import forget_peak, peak_bytes
from benchmarks.report import Report, Section, Verdict, count, mebibytes, seconds, within
from benchmarks.service_processes import recorder_into
from benchmarks.stats import QUANTILES, quantiles
from benchmarks.steps import Producer, timer_cost_ns, without_timer
from recorder import Publisher
from recorder.bus.options import BusOptions
from recorder.own_rows import EVENTS, GAPS, OWN_TABLES
from recorder.settings import Settings

P999_TARGET_S = 100e-6
BUFFER_BYTES = 64 << 20
SLACK_BYTES = 64 << 20
"""What a process may take beside what its bounds allow for waiting rows: work under way, and what malloc keeps."""
DRAIN_S = 120.0
RESTART_S = 5.0
"""What starting the killed server again may take, besides the troubles themselves."""
QUICK = {
    # Short, so that there are several attempts in each trouble.
    "RECORDER_INSERT_TIMEOUT_S": "1",
    "RECORDER_RETRY_MAX_S": "0.5",
    "RECORDER_HOLD_PROBE_S": "0.5",
    "RECORDER_TABLES__BOOK_DELTAS__ENABLED": "true",
}


@dataclass(frozen=True)
class FaultsResult:
    """What calls took before, in each trouble and between them, and where every row is."""

    calls: Mapping[str, Quantiles]
    lateness: Mapping[str, Quantiles]
    timer_ns: float
    drain_s: float
    taken: Mapping[str, int]
    shed_messages: int
    told_messages: int
    balance: Mapping[str, Mapping[str, int]]
    stored: Mapping[str, rig.Stored]
    gap_rows: Mapping[str, int]
    grown_bytes: Mapping[str, int]
    bound_bytes: Mapping[str, int]
    struck: Mapping[str, int]
    engine: str

    def problems(self) -> list[str]:
        """Where counts do not agree, or a trouble was none; empty when all do."""
        found = [f"{kind} struck no statement" for kind, times in self.struck.items() if not times]
        for name, balance in self.balance.items():
            if balance["received"] != sum(rows for where, rows in balance.items() if where != "received"):
                found.append(f"{name}: balance {dict(balance)}")
            there = self.stored.get(name, rig.Stored(0, 0))
            if there.rows != there.identities:
                found.append(f"{name}: {there.rows - there.identities} rows are there twice")
            if name in OWN_TABLES:
                continue  # the recorder writes rows of its own into them, up to its end
            if there.rows + balance["shed"] != self.taken.get(name, 0):
                found.append(
                    f"{name}: {self.taken.get(name, 0)} taken, {there.rows} there, balance {dict(balance)}"
                )
            if balance["shed"] != self.gap_rows.get(name, 0):
                found.append(f"{name}: shed {balance['shed']}, told in gap rows {self.gap_rows.get(name, 0)}")
        if self.shed_messages != self.told_messages:
            found.append(
                f"publisher shed {self.shed_messages} messages, the recorder told {self.told_messages}"
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "timer_ns": self.timer_ns,
            "calls_s": {name: {q: ns * NS for q, ns in found.items()} for name, found in self.calls.items()},
            "lateness_s": {
                name: {q: ns * NS for q, ns in found.items()} for name, found in self.lateness.items()
            },
            "drain_s": self.drain_s,
            "struck_statements": dict(self.struck),
            "shed_messages": self.shed_messages,
            "grown_bytes": dict(self.grown_bytes),
            "bound_bytes": dict(self.bound_bytes),
            "problems": self.problems(),
            "tables": {
                name: {**balance, "stored_rows": self.stored[name].rows if name in self.stored else 0}
                for name, balance in self.balance.items()
            },
        }


class _Timeline:
    """The troubles one after the other, on a thread of its own, and the memory of all processes from the first on."""

    def __init__(
        self,
        server: FaultyServer,
        pids: Mapping[str, int],
        *,
        before_s: float,
        each_s: float,
        gone_s: float,
    ):
        self.periods: list[tuple[str, int, int]] = []
        """Name, begin and end (clock of `perf_counter_ns`) of each."""
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="bench-trouble", daemon=True)
        self._server = server
        self._pids = pids
        self._held: dict[str, int] = {}
        self._before_s, self._each_s, self._gone_s = before_s, each_s, gone_s

    def _run(self) -> None:
        try:
            self._spend("before", self._before_s)
            self._held = {name: forget_peak(pid) for name, pid in self._pids.items()}
            for kind in TROUBLES:
                with self._server.trouble(kind):
                    self._spend(kind, self._gone_s if kind == "gone" else self._each_s)
                self._spend("after", self._each_s)
        except BaseException as error:  # noqa: BLE001 - raised by whoever joins the thread
            self.error = error

    def _spend(self, name: str, length_s: float) -> None:
        began = time.perf_counter_ns()
        time.sleep(length_s)
        self.periods.append((name, began, time.perf_counter_ns()))

    def grown(self) -> dict[str, int]:
        """How much more each process has held since the first trouble began, at most, in bytes."""
        return {name: max(0, peak_bytes(pid) - self._held[name]) for name, pid in self._pids.items()}


def run_faults(
    folder: Path, producer: Producer, *, before_s: float, each_s: float, gone_s: float, shared: Cores
) -> FaultsResult:
    """Publish; let the server fail in every way for `each_s`, and be gone for `gone_s`, with a peace of `each_s` after
    each; drain, and count.

    `producer` hands over messages, each a list of rows, on a core of its own where `shared` has one.

    Raises:
        ProcessFailed: a part of the service failed by itself.
    """
    timer_ns = timer_cost_ns()
    taken: Counter[str] = Counter()
    with (
        cores.on(shared.rest),
        FaultyServer(folder) as troubled,
        recorder_into(troubled.url, folder, QUICK) as recorder,
        Publisher(recorder.bus_url, name="bench", buffer_bytes=BUFFER_BYTES, cpus=shared.rest) as publisher,
    ):
        publish = publisher.publish

        def record(topic: str, rows: Sequence[Any]) -> None:
            if publish(topic, rows):
                taken[topic] += len(rows)

        pids = {
            "publisher": os.getpid(),
            "sender": publisher.sender_pid,
            "recorder": recorder.recorder.process.pid,
        }
        timeline = _Timeline(troubled, pids, before_s=before_s, each_s=each_s, gone_s=gone_s)
        length_s = before_s + each_s * (2 * len(TROUBLES) - 1) + gone_s + RESTART_S
        steps = int(producer.rate * length_s)
        with gc_state(producer.collector):
            timeline.thread.start()
            with cores.on(shared.own):
                began = time.perf_counter_ns()
                found = producer.take(record, steps=steps)
            timeline.thread.join()
        if timeline.error is not None:
            raise timeline.error
        drain_began = time.perf_counter()
        if not publisher.flush(DRAIN_S):
            raise TimeoutError(
                f"{publisher.stats().waiting} messages are not acknowledged after {DRAIN_S:g} s"
            )
        status = recorder.drained(DRAIN_S)
        drain_s = time.perf_counter() - drain_began
        shed = publisher.stats().shed
        grown = timeline.grown()
    with FaultyServer(folder) as server:  # the recorder has closed: its own rows are in
        asking = Settings(target=server.url, data_dir=str(folder / "asking"))
        asked = rig.ask(
            asking,
            {
                "engine": "SELECT version()",
                "gaps": f"SELECT table_name, sum(rows) FROM {GAPS} GROUP BY table_name",
                "told": "SELECT sum(toUInt64OrZero(extract(message, '([0-9]+) messages shed'))) "
                f"FROM {EVENTS} WHERE kind = 'bus_overflow'",
            },
        )
        stored = rig.stored(asking, list(status["balance"]))
    costs = without_timer(found.costs, timer_ns)
    pieces: dict[str, list[slice]] = {}
    for name, begin, end in timeline.periods:
        first, last = (min(steps, max(0, int((at - began) / 1e9 * producer.rate))) for at in (begin, end))
        if last > first:
            pieces.setdefault(name, []).append(slice(first, last))
    return FaultsResult(
        calls={name: _joined(costs, parts) for name, parts in pieces.items()},
        lateness={name: _joined(found.lateness, parts) for name, parts in pieces.items()},
        timer_ns=timer_ns,
        drain_s=drain_s,
        taken=taken,
        shed_messages=shed,
        told_messages=int(asked["told"][0][0] or 0),
        balance=status["balance"],
        stored=stored,
        gap_rows={name: int(rows) for name, rows in asked["gaps"]},
        grown_bytes=grown,
        bound_bytes={
            "publisher": SLACK_BYTES,
            # Its buffer, which it shares with the publisher, fills up only now.
            "sender": BUFFER_BYTES + SLACK_BYTES,
            # What is delivered and what is read ahead, and the rows made of it, which take several times that.
            "recorder": 5 * BusOptions().window_bytes + SLACK_BYTES,
        },
        struck=troubled.struck,
        engine=str(asked["engine"][0][0]),
    )


def _joined(values: Any, parts: Sequence[slice]) -> Quantiles:
    import numpy as np

    return quantiles(np.concatenate([values[part] for part in parts]))


def faults_report(result: FaultsResult, what: str, conditions: str) -> Report:
    """The run as people and programs read it."""
    names = {"before": "before", **TROUBLES, "after": "between and after them"}

    def rows(found: Mapping[str, Quantiles]) -> list[list[str]]:
        return [
            [names[name], *(seconds(values[quantile] * NS) for quantile in QUANTILES)]
            for name, values in sorted(found.items(), key=lambda item: list(names).index(item[0]))
        ]

    labels = ("", "p50", "p99", "p99.9", "max")
    tables = [
        [
            name,
            count(result.taken.get(name, 0)),
            count(result.stored[name].rows if name in result.stored else 0),
            count(balance["shed"]),
            count(result.gap_rows.get(name, 0)),
        ]
        for name, balance in sorted(result.balance.items(), key=lambda item: -item[1]["received"])
        if name not in OWN_TABLES and balance["received"]
    ]
    grown = {name: mebibytes(more) for name, more in result.grown_bytes.items()}
    return Report(
        "hotpath --publisher --faults",
        what,
        conditions,
        describe_machine(result.engine),
        [
            Section(
                "A call of publish()",
                labels,
                rows(result.calls),
                f"The clock's own {result.timer_ns:.0f} ns are taken off.",
            ),
            Section("Lateness of a step", labels, rows(result.lateness)),
            Section(
                "Tables",
                ("table", "taken", "stored", "shed", "in gaps"),
                tables,
                f"All acknowledged {seconds(result.drain_s)} after the last; the publisher "
                f"shed {count(result.shed_messages)} messages. Memory grew by {grown['publisher']} in the publishing "
                f"process, {grown['sender']} in its sender and {grown['recorder']} in the recorder.",
            ),
        ],
        _verdicts(result),
        result.as_dict(),
    )


def _verdicts(result: FaultsResult) -> list[Verdict]:
    problems = result.problems()
    return [
        *(
            within(f"publish() p99.9: {what}", result.calls[kind]["p999"] * NS, P999_TARGET_S)
            for kind, what in TROUBLES.items()
            if kind in result.calls
        ),
        *(
            Verdict(f"memory of the {who} grew by", mebibytes(grown), f"≤ {mebibytes(bound)}", grown <= bound)
            for who, grown in result.grown_bytes.items()
            for bound in (result.bound_bytes[who],)
        ),
        Verdict("counts agree, each row once", "; ".join(problems) or "all", "all", not problems),
    ]
