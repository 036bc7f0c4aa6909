"""`recorder bench hotpath`: what the recorder costs the thread that records.

Two questions. How long does a call of `record()` take? And how much later is a producer's loop because a recorder
works beside it in the process? The second is the harm done: it falls between the calls, when the loop waits for the
interpreter's lock. So an open-loop producer runs without a recorder, with one, and with one that has
`switch_interval_s` set, in turn; *added lateness* is the difference of a quantile within a round.

With `--engine-hangs` one run instead: the engine's inserts hang while rows go on arriving. Calls must stay as cheap,
memory within its bounds, and afterwards every row must be accounted for: in the database once, or in a gap row.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from benchmarks import hang, rig
from benchmarks.gcstate import GcState, gc_state
from benchmarks.machine import describe_machine
from benchmarks.options import (
    check_option,
    gc_option,
    rate_option,
    rounds_option,
    seconds_option,
    switch_interval_option,
    wait_option,
)
from benchmarks.report import (
    Report,
    Section,
    Verdict,
    count,
    mebibytes,
    publish,
    row_of_quantiles,
    seconds,
    spread_of_seconds,
)
from benchmarks.rows import ALL_TABLES, make_rows
from benchmarks.stats import QUANTILES, Nanoseconds, Spread, differences, quantiles, spread
from benchmarks.steps import Steps, Wait, no_recorder, take_steps, timer_cost_ns
from recorder import Recorder
from recorder.balance import Balance
from recorder.cli.options import Invocation, equip, pass_invocation
from recorder.cli.output import note
from recorder.own_rows import GAPS
from recorder.settings import Settings

P50_TARGET_S = 1e-6
P999_TARGET_S = 10e-6
LATENESS_TARGET_S = 1e-3
WARM_UP_S = 1.0
NS = 1e-9

WITHOUT, WITH, SWITCHED = "without", "with", "with, switched"
Quantiles = Mapping[str, float]


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


def without_timer(costs: Nanoseconds, timer_ns: float) -> Nanoseconds:
    """What the calls took beside the clock readings around them."""
    return (costs - int(timer_ns)).clip(min=0)


def run_hotpath(
    settings: Any,
    rows: Sequence[tuple[str, Any]],
    *,
    rate: float,
    seconds_: float,
    rounds: int,
    switch_interval_s: float,
    wait: Wait,
    collector: GcState,
) -> HotpathResult:
    """Measure the three sides in turn. `settings(database, switch_interval_s)` gives those of a run."""
    timer_ns = timer_cost_ns()
    skip = int(min(WARM_UP_S, seconds_ / 4) * rate)
    steps = skip + max(1, int(seconds_ * rate))

    def one(switch: float | None, with_recorder: bool, database: str) -> Steps:
        if not with_recorder:
            with gc_state(collector):
                return take_steps(no_recorder, rows, rate=rate, steps=steps, skip=skip, wait=wait)
        own: Settings = settings(database, switch)
        with Recorder(own) as recorder:
            recorder.flush(60)
            with gc_state(collector):
                taken = take_steps(recorder.record, rows, rate=rate, steps=steps, skip=skip, wait=wait)
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


def report(result: HotpathResult, settings: Settings, what: str, conditions: str) -> Report:
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
    p50, p999 = spread(called.of("costs", "p50")), spread(called.of("costs", "p999"))
    late = result.added(SWITCHED, "p999")
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
            Verdict(
                "record() p50",
                spread_of_seconds(p50),
                f"≤ {seconds(P50_TARGET_S)}",
                p50.median <= P50_TARGET_S,
            ),
            Verdict(
                "record() p99.9",
                spread_of_seconds(p999),
                f"≤ {seconds(P999_TARGET_S)}",
                p999.median <= P999_TARGET_S,
            ),
            Verdict(
                "added lateness p99.9, switch interval set",
                spread_of_seconds(late),
                f"≤ {seconds(LATENESS_TARGET_S)}",
                late.median <= LATENESS_TARGET_S,
            ),
        ],
        {
            "timer_ns": result.timer_ns,
            "sides": {name: side.as_dict() for name, side in result.sides.items()},
            "added_lateness_s": {
                name: {quantile: result.added(name, quantile).as_dict() for quantile in QUANTILES}
                for name in (WITH, SWITCHED)
            },
        },
    )


# -- the engine hangs -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HangResult:
    """What the calls took before, during and after the hang, and where every row is."""

    calls: Mapping[str, Quantiles]
    timer_ns: float
    hang_s: float
    drain_s: float
    offered: Mapping[str, int]
    balance: Mapping[str, Balance]
    stored: Mapping[str, rig.Stored]
    gap_rows: Mapping[str, int]
    rss_before_bytes: int
    peaks: rig.Peaks
    queue_bound_bytes: int

    def problems(self) -> list[str]:
        """Where counts do not agree; empty when all do."""
        found = []
        for name, balance in self.balance.items():
            if not balance.exact or balance.pending:
                found.append(f"{name}: balance {balance.as_dict()}")
            if balance.received < self.offered.get(name, 0):
                found.append(f"{name}: offered {self.offered[name]}, received {balance.received}")
            there = self.stored.get(name, rig.Stored(0, 0))
            if not balance.inserted == there.rows == there.identities:
                found.append(
                    f"{name}: inserted {balance.inserted}, the database has {there.rows}, {there.identities} different"
                )
            if balance.shed != self.gap_rows.get(name, 0) and name != GAPS:
                found.append(f"{name}: shed {balance.shed}, told in gap rows {self.gap_rows.get(name, 0)}")
        return found


def run_hang(
    settings: Settings,
    rows: Sequence[tuple[str, Any]],
    *,
    rate: float,
    before_s: float,
    hang_s: float,
    after_s: float,
    wait: Wait,
    collector: GcState,
) -> HangResult:
    """Record at `rate`; for `hang_s` the engine's inserts hang; then drain, close, and count."""
    timer_ns = timer_cost_ns()
    rss_before = rig.rss_bytes()
    tables = sorted({table for table, _ in rows})
    with Recorder(settings) as recorder:
        recorder.flush(60)
        with rig.Probe(recorder) as probe:
            # A row in every table, so that each has a part for the brake to count.
            for table in tables:
                recorder.record(table, next(row for name, row in rows if name == table))
            recorder.flush(60)
            moments: dict[str, int] = {}

            def engine() -> None:
                time.sleep(before_s)
                hang.hang(recorder, tables, hang_s)
                moments["hung"] = time.perf_counter_ns()
                time.sleep(hang_s)
                hang.release(recorder, tables)
                moments["released"] = time.perf_counter_ns()

            total_s = before_s + hang_s + after_s
            steps = int(rate * total_s)
            trouble = threading.Thread(target=engine, name="bench-trouble")
            with gc_state(collector):
                trouble.start()
                began = time.perf_counter_ns()
                taken = take_steps(recorder.record, rows, rate=rate, steps=steps, wait=wait)
                trouble.join()
            drain_began = time.perf_counter()
            recorder.flush(hang_s * 2 + 120)
            drain_s = time.perf_counter() - drain_began
            peaks = probe.take()
        bound = sum(
            own.queue_bytes + 3 * own.batch_bytes
            for own in (
                settings.for_table(table) for name, table in recorder.tables.items() if name in tables
            )
        )
    balance = recorder.balance()
    gaps = rig.ask(settings, {"": f"SELECT table_name, sum(rows) FROM {GAPS} GROUP BY table_name"})[""]
    costs = without_timer(taken.costs, timer_ns)
    at = [min(steps, int((moments[name] - began) / 1e9 * rate)) for name in ("hung", "released")]
    offered: dict[str, int] = {}
    for step in range(steps):
        name = rows[step % len(rows)][0]
        offered[name] = offered.get(name, 0) + 1
    parts = {"before": costs[: at[0]], "hanging": costs[at[0] : at[1]], "after": costs[at[1] :]}
    return HangResult(
        calls={name: quantiles(part) for name, part in parts.items() if len(part)},
        timer_ns=timer_ns,
        hang_s=hang_s,
        drain_s=drain_s,
        offered=offered,
        balance=balance,
        stored=rig.stored(settings, list(balance)),
        gap_rows={name: int(rows_) for name, rows_ in gaps},
        rss_before_bytes=rss_before,
        peaks=peaks,
        queue_bound_bytes=bound,
    )


def hang_report(result: HangResult, settings: Settings, what: str, conditions: str) -> Report:
    """The run as people and programs read it."""
    shown = [
        [
            name,
            count(balance.received),
            count(balance.inserted),
            count(balance.shed),
            count(result.gap_rows.get(name, 0)),
            count(result.stored[name].rows if name in result.stored else 0),
            count(result.peaks.queue_rows.get(name, 0)),
            "exact" if balance.exact else "WRONG",
        ]
        for name, balance in sorted(result.balance.items(), key=lambda item: -item[1].received)
        if balance.received
    ]
    p999 = result.calls["hanging"]["p999"] * NS if "hanging" in result.calls else 0.0
    grown = max(0, result.peaks.rss_bytes - result.rss_before_bytes)
    problems = result.problems()
    return Report(
        "hotpath --engine-hangs",
        what,
        conditions,
        describe_machine(rig.engine_version(settings)),
        [
            Section(
                "A call of record()",
                ("", "p50", "p99", "p99.9", "max"),
                [
                    [name, *(seconds(found[quantile] * NS) for quantile in QUANTILES)]
                    for name, found in result.calls.items()
                ],
                f"The clock's own {result.timer_ns:.0f} ns are taken off.",
            ),
            Section(
                "Tables",
                ("table", "received", "inserted", "shed", "in gaps", "stored", "queue", "balance"),
                shown,
                f"Drained in {seconds(result.drain_s)} after the last row. RSS was "
                f"{mebibytes(result.rss_before_bytes)} before the recorder started, "
                f"{mebibytes(result.peaks.rss_bytes)} at most; the bounds of queues and batches allow "
                f"{mebibytes(result.queue_bound_bytes)} more.",
            ),
        ],
        [
            Verdict(
                "record() p99.9 while it hangs",
                seconds(p999),
                f"≤ {seconds(P999_TARGET_S)}",
                p999 <= P999_TARGET_S,
            ),
            Verdict(
                "memory grew by",
                mebibytes(grown),
                f"≤ {mebibytes(result.queue_bound_bytes)}",
                grown <= result.queue_bound_bytes,
            ),
            Verdict(
                "fullest queue",
                f"{result.peaks.queue_usage:.1%}",
                "≤ 100 %",
                result.peaks.queue_usage <= 1.001,
            ),
            Verdict("counts agree, each row once", "; ".join(problems) or "all", "all", not problems),
        ],
        {
            "timer_ns": result.timer_ns,
            "hang_s": result.hang_s,
            "drain_s": result.drain_s,
            "calls_s": {
                name: {q: value * NS for q, value in found.items()} for name, found in result.calls.items()
            },
            "rss_before_bytes": result.rss_before_bytes,
            "rss_peak_bytes": result.peaks.rss_bytes,
            "queue_bound_bytes": result.queue_bound_bytes,
            "queue_peak_rows": result.peaks.queue_rows,
            "problems": problems,
            "tables": {
                name: {
                    **balance.as_dict(),
                    "exact": balance.exact,
                    "in_gap_rows": result.gap_rows.get(name, 0),
                    "stored_rows": result.stored[name].rows if name in result.stored else 0,
                }
                for name, balance in result.balance.items()
            },
        },
    )


@click.command("hotpath")
@rate_option(None, "Rows/s of the producer; 25,000, or 10,000 with --engine-hangs.")
@seconds_option(
    20.0, "Length of each side of each round; with --engine-hangs half of it before and half after."
)
@rounds_option(3)
@switch_interval_option(1e-4, "sys.setswitchinterval of the side that sets it.")
@wait_option()
@gc_option()
@click.option("--engine-hangs", is_flag=True, help="Let the engine's inserts hang in the middle, instead.")
@click.option(
    "--hang-seconds", default=30.0, show_default=True, type=click.FloatRange(min=0.5), help="For how long."
)
@check_option()
@pass_invocation
def command(
    invocation: Invocation,
    rate: float | None,
    seconds_: float,
    rounds: int,
    switch_interval: float,
    wait: Wait,
    collector: GcState,
    engine_hangs: bool,
    hang_seconds: float,
    check: bool,
) -> None:
    """Measure a call of record(), and how late a producer is beside a recorder and without one.

    \b
    Example:
        recorder bench hotpath
        recorder bench hotpath --engine-hangs --hang-seconds 30 --json
    """
    rate = rate or (10_000.0 if engine_hangs else 25_000.0)
    rows = make_rows(ALL_TABLES, rate)
    conditions = (
        f"all tables' rows, made beforehand; the producer waits by {wait}; garbage collector: {collector}"
    )
    with rig.scratch_folder() as folder:

        def settings(database: str, switch: float | None) -> Settings:
            return rig.settings_of(
                invocation,
                folder,
                database=database,
                switch_interval_s=switch,
                tables={"book_deltas": {"enabled": True}},
            )

        if engine_hangs:
            what = (
                f"{count(rate)} rows/s; after {seconds_ / 2:g} s the engine's inserts hang for {hang_seconds:g} s, "
                f"then {seconds_ / 2:g} s more"
            )
            own = settings("bench", switch_interval)
            _say(what)
            if not invocation.debug:
                rig.hush(invocation)
            hung = run_hang(
                own,
                rows,
                rate=rate,
                before_s=seconds_ / 2,
                hang_s=hang_seconds,
                after_s=seconds_ / 2,
                wait=wait,
                collector=collector,
            )
            conditions += f"; switch interval {seconds(switch_interval)}"
            publish(hang_report(hung, own, what, conditions), as_json=invocation.json, check=check)
            return
        what = f"{count(rate)} rows/s for {seconds_:g} s a side, {rounds} round{'s' if rounds > 1 else ''} in turn"
        _say(what)
        result = run_hotpath(
            settings,
            rows,
            rate=rate,
            seconds_=seconds_,
            rounds=rounds,
            switch_interval_s=switch_interval,
            wait=wait,
            collector=collector,
        )
        conditions += (
            f"; switch interval {seconds(sys.getswitchinterval())}, set to {seconds(switch_interval)}"
        )
        publish(
            report(result, settings("default", None), what, conditions), as_json=invocation.json, check=check
        )


def _say(what: str) -> None:
    if sys.stderr.isatty():
        note(f"{what} …")


equip(command)
