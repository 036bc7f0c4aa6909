"""`recorder bench service`: rows of small messages over ZeroMQ, through `recorder run`, into a server.

Publisher, recorder and server are processes of their own, as they are deployed. The run is right only if every row
published is received, every received row is accounted for, and the server has each inserted row once.
"""

from __future__ import annotations

import click

from benchmarks import rig
from benchmarks.machine import describe_machine
from benchmarks.options import check_option, rate_option, seconds_option
from benchmarks.report import Report, Section, Verdict, announce, count, mebibytes, publish, seconds, within
from benchmarks.rows import ALL_TABLES
from benchmarks.service_run import ServiceResult, run_service
from recorder.cli.options import Invocation, equip, pass_invocation

LAG_TARGET_S = 1.0
FEW_ROWS = 1_000
"""Tables with fewer rows have no p99 worth the name."""


def _tables(result: ServiceResult) -> Section:
    rows = []
    for name, offered in result.offered_rows.most_common():
        lag = result.status["tables"][name]["lag"]
        balance = result.status["balance"][name]
        stored = result.stored[name]
        rows.append(
            [
                name,
                count(offered),
                count(balance["shed"]),
                count(stored.rows),
                seconds(lag["p50_s"]),
                seconds(lag["p99_s"]),
                seconds(lag["max_s"]),
            ]
        )
    return Section("Tables", ("table", "published", "shed", "stored", "lag p50", "lag p99", "lag max"), rows)


def _waits(result: ServiceResult) -> Section:
    labels = ("p50", "p99", "p999", "max")
    return Section(
        "Waits",
        ("", "p50", "p99", "p99.9", "max"),
        [
            ["a call of publish()", *(seconds(result.publish[name]) for name in labels)],
            ["publish() to acknowledged", *(seconds(result.acked.get(name, 0.0)) for name in labels)],
        ],
        f"Acknowledged is: on the recorder's log, and inserted where a table has none. All rows were queryable "
        f"{seconds(result.drain_s)} after the last was published; "
        f"the publishing loop was {seconds(result.lateness_max_s)} late at most.",
    )


def _processes(result: ServiceResult) -> Section:
    rows = [
        [
            name,
            f"{cpu:.2f} s ({cpu / result.elapsed_s:.0%})",
            mebibytes(result.rss_bytes[name]) if name in result.rss_bytes else "",
        ]
        for name, cpu in result.cpu_s.items()
    ]
    return Section("Processes", ("", "CPU", "RSS at the end"), rows, "Percentages are of one core.")


def worst_lag_s(result: ServiceResult) -> float:
    """The greatest p99 of all tables with rows enough for one."""
    return max(
        (
            float(result.status["tables"][name]["lag"]["p99_s"])
            for name, offered in result.offered_rows.items()
            if offered >= FEW_ROWS
        ),
        default=0.0,
    )


def report(result: ServiceResult, what: str, conditions: str, engine: str) -> Report:
    """The run as people and programs read it."""
    problems = result.problems()
    shed = result.shed_rows + result.shed_messages
    return Report(
        "service",
        what,
        conditions,
        describe_machine(engine),
        [_waits(result), _tables(result), _processes(result)],
        [
            within("lag p99, of the slowest table", worst_lag_s(result), LAG_TARGET_S),
            Verdict("rows or messages shed", count(shed), "0", shed == 0),
            Verdict("counts agree, each row once", "; ".join(problems) or "all", "all", not problems),
        ],
        result.as_dict(),
    )


@click.command("service")
@rate_option(25_000.0, "Rows/s.")
@seconds_option(30.0, "How long.", least_s=0.5)
@click.option(
    "--rows-per-message",
    default=10,
    show_default=True,
    type=click.IntRange(1, 4_096),
    help="Rows of one table in one message.",
)
@check_option()
@pass_invocation
def command(invocation: Invocation, rate: float, seconds_: float, rows_per_message: int, check: bool) -> None:
    """Send all tables' rows over ZeroMQ to a recorder that writes to a dev server, and see that all arrive in time.

    The three are processes of their own: this one publishes.

    \b
    Example:
        recorder bench service
        recorder bench service --rate 10000 --seconds 10 --json
    """
    what = f"{count(rate)} rows/s in messages of {rows_per_message} for {seconds_:g} s, over {len(ALL_TABLES)} tables"
    announce(f"{what}: about {seconds_ + 10:.0f} s")
    with rig.scratch_folder() as folder:
        result = run_service(
            folder, ALL_TABLES, rows_per_s=rate, rows_a_message=rows_per_message, seconds=seconds_
        )
    conditions = (
        "publisher, recorder run and recorder devserver in processes of their own, ZeroMQ over a socket file"
    )
    publish(report(result, what, conditions, result.status["server"]), as_json=invocation.json, check=check)


equip(command)
