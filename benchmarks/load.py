"""`recorder bench load`: all tables at a steady rate, then a burst.

Open loop: the moment a row is due does not depend on how the rows before it fared. Rows are made beforehand. The run
is right only if nothing is missing: every row offered is received, every received row is accounted for, and the
database, asked after the recorder has closed, has what the recorder says it inserted, each row once.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from benchmarks import rig
from benchmarks.gcstate import GcState, gc_state
from benchmarks.machine import describe_machine
from benchmarks.options import (
    check_option,
    gc_option,
    rate_option,
    seconds_option,
    switch_interval_option,
)
from benchmarks.report import Report, Section, Verdict, announce, count, mebibytes, publish, seconds
from benchmarks.rows import ALL_TABLES, make_reel
from recorder import Recorder
from recorder.balance import Balance
from recorder.cli.options import Invocation, equip, pass_invocation
from recorder.latency import LatencyHistogram
from recorder.own_rows import OWN_TABLES
from recorder.settings import Settings
from recorder.simulate.pace import Phase, Progress, Schedule, drive

LAG_TARGET_S = 1.0
DRAIN_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class PhaseResult:
    """One phase: what was sent, what came of it, what it cost."""

    name: str
    elapsed_s: float
    offered: int
    shed: int
    lag: LatencyHistogram
    lag_by_table: dict[str, LatencyHistogram]
    inserts: int
    inserted_rows: int
    cpu_s: dict[str, float]
    peaks: rig.Peaks
    lateness_s: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "elapsed_s": self.elapsed_s,
            "offered_rows": self.offered,
            "accepted_rows": self.offered - self.shed,
            "shed_rows": self.shed,
            "lag": self.lag.summary(),
            "inserts": self.inserts,
            "inserted_rows": self.inserted_rows,
            "cpu_s": self.cpu_s,
            "rss_peak_bytes": self.peaks.rss_bytes,
            "queue_peak_rows": self.peaks.queue_rows,
            "queue_peak_usage": self.peaks.queue_usage,
            "producer_lateness_max_s": self.lateness_s,
        }


@dataclass(frozen=True)
class LoadResult:
    """The whole run."""

    phases: Sequence[PhaseResult]
    drain_s: float
    offered: Counter[str]
    shed: Counter[str]
    balance: dict[str, Balance]
    stored: dict[str, int]
    doubled: dict[str, int]
    lag_by_table: dict[str, LatencyHistogram]
    rss_before_bytes: int

    def problems(self) -> list[str]:
        """Where counts do not agree; empty when all do."""
        found = []
        for name, balance in self.balance.items():
            if not balance.exact or balance.pending:
                found.append(f"{name}: balance {balance.as_dict()}")
            offered = self.offered[name]
            # The recorder writes rows of its own into some of its tables.
            if balance.received != offered and not (name in OWN_TABLES and balance.received > offered):
                found.append(f"{name}: offered {offered}, received {balance.received}")
            if self.stored.get(name, 0) != balance.inserted:
                found.append(
                    f"{name}: inserted {balance.inserted}, in the database {self.stored.get(name, 0)}"
                )
            if self.doubled.get(name, 0):
                found.append(f"{name}: {self.doubled[name]} rows are there twice")
        return found


class _Meter:
    """Takes what a phase used, at its end."""

    def __init__(self, recorder: Recorder, probe: rig.Probe):
        self._recorder, self._probe = recorder, probe
        rig.take(recorder)
        probe.take()
        self._before = (time.perf_counter(), rig.take(recorder), rig.cpu_by_role(), 0, 0, 0)

    def end(self, name: str, progress: Progress) -> PhaseResult:
        """The phase that ends now."""
        began_s, mark_before, cpu_before, rows_before, shed_before, steps_before = self._before
        now_s, mark, cpu = time.perf_counter(), rig.take(self._recorder), rig.cpu_by_role()
        self._probe.look()
        rows, shed, steps = progress.rows, progress.shed.total(), len(progress.lateness_ns)
        self._before = (now_s, mark, cpu, rows, shed, steps)
        return PhaseResult(
            name=name,
            elapsed_s=now_s - began_s,
            offered=rows - rows_before,
            shed=shed - shed_before,
            lag=merged(mark.lag),
            lag_by_table=mark.lag,
            inserts=mark.inserts - mark_before.inserts,
            inserted_rows=mark.inserted_rows - mark_before.inserted_rows,
            cpu_s={role: cpu[role] - cpu_before[role] for role in cpu},
            peaks=self._probe.take(),
            lateness_s=max(progress.lateness_ns[steps_before:], default=0) / 1e9,
        )


def merged(histograms: dict[str, LatencyHistogram]) -> LatencyHistogram:
    """All tables' values together."""
    total = LatencyHistogram()
    for histogram in histograms.values():
        total.merge(histogram)
    return total


def run_load(
    settings: Settings, schedule: Schedule, tables: Sequence[str], *, gc: GcState = "freeze"
) -> LoadResult:
    """Offer the rows of one or two phases to a recorder, drain it, close it, and count."""
    before = {
        name: stored.rows for name, stored in rig.stored(settings, list(ALL_TABLES + OWN_TABLES)).items()
    }
    reel = make_reel(tables, schedule.phases[0].rows_per_s)
    names = ("steady", "burst")[: len(schedule.phases)]
    rss_before = rig.rss_bytes()
    phases: list[PhaseResult] = []
    progress = Progress()
    with Recorder(settings) as recorder:
        recorder.flush(DRAIN_TIMEOUT_S)
        with rig.Probe(recorder) as probe, gc_state(gc):
            meter = _Meter(recorder, probe)
            for progress in drive(
                reel.events(time.time_ns()), recorder.record, schedule, keep_lateness=True, progress_s=0.05
            ):
                if progress.phase > len(phases):
                    phases.append(meter.end(names[len(phases)], progress))
            # Rows of the last phase that are still on their way belong to it.
            drain_began = time.perf_counter()
            recorder.flush(DRAIN_TIMEOUT_S)
            drain_s = time.perf_counter() - drain_began
            phases.append(meter.end(names[len(phases)], progress))
    balance = recorder.balance()
    after = rig.stored(settings, list(balance))
    lag_by_table: dict[str, LatencyHistogram] = {}
    for name, phase in itertools.product(balance, phases):
        lag_by_table.setdefault(name, LatencyHistogram()).merge(phase.lag_by_table[name])
    return LoadResult(
        phases=phases,
        drain_s=drain_s,
        offered=progress.accepted + progress.shed,
        shed=progress.shed,
        balance=balance,
        stored={name: rows.rows - before.get(name, 0) for name, rows in after.items()},
        doubled={name: rows.rows - rows.identities for name, rows in after.items()},
        lag_by_table=lag_by_table,
        rss_before_bytes=rss_before,
    )


# -- what is shown ----------------------------------------------------------------------------------------------


def _phase_section(result: LoadResult) -> Section:
    phases = result.phases

    def line(name: str, show: Any) -> list[str]:
        return [name, *(show(phase) for phase in phases)]

    rows = [
        line("rows offered", lambda p: count(p.offered)),
        line("rows shed", lambda p: count(p.shed)),
        line("rows/s offered", lambda p: count(p.offered / p.elapsed_s)),
        line("rows/s inserted", lambda p: count(p.inserted_rows / p.elapsed_s)),
        line("inserts/s", lambda p: f"{p.inserts / p.elapsed_s:.1f}"),
        line("lag p50", lambda p: seconds(p.lag.quantile(0.5))),
        line("lag p99", lambda p: seconds(p.lag.quantile(0.99))),
        line("lag p99.9", lambda p: seconds(p.lag.quantile(0.999))),
        line("lag max", lambda p: seconds(p.lag.max_s)),
        line("producer late at most", lambda p: seconds(p.lateness_s)),
        *(
            line(
                f"CPU {role}",
                lambda p, role=role: f"{p.cpu_s[role]:.2f} s ({p.cpu_s[role] / p.elapsed_s:.0%})",
            )
            for role in rig.ROLES
        ),
        line("queue peak, all tables", lambda p: f"{count(p.peaks.waiting_rows)} rows"),
        line("fullest queue", lambda p: f"{p.peaks.queue_usage:.1%}"),
        line("RSS peak", lambda p: mebibytes(p.peaks.rss_bytes)),
    ]
    return Section(
        "Phases",
        ("", *(phase.name for phase in phases)),
        rows,
        f"Drained in {seconds(result.drain_s)} after the last row; RSS was {mebibytes(result.rss_before_bytes)} before "
        "the recorder started. Percentages are of one core; rows of a slice count with its oldest row's lag.",
    )


def _table_section(result: LoadResult) -> Section:
    rows = []
    for name, balance in sorted(result.balance.items(), key=lambda item: -item[1].received):
        if not balance.received:
            continue
        lag = result.lag_by_table[name]
        rows.append(
            [
                name,
                count(balance.received),
                count(balance.shed),
                count(result.stored.get(name, 0)),
                seconds(lag.quantile(0.5)),
                seconds(lag.quantile(0.99)),
                count(max(phase.peaks.queue_rows.get(name, 0) for phase in result.phases)),
                "exact" if balance.exact else "WRONG",
            ]
        )
    columns = ("table", "received", "shed", "stored", "lag p50", "lag p99", "queue", "balance")
    return Section("Tables", columns, rows)


def verdicts(result: LoadResult) -> list[Verdict]:
    """The targets of the run."""
    shed = sum(balance.shed for balance in result.balance.values())
    found = [
        Verdict(
            f"lag p99, {phase.name}",
            seconds(phase.lag.quantile(0.99)),
            f"≤ {seconds(LAG_TARGET_S)}",
            phase.lag.quantile(0.99) <= LAG_TARGET_S,
        )
        for phase in result.phases
    ]
    problems = result.problems()
    return [
        Verdict("rows shed", count(shed), "0", shed == 0),
        *found,
        Verdict("counts agree, each row once", "; ".join(problems) or "all", "all", not problems),
    ]


def report(result: LoadResult, settings: Settings, what: str, conditions: str) -> Report:
    """The run as people and programs read it."""
    return Report(
        "load",
        what,
        conditions,
        describe_machine(rig.engine_version(settings)),
        [_phase_section(result), _table_section(result)],
        verdicts(result),
        {
            "phases": {phase.name: phase.as_dict() for phase in result.phases},
            "drain_s": result.drain_s,
            "rss_before_bytes": result.rss_before_bytes,
            "tables": {
                name: {
                    "offered_rows": result.offered[name],
                    **balance.as_dict(),
                    "exact": balance.exact,
                    "stored_rows": result.stored.get(name, 0),
                    "lag": result.lag_by_table[name].summary(),
                }
                for name, balance in result.balance.items()
            },
        },
    )


def _tables(_ctx: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    if value == "all":
        return ALL_TABLES
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    if unknown := sorted(set(names) - set(ALL_TABLES)) or not names:
        raise click.BadParameter(
            f"{value!r}: no rows for {unknown or 'no table'}; there are {', '.join(ALL_TABLES)}"
        )
    return names


@click.command("load")
@rate_option(25_000.0, "Rows/s, steady.")
@seconds_option(60.0, "Length of the steady phase.", least_s=0.1)
@click.option(
    "--burst-rate",
    default=50_000.0,
    show_default=True,
    type=click.FloatRange(min=1),
    help="Rows/s in the burst.",
)
@click.option(
    "--burst-seconds",
    default=5.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Length of the burst; 0 for none.",
)
@click.option(
    "--tables", default="all", show_default=True, callback=_tables, help="Tables, separated by commas."
)
@click.option(
    "--target", default=None, help="An existing database, such as chdb:///path/to/db; else a fresh one."
)
@switch_interval_option(1e-4, "sys.setswitchinterval of the process.")
@gc_option("State of the garbage collector.")
@check_option()
@pass_invocation
def command(
    invocation: Invocation,
    rate: float,
    seconds_: float,
    burst_rate: float,
    burst_seconds: float,
    tables: tuple[str, ...],
    target: str | None,
    switch_interval: float,
    collector: GcState,
    check: bool,
) -> None:
    """Send all tables' rows at a steady rate, then a burst, and see that all arrive in time.

    Rows go to a fresh embedded database, unless --target names one. Settings in force (file, environment) apply.

    \b
    Example:
        recorder bench load
        recorder bench load --rate 10000 --seconds 10 --burst-seconds 0 --json
    """
    phases = [Phase(rate, seconds_)]
    if burst_seconds:
        phases.append(Phase(burst_rate, burst_seconds))
    what = f"{count(rate)} rows/s for {seconds_:g} s"
    if burst_seconds:
        what += f", then {count(burst_rate)} rows/s for {burst_seconds:g} s"
    what += f", over {len(tables)} table{'s' if len(tables) > 1 else ''}"
    conditions = (
        f"producer thread beside the recorder in one process; switch interval {seconds(switch_interval)}, "
        f"garbage collector: {collector}"
    )
    with rig.scratch_folder() as folder:
        settings = rig.settings_of(
            invocation,
            folder,
            target=target,
            switch_interval_s=switch_interval,
            tables={"book_deltas": {"enabled": True}},
        )
        announce(f"{what}: about {seconds_ + burst_seconds:.0f} s")
        result = run_load(settings, Schedule(tuple(phases)), tables, gc=collector)
        publish(report(result, settings, what, conditions), as_json=invocation.json, check=check)


equip(command)
