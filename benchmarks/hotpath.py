"""`recorder bench hotpath`: what the recorder costs the thread that records.

Two questions. How long does a call of `record()` take? And how much later is a producer's loop because a recorder
works beside it in the process? The second is the harm done: it falls between the calls, when the loop waits for the
interpreter's lock. So an open-loop producer runs without a recorder, with one, and with one that has
`switch_interval_s` set, in turn (`hotpath_sides`).

With `--publisher` the same of a `Publisher`, whose recorder is another process (`hotpath_publisher`). With `--faults`
besides, one run in which the server behind that recorder fails in every way (`hotpath_faults`).

With `--engine-hangs` one run instead: the engine's inserts hang while rows go on arriving. Calls must stay as cheap,
memory within its bounds, and afterwards every row must be accounted for (`hotpath_hang`).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks import cores, rig
from benchmarks.cores import Cores, share_cores
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
from benchmarks.isolation import CannotIsolate, others_on
from benchmarks.options import (
    check_option,
    gc_option,
    rate_option,
    rounds_option,
    seconds_option,
    switch_interval_option,
    wait_option,
)
from benchmarks.report import Report, announce, count, publish, seconds
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
    "--isolate",
    is_flag=True,
    help="With --publisher: keep everybody else off that core, as isolcpus does, and the kernel; root's, and put back.",
)
@click.option(
    "--faults", is_flag=True, help="With --publisher: the server fails in every way, one after the other."
)
@click.option(
    "--gone-seconds",
    default=None,
    type=click.FloatRange(min=0.5),
    help="With --faults: how long the killed server stays away; without it as long as any trouble.",
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
    isolate: bool,
    faults: bool,
    gone_seconds: float | None,
    check: bool,
) -> None:
    """Measure a call of record(), and how late a producer is beside a recorder and without one.

    \b
    Example:
        recorder bench hotpath
        recorder bench hotpath --table market_data
        recorder bench hotpath --engine-hangs --hang-seconds 30 --json
        recorder bench hotpath --publisher
        recorder bench hotpath --publisher --isolate
        recorder bench hotpath --publisher --faults --gone-seconds 30
    """
    if faults and (drain or not publisher):
        raise click.UsageError(
            "--faults goes with --publisher, and not with --drain: it is a server that fails"
        )
    if gone_seconds is not None and not faults:
        raise click.UsageError("--gone-seconds goes with --faults")
    if isolate and not (publisher and pin):
        raise click.UsageError(
            "--isolate goes with --publisher, and not with --no-pin: it is for the producer's core"
        )
    if publisher and engine_hangs:
        raise click.UsageError("--publisher and --engine-hangs are two benchmarks; give one of them")
    rate = rate or (10_000.0 if engine_hangs or faults else 25_000.0)
    names = tables or ALL_TABLES
    producer = Producer(make_rows(names, rate), rate, wait, collector)
    whose = " and ".join(tables) if tables else "all tables'"
    made = "made anew for each message" if publisher else "made beforehand"
    with rig.scratch_folder() as folder:
        run = _Run(
            invocation,
            folder,
            f"{whose} rows, {made}; the producer waits by {wait}; garbage collector: {collector}",
            producer,
            seconds_,
            rounds,
            switch_interval,
        )
        if publisher:
            by_message = message_producer(names, rate, message_rows, producer)
            shared = share_cores(pin, isolated=isolate)
            with _isolated(shared):
                if faults:
                    found = run.publisher_faults(by_message, message_rows, gone_seconds, shared)
                else:
                    found = run.publisher(by_message, message_rows, shared, drain=drain)
        elif engine_hangs:
            found = run.engine_hangs(hang_seconds)
        else:
            found = run.sides()
    publish(found, as_json=invocation.json, check=check)


@contextlib.contextmanager
def _isolated(shared: Cores) -> Iterator[None]:
    try:
        with others_on(shared.rest if shared.isolated else ()):
            yield
    except CannotIsolate as error:
        raise click.UsageError(f"--isolate: {error}") from None


@dataclass(frozen=True)
class _Run:
    """What the four benchmarks share: where, how long, and the producer. Each says what it does, and reports."""

    invocation: Invocation
    folder: Path
    conditions: str
    producer: Producer
    seconds: float
    rounds: int
    switch_interval: float

    def sides(self) -> Report:
        """In this process: without a recorder, with one, with one that sets the switch interval."""
        what = f"{count(self.producer.rate)} rows/s for {self.seconds:g} s a side, {self._in_turn()}"
        announce(what)
        sides = run_sides(
            self._settings,
            self.producer,
            seconds_=self.seconds,
            rounds=self.rounds,
            switch_interval_s=self.switch_interval,
        )
        conditions = (
            f"{self.conditions}; switch interval {seconds(sys.getswitchinterval())}, "
            f"set to {seconds(self.switch_interval)}"
        )
        return sides_report(sides, self._settings("default", None), what, conditions)

    def engine_hangs(self, hang_s: float) -> Report:
        """In this process: every insert hangs for so long."""
        what = (
            f"{count(self.producer.rate)} rows/s; after {self.seconds / 2:g} s the engine's inserts hang for "
            f"{hang_s:g} s, then {self.seconds / 2:g} s more"
        )
        announce(what)
        settings = self._settings("bench", self.switch_interval)
        rig.hush(self.invocation)
        hung = run_hang(
            settings, self.producer, before_s=self.seconds / 2, hang_s=hang_s, after_s=self.seconds / 2
        )
        conditions = f"{self.conditions}; switch interval {seconds(self.switch_interval)}"
        return hang_report(hung, settings, what, conditions)

    def publisher(self, producer: Producer, message_rows: int, shared: Cores, *, drain: bool) -> Report:
        """Without a publisher and with one, whose other end is another process."""
        other = "a bare subscription" if drain else "recorder run into a dev server"
        what = (
            f"{count(self.producer.rate)} rows/s, {message_rows} a message, for {self.seconds:g} s a side, "
            f"{self._in_turn()}; the other end is {other}"
        )
        announce(what)
        with cores.on(shared.rest):
            engine = rig.engine_version(self._settings("default", None))
            with (bare_drain if drain else whole_service)(self.folder) as url:
                published = run_publisher(
                    url, producer, seconds_=self.seconds, rounds=self.rounds, shared=shared
                )
        return publisher_report(published, engine, what, self._shared_conditions(shared))

    def publisher_faults(
        self, producer: Producer, message_rows: int, gone_s: float | None, shared: Cores
    ) -> Report:
        """A publisher, while the server behind its recorder fails."""
        each_s = self.seconds / 4
        gone_s = each_s if gone_s is None else gone_s
        what = (
            f"{count(self.producer.rate)} rows/s, {message_rows} a message; after {self.seconds:g} s the server fails "
            f"in every way, {each_s:g} s each with as long a peace after it, and is gone for {gone_s:g} s"
        )
        announce(what)
        failed = run_faults(
            self.folder, producer, before_s=self.seconds, each_s=each_s, gone_s=gone_s, shared=shared
        )
        return faults_report(failed, what, self._shared_conditions(shared))

    def _in_turn(self) -> str:
        return f"{self.rounds} round{'s' if self.rounds > 1 else ''} in turn"

    def _shared_conditions(self, shared: Cores) -> str:
        return f"{self.conditions}; switch interval {seconds(sys.getswitchinterval())}; {shared}"

    def _settings(self, database: str, switch_interval_s: float | None) -> Settings:
        return rig.settings_of(
            self.invocation,
            self.folder,
            database=database,
            switch_interval_s=switch_interval_s,
            tables={"book_deltas": {"enabled": True}},
        )


equip(command)
