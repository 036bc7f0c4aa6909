"""`recorder bench load`: all tables at a steady rate, then a burst.

Open loop: the moment a row is due does not depend on how the rows before it fared. Rows are made beforehand. The run
is right only if nothing is missing: every row offered is received, every received row is accounted for, and the
database, asked after the recorder has closed, has what the recorder says it inserted, each row once.
"""

from __future__ import annotations

from typing import Any

import click

from benchmarks import rig
from benchmarks.gcstate import GcState
from benchmarks.load_run import LoadResult, run_load
from benchmarks.machine import describe_machine
from benchmarks.options import (
    check_option,
    gc_option,
    rate_option,
    seconds_option,
    switch_interval_option,
)
from benchmarks.report import Report, Section, Verdict, announce, count, mebibytes, publish, seconds, within
from benchmarks.rows import ALL_TABLES
from recorder.cli.options import Invocation, equip, pass_invocation
from recorder.settings import Settings
from recorder.simulate.pace import Phase, Schedule

LAG_TARGET_S = 1.0


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
        within(f"lag p99, {phase.name}", phase.lag.quantile(0.99), LAG_TARGET_S) for phase in result.phases
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
