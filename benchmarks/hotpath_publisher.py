"""`recorder bench hotpath --publisher`: what publishing costs a trading process whose recorder is another one.

The producer of `hotpath_sides`, one message of several rows a step: without a publisher and with one, in turn. The
other end is the whole service (`recorder run` into a dev server), or with `--drain` a bare subscription that
acknowledges: then what is measured is the publisher alone. It runs through both sides.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import cores
from benchmarks.cores import Cores
from benchmarks.gcstate import gc_state
from benchmarks.hotpath_sides import WITH, WITHOUT, Quantiles, Side
from benchmarks.machine import describe_machine
from benchmarks.report import Report, Section, Verdict, count, row_of_quantiles, within
from benchmarks.rows import make_reel
from benchmarks.service_processes import running
from benchmarks.service_run import messages
from benchmarks.stats import QUANTILES, Spread, differences, quantiles, spread
from benchmarks.steps import Producer, no_recorder, timer_cost_ns, without_timer
from recorder import Publisher

CALL_TARGET_S = 100e-6
LATENESS_TARGET_S = 100e-6
WARM_UP_S = 1.0
FLUSH_S = 60.0


@dataclass(frozen=True)
class PublisherResult:
    """Both sides, and what became of the messages."""

    sides: Mapping[str, Side]
    timer_ns: float
    offered: int
    stats: Sequence[Mapping[str, int]]

    def added(self, quantile: str) -> Spread:
        """How much later the producer is with a publisher, in seconds."""
        return differences(
            self.sides[WITH].of("lateness", quantile), self.sides[WITHOUT].of("lateness", quantile)
        )

    def problems(self) -> list[str]:
        """Where counts do not agree; empty when all do."""
        return [
            f"offered {self.offered}, {dict(stats)}"
            for stats in self.stats
            if stats["accepted"] + stats["shed"] != self.offered or stats["acked"] != stats["accepted"]
        ]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "timer_ns": self.timer_ns,
            "offered_messages": self.offered,
            "publishers": [dict(stats) for stats in self.stats],
            "problems": self.problems(),
            "sides": {name: side.as_dict() for name, side in self.sides.items()},
            "added_lateness_s": {quantile: self.added(quantile).as_dict() for quantile in QUANTILES},
        }


def message_producer(
    tables: Sequence[str], rows_per_s: float, rows_a_message: int, template: Producer
) -> Producer:
    """A producer of messages instead of rows, which waits and collects garbage as another one does.

    The rows of a message are made, each value of them, when the step before it is over, since a trading process
    publishes what it has just made: out of a stock of megabytes the values would come from main memory, in the call
    that is measured.
    """
    made = itertools.islice(messages(make_reel(tables, rows_per_s), rows_a_message), 2_000)
    stock = [(topic, pickle.dumps(rows)) for topic, rows in made]
    return Producer(stock, rows_per_s / rows_a_message, template.wait, template.collector, pickle.loads)


@contextlib.contextmanager
def bare_drain(folder: Path) -> Iterator[str]:
    """A subscription in a process of its own that acknowledges what comes; its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bus_drain", f"zmq://{folder / 'bus.sock'}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield str(json.loads(process.stdout.readline())["url"])
    finally:
        process.communicate()


@contextlib.contextmanager
def whole_service(folder: Path) -> Iterator[str]:
    """A dev server and `recorder run`; the URL of its bus."""
    with running(folder, {"RECORDER_TABLES__BOOK_DELTAS__ENABLED": "true"}) as service:
        yield service.bus_url


def run_publisher(
    url: str, producer: Producer, *, seconds_: float, rounds: int, shared: Cores | None = None
) -> PublisherResult:
    """Measure both sides in turn. Everything else already keeps off the producer's core."""
    own, rest = (shared.own, shared.rest) if shared else ((), ())
    timer_ns = timer_cost_ns()
    skip = int(min(WARM_UP_S, seconds_ / 4) * producer.rate)
    steps = skip + max(1, int(seconds_ * producer.rate))
    found: dict[str, tuple[list[Quantiles], list[Quantiles]]] = {name: ([], []) for name in (WITHOUT, WITH)}
    stats: list[Mapping[str, int]] = []
    for _ in range(rounds):
        for name in (WITHOUT, WITH):
            with contextlib.ExitStack() as stack:
                record: Any = no_recorder
                if name == WITH:
                    publisher = stack.enter_context(
                        Publisher(url, name="bench", close_timeout_s=0, outlive_s=0, cpus=rest)
                    )
                    record = publisher.publish
                    topic, first = producer.rows[0]
                    record(topic, pickle.loads(first))
                    publisher.flush(FLUSH_S)  # connected and answered: what is measured is not its beginning
                with gc_state(producer.collector), cores.on(own):
                    taken = producer.take(record, steps=steps, skip=skip)
                if name == WITH:
                    publisher.flush(FLUSH_S)
                    stats.append({field: getattr(publisher.stats(), field) for field in FIELDS})
            found[name][0].append(quantiles(without_timer(taken.costs, timer_ns)))
            found[name][1].append(quantiles(taken.lateness))
    offered = 1 + steps  # the first one is not measured
    return PublisherResult({name: Side(*lists) for name, lists in found.items()}, timer_ns, offered, stats)


FIELDS = ("accepted", "sent", "acked", "waiting", "shed")


def publisher_report(result: PublisherResult, engine: str, what: str, conditions: str) -> Report:
    """The runs as people and programs read them."""
    labels = ("p50", "p99", "p99.9", "max")

    def rows(of: str) -> list[list[str]]:
        return [
            row_of_quantiles(name, {quantile: spread(side.of(of, quantile)) for quantile in QUANTILES})
            for name, side in result.sides.items()
        ]

    added = [row_of_quantiles(WITH, {quantile: result.added(quantile) for quantile in QUANTILES})]
    problems = result.problems()
    return Report(
        "hotpath --publisher",
        what,
        conditions,
        describe_machine(engine),
        [
            Section(
                "A call of publish()",
                ("", *labels),
                rows("costs"),
                f"The clock's own {result.timer_ns:.0f} ns are taken off. Without a publisher: an empty function.",
            ),
            Section("Lateness of a step", ("", *labels), rows("lateness")),
            Section(
                "Added lateness",
                ("", *labels),
                added,
                "Differences within a round: medians, and of p99.9 (least…most).",
            ),
            Section(
                "Messages",
                ("", *FIELDS),
                [
                    [str(n + 1), *(count(one[field]) for field in FIELDS)]
                    for n, one in enumerate(result.stats)
                ],
            ),
        ],
        [
            within("publish() p99.9", spread(result.sides[WITH].of("costs", "p999")), CALL_TARGET_S),
            within("added lateness p99.9", result.added("p999"), LATENESS_TARGET_S),
            Verdict("counts agree, all acknowledged", "; ".join(problems) or "all", "all", not problems),
        ],
        result.as_dict(),
    )
