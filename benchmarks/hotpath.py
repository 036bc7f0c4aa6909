"""`recorder bench hotpath`: what the recorder costs the thread that records.

Two questions. How long does a call of `record()` take? And how much later is a producer's loop because a recorder
works beside it in the process? The second is the harm done: it falls between the calls, when the loop waits for the
interpreter's lock. So an open-loop producer runs without a recorder, with one, and with one that has
`switch_interval_s` set, in turn (`hotpath_sides`).

With `--publisher` the same of a `Publisher`, whose recorder is another process (`hotpath_publisher`). With `--faults`
besides, one run in which the server behind that recorder fails in five ways (`hotpath_faults`).

With `--engine-hangs` one run instead: the engine's inserts hang while rows go on arriving. Calls must stay as cheap,
memory within its bounds, and afterwards every row must be accounted for (`hotpath_hang`).
"""

from __future__ import annotations

import sys

import click

from benchmarks import cores, rig
from benchmarks.cores import share_cores
from benchmarks.gcstate import GcState
from benchmarks.hotpath_faults import faults_report, run_faults
from benchmarks.hotpath_hang import hang_report, run_hang
from benchmarks.hotpath_publisher import (
    bare_drain,
    message_producer,
    publisher_report,
    run_publisher,
    whole_service,
)
from benchmarks.hotpath_sides import run_sides, sides_report
from benchmarks.options import (
    check_option,
    gc_option,
    rate_option,
    rounds_option,
    seconds_option,
    switch_interval_option,
    wait_option,
)
from benchmarks.report import announce, count, publish, seconds
from benchmarks.rows import ALL_TABLES, make_rows
from benchmarks.steps import Producer, Wait
from recorder.cli.options import Invocation, equip, pass_invocation
from recorder.settings import Settings


@click.command("hotpath")
@rate_option(None, "Rows/s of the producer; 25,000, or 10,000 with --engine-hangs or --faults.")
@seconds_option(
    20.0,
    "Length of each side of each round; with --engine-hangs half of it before and half after; with --faults all of "
    "it before, and a quarter for each trouble and each peace after one.",
)
@rounds_option(3)
@click.option(
    "--table",
    "tables",
    multiple=True,
    type=click.Choice(sorted(ALL_TABLES)),
    help="Table whose rows are recorded, may be given again; all of a trading session's where none is.",
)
@switch_interval_option(1e-4, "sys.setswitchinterval of the side that sets it.")
@wait_option()
@gc_option()
@click.option("--engine-hangs", is_flag=True, help="Let the engine's inserts hang in the middle, instead.")
@click.option(
    "--hang-seconds", default=30.0, show_default=True, type=click.FloatRange(min=0.5), help="For how long."
)
@click.option("--publisher", is_flag=True, help="Measure a Publisher, whose recorder is another process.")
@click.option(
    "--message-rows",
    default=10,
    show_default=True,
    type=click.IntRange(1, 4096),
    help="Rows of a message, with --publisher.",
)
@click.option(
    "--drain",
    is_flag=True,
    help="With --publisher: a bare subscription takes the messages, not a recorder with a dev server.",
)
@click.option(
    "--pin/--no-pin",
    default=True,
    show_default=True,
    help="With --publisher: a core for the producer alone, the rest for everything else.",
)
@click.option(
    "--faults", is_flag=True, help="With --publisher: the server fails in five ways, one after the other."
)
@check_option()
@pass_invocation
def command(
    invocation: Invocation,
    rate: float | None,
    seconds_: float,
    rounds: int,
    tables: tuple[str, ...],
    switch_interval: float,
    wait: Wait,
    collector: GcState,
    engine_hangs: bool,
    hang_seconds: float,
    publisher: bool,
    message_rows: int,
    drain: bool,
    pin: bool,
    faults: bool,
    check: bool,
) -> None:
    """Measure a call of record(), and how late a producer is beside a recorder and without one.

    \b
    Example:
        recorder bench hotpath
        recorder bench hotpath --table market_data
        recorder bench hotpath --engine-hangs --hang-seconds 30 --json
        recorder bench hotpath --publisher
        recorder bench hotpath --publisher --faults
    """
    if faults and (drain or not publisher):
        raise click.UsageError(
            "--faults goes with --publisher, and not with --drain: it is a server that fails"
        )
    if publisher and engine_hangs:
        raise click.UsageError("--publisher and --engine-hangs are two benchmarks; give one of them")
    rate = rate or (10_000.0 if engine_hangs or faults else 25_000.0)
    producer = Producer(make_rows(tables or ALL_TABLES, rate), rate, wait, collector)
    whose = " and ".join(tables) if tables else "all tables'"
    conditions = (
        f"{whose} rows, made beforehand; the producer waits by {wait}; garbage collector: {collector}"
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

        if faults:
            what = (
                f"{count(rate)} rows/s, {message_rows} a message; after {seconds_:g} s the server fails in five ways, "
                f"{seconds_ / 4:g} s each with as long a peace after it"
            )
            announce(what)
            shared = share_cores(pin)
            failed = run_faults(
                folder,
                message_producer(tables or ALL_TABLES, rate, message_rows, producer),
                before_s=seconds_,
                each_s=seconds_ / 4,
                shared=shared,
            )
            conditions += f"; switch interval {seconds(sys.getswitchinterval())}; {shared}"
            found = faults_report(failed, what, conditions)
        elif publisher:
            other = "a bare subscription" if drain else "recorder run into a dev server"
            what = (
                f"{count(rate)} rows/s, {message_rows} a message, for {seconds_:g} s a side, "
                f"{rounds} round{'s' if rounds > 1 else ''} in turn; the other end is {other}"
            )
            announce(what)
            shared = share_cores(pin)
            with cores.on(shared.rest):
                engine = rig.engine_version(settings("default", None))
                with (bare_drain if drain else whole_service)(folder) as url:
                    published = run_publisher(
                        url,
                        message_producer(tables or ALL_TABLES, rate, message_rows, producer),
                        seconds_=seconds_,
                        rounds=rounds,
                        shared=shared,
                    )
            conditions += f"; switch interval {seconds(sys.getswitchinterval())}; {shared}"
            found = publisher_report(published, engine, what, conditions)
        elif engine_hangs:
            what = (
                f"{count(rate)} rows/s; after {seconds_ / 2:g} s the engine's inserts hang for {hang_seconds:g} s, "
                f"then {seconds_ / 2:g} s more"
            )
            announce(what)
            own = settings("bench", switch_interval)
            rig.hush(invocation)
            hung = run_hang(own, producer, before_s=seconds_ / 2, hang_s=hang_seconds, after_s=seconds_ / 2)
            conditions += f"; switch interval {seconds(switch_interval)}"
            found = hang_report(hung, own, what, conditions)
        else:
            what = f"{count(rate)} rows/s for {seconds_:g} s a side, {rounds} round{'s' if rounds > 1 else ''} in turn"
            announce(what)
            sides = run_sides(
                settings, producer, seconds_=seconds_, rounds=rounds, switch_interval_s=switch_interval
            )
            conditions += (
                f"; switch interval {seconds(sys.getswitchinterval())}, set to {seconds(switch_interval)}"
            )
            found = sides_report(sides, settings("default", None), what, conditions)
        publish(found, as_json=invocation.json, check=check)


equip(command)
