"""The hot path without a recorder, with one, and with one that has `switch_interval_s` set, in turn.

*Added lateness* is the difference of a quantile within a round: what the producer's loop lost to the recorder, between
its calls too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import rig
from benchmarks.gcstate import gc_state
from benchmarks.machine import describe_machine
from benchmarks.report import Report, Section, row_of_quantiles, within
from benchmarks.stats import QUANTILES, Spread, differences, quantiles, spread
from benchmarks.steps import Producer, Steps, no_recorder, timer_cost_ns, without_timer
from recorder import Recorder
from recorder.settings import Settings

P50_TARGET_S = 1e-6
P999_TARGET_S = 10e-6
LATENESS_TARGET_S = 1e-3
WARM_UP_S = 1.0
NS = 1e-9

WITHOUT, WITH, SWITCHED = "without", "with", "with, switched"
Quantiles = Mapping[str, float]
SettingsOf = Callable[[str, float | None], Settings]
"""The settings of a run, by its database and its switch interval in seconds."""


@dataclass(frozen=True)
class Side:
    """One side's quantiles, round by round, in ns."""

    costs: Sequence[Quantiles]
    lateness: Sequence[Quantiles]

    def of(self, what: str, quantile: str) -> list[float]:
        """One quantile of `costs` or `lateness`, round by round, in seconds."""
        return [found[quantile] * NS for found in getattr(self, what)]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            f"{what}_s": {name: spread(self.of(what, name)).as_dict() for name in QUANTILES}
            for what in ("costs", "lateness")
        }


@dataclass(frozen=True)
class HotpathResult:
    """All sides, and the timer's cost that was taken off the calls'."""

    sides: Mapping[str, Side]
    timer_ns: float

    def added(self, side: str, quantile: str) -> Spread:
        """How much later the producer is with a recorder, in seconds."""
        return differences(
            self.sides[side].of("lateness", quantile), self.sides[WITHOUT].of("lateness", quantile)
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "timer_ns": self.timer_ns,
            "sides": {name: side.as_dict() for name, side in self.sides.items()},
            "added_lateness_s": {
                name: {quantile: self.added(name, quantile).as_dict() for quantile in QUANTILES}
                for name in (WITH, SWITCHED)
            },
        }


def run_sides(
    settings: SettingsOf, producer: Producer, *, seconds_: float, rounds: int, switch_interval_s: float
) -> HotpathResult:
    """Measure the three sides in turn."""
    timer_ns = timer_cost_ns()
    skip = int(min(WARM_UP_S, seconds_ / 4) * producer.rate)
    steps = skip + max(1, int(seconds_ * producer.rate))

    def one(switch: float | None, with_recorder: bool, database: str) -> Steps:
        if not with_recorder:
            with gc_state(producer.collector):
                return producer.take(no_recorder, steps=steps, skip=skip)
        own = settings(database, switch)
        with Recorder(own) as recorder:
            recorder.flush(60)
            with gc_state(producer.collector):
                taken = producer.take(recorder.record, steps=steps, skip=skip)
        # The next side must not run beside the merges of this one.
        rig.ask(own, {"": f"DROP DATABASE {database} SYNC"})
        return taken

    found: dict[str, tuple[list[Quantiles], list[Quantiles]]] = {
        name: ([], []) for name in (WITHOUT, WITH, SWITCHED)
    }
    for turn in range(rounds):
        for number, (name, switch) in enumerate(
            ((WITHOUT, None), (WITH, None), (SWITCHED, switch_interval_s))
        ):
            taken = one(switch, name != WITHOUT, f"bench_{turn}_{number}")
            found[name][0].append(quantiles(without_timer(taken.costs, timer_ns)))
            found[name][1].append(quantiles(taken.lateness))
    return HotpathResult({name: Side(*lists) for name, lists in found.items()}, timer_ns)


def sides_report(result: HotpathResult, settings: Settings, what: str, conditions: str) -> Report:
    """The runs as people and programs read them."""
    labels = ("p50", "p99", "p99.9", "max")

    def rows(what_: str) -> list[list[str]]:
        return [
            row_of_quantiles(name, {quantile: spread(side.of(what_, quantile)) for quantile in QUANTILES})
            for name, side in result.sides.items()
        ]

    added = [
        row_of_quantiles(name, {quantile: result.added(name, quantile) for quantile in QUANTILES})
        for name in (WITH, SWITCHED)
    ]
    called = result.sides[SWITCHED]
    return Report(
        "hotpath",
        what,
        conditions,
        describe_machine(rig.engine_version(settings)),
        [
            Section(
                "A call of record()",
                ("", *labels),
                rows("costs"),
                f"The clock's own {result.timer_ns:.0f} ns are taken off. Without a recorder: an empty function.",
            ),
            Section("Lateness of a step", ("", *labels), rows("lateness")),
            Section(
                "Added lateness",
                ("", *labels),
                added,
                "Differences within a round: medians, and of p99.9 (least…most). Switched: switch_interval_s set.",
            ),
        ],
        [
            within("record() p50", spread(called.of("costs", "p50")), P50_TARGET_S),
            within("record() p99.9", spread(called.of("costs", "p999")), P999_TARGET_S),
            within(
                "added lateness p99.9, switch interval set", result.added(SWITCHED, "p999"), LATENESS_TARGET_S
            ),
        ],
        result.as_dict(),
    )
