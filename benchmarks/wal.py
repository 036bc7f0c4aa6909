"""`recorder bench wal`: the log alone, beside others that keep rows on disk.

Record batches of `fills` go in, in groups of 10 ms, synced. The sides take turns with the same rows and the same
grouping (`wal_sides`, `wal_rivals`); then a large log, whose writer was killed, is opened and read back (`wal_open`).
Last, a recorder gets a log's rows into the embedded engine (`wal_replay`); before that no database is part of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks import rig
from benchmarks.machine import describe_machine
from benchmarks.options import check_option, rate_option, rounds_option, seconds_option
from benchmarks.report import (
    Report,
    Section,
    Verdict,
    announce,
    count,
    mebibytes,
    publish,
    seconds,
    spread_of_numbers,
    spread_of_seconds,
)
from benchmarks.stats import Spread, quantiles, spread
from benchmarks.wal_open import Opened, run_open
from benchmarks.wal_replay import Replayed, run_replay
from benchmarks.wal_rivals import RIVALS, RivalKind, missing
from benchmarks.wal_sides import GROUP_ROWS, TABLE, Load, Measured, fills, measure_log, measure_rival
from recorder.cli.options import Invocation, equip, pass_invocation
from wal.options import LogOptions

LOG = "the log"
RATE_TARGET = 1_000_000.0
OPEN_TARGET_S = 5.0
REPLAY_TARGET = 300_000.0
CODECS = ("zstd", "lz4", "none")


@dataclass(frozen=True)
class Side:
    """One side, round by round."""

    name: str
    note: str
    rounds: Sequence[Measured]

    def of(self, value: Any) -> Spread:
        """Median and range of something of each round."""
        return spread(value(one) for one in self.rounds)

    @property
    def rows_per_s(self) -> Spread:
        """As fast as it goes."""
        return self.of(lambda one: one.rows / one.elapsed_s)

    def latency(self, quantile: str) -> Spread | None:
        """At the rate, in seconds; None for who does not tell, or took nothing."""
        found = [
            one.latencies_ns for one in self.rounds if one.latencies_ns is not None and len(one.latencies_ns)
        ]
        return spread(quantiles(values)[quantile] / 1e9 for values in found) if found else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = {
            "note": self.note,
            "rows": [one.rows for one in self.rounds],
            "rows_per_s": self.rows_per_s.as_dict(),
            "arrow_bytes_per_s": self.of(lambda one: one.arrow_bytes / one.elapsed_s).as_dict(),
            "disk_bytes_per_row": self.of(lambda one: one.disk_bytes / one.rows).as_dict(),
            "cpu_us_per_row": self.of(lambda one: one.cpu_s / one.rows * 1e6).as_dict(),
            "cores_at_rate": self.of(lambda one: one.idle_cpu).as_dict(),
            "late_rows": [one.late_rows for one in self.rounds],
        }
        latencies = {name: self.latency(name) for name in ("p50", "p99", "max")}
        found["commit_latency_s"] = {
            name: one.as_dict() for name, one in latencies.items() if one is not None
        }
        return found


def _fresh(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder of its own for one side of one round, gone afterwards: disks fill."""
    return tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True)


def run_sides(
    folder: Path, load: Load, options: LogOptions, rivals: Sequence[RivalKind], rounds: int
) -> list[Side]:
    """Measure all sides in turn."""
    measured: dict[str, list[Measured]] = {name: [] for name in (LOG, *(kind.name for kind in rivals))}
    for turn in range(rounds):
        announce(f"round {turn + 1} of {rounds}: {LOG}")
        with _fresh(folder) as place:
            measured[LOG].append(measure_log(Path(place), load, options))
        for kind in rivals:
            announce(f"round {turn + 1} of {rounds}: {kind.name}")
            with _fresh(folder) as place:
                measured[kind.name].append(measure_rival(kind, Path(place), load))
    codec = options.codec or "no compression"
    notes = {LOG: f"group commit every 10 ms, {codec}"} | {kind.name: kind.note for kind in rivals}
    return [Side(name, notes[name], found) for name, found in measured.items()]


def _fast_section(sides: Sequence[Side]) -> Section:
    first = sides[0].rows_per_s.median
    rows = [
        [
            side.name,
            spread_of_numbers(side.rows_per_s, 0),
            f"{side.rows_per_s.median / first:.2f}",
            mebibytes(side.of(lambda one: one.arrow_bytes / one.elapsed_s).median) + "/s",
            f"{side.of(lambda one: one.disk_bytes / one.rows).median:,.0f}",
            f"{side.of(lambda one: one.cpu_s / one.rows * 1e6).median:.2f} µs",
        ]
        for side in sides
    ]
    return Section(
        "As fast as it goes, until all is on disk",
        ("", "rows/s", "of the log", "Arrow", "B a row", "CPU a row"),
        rows,
        f"Groups of {count(GROUP_ROWS)} rows for who is written to once a group. "
        + "; ".join(f"{side.name}: {side.note}" for side in sides)
        + ".",
    )


def _paced_section(sides: Sequence[Side], rate: float) -> Section:
    def cell(found: Spread | None) -> str:
        return "does not tell" if found is None else spread_of_seconds(found)

    rows = [
        [
            side.name,
            *(cell(side.latency(name)) for name in ("p50", "p99", "max")),
            f"{side.of(lambda one: one.idle_cpu).median:.2f}",
            count(side.of(lambda one: one.late_rows).median),
        ]
        for side in sides
    ]
    return Section(
        f"At {count(rate)} rows/s: from a slice's moment until it is on disk",
        ("", "p50", "p99", "max", "cores", "rows too late"),
        rows,
        "Rows too late were due and not taken in time: that side does not keep up. The cores include making the load.",
    )


def _open_section(opened: Sequence[Opened]) -> Section:
    def of(value: Any) -> Spread:
        return spread(value(one) for one in opened)

    one = opened[0]
    rows = [
        ["opening it, cold", spread_of_seconds(of(lambda one: one.open_s))],
        ["reading it back", spread_of_seconds(of(lambda one: one.read_s))],
        ["rows/s read", spread_of_numbers(of(lambda one: one.rows / one.read_s), 0)],
        ["MiB/s read", spread_of_numbers(of(lambda one: one.disk_bytes / one.read_s / 2**20), 0)],
    ]
    held = f"{mebibytes(one.disk_bytes)}, {count(one.rows)} rows, {one.segments} segments"
    title = f"A log whose writer was killed: {held}"
    return Section(title, ("", "median (least…most)"), rows)


def _replay_section(replayed: Sequence[Replayed]) -> Section:
    def of(value: Any) -> Spread:
        return spread(value(one) for one in replayed)

    rows = [
        ["rows/s", spread_of_numbers(_replay_rate(replayed), 0)],
        ["until all are in", spread_of_seconds(of(lambda one: one.elapsed_s))],
        ["of it: starting the recorder", spread_of_seconds(of(lambda one: one.opened_s))],
        ["memory grew by", mebibytes(of(lambda one: one.memory_bytes).median)],
    ]
    title = f"Replay of {count(replayed[0].rows)} rows that were never sent, into the embedded engine"
    return Section(
        title,
        ("", "median (least…most)"),
        rows,
        "Read, looked up, inserted, confirmed; each row was found once in the table.",
    )


def _replay_rate(replayed: Sequence[Replayed]) -> Spread:
    return spread(one.rows / one.elapsed_s for one in replayed)


def verdicts(
    sides: Sequence[Side], opened: Sequence[Opened], replayed: Sequence[Replayed] = ()
) -> list[Verdict]:
    """The targets of the run."""
    rate = sides[0].rows_per_s
    found = [
        Verdict(
            "rows/s of the log",
            spread_of_numbers(rate, 0),
            f"≥ {count(RATE_TARGET)}",
            rate.median >= RATE_TARGET,
        )
    ]
    if opened:
        took = spread(one.open_s for one in opened)
        found.append(
            Verdict(
                "opening it",
                spread_of_seconds(took),
                f"≤ {seconds(OPEN_TARGET_S)}",
                took.median <= OPEN_TARGET_S,
            )
        )
    if replayed:
        rate = _replay_rate(replayed)
        found.append(
            Verdict(
                "rows/s replayed",
                spread_of_numbers(rate, 0),
                f"≥ {count(REPLAY_TARGET)}",
                rate.median >= REPLAY_TARGET,
            )
        )
    return found


def report(
    sides: Sequence[Side],
    opened: Sequence[Opened],
    replayed: Sequence[Replayed],
    absent: Mapping[str, str],
    rate: float,
    what: str,
    conditions: str,
) -> Report:
    """The run as people and programs read it."""
    sections = [_fast_section(sides), _paced_section(sides, rate)]
    if absent:
        rows = [[name, why] for name, why in absent.items()]
        sections.append(Section("Not measured", ("", "why"), rows))
    if opened:
        sections.append(_open_section(opened))
    if replayed:
        sections.append(_replay_section(replayed))
    return Report(
        "wal",
        what,
        conditions,
        describe_machine(""),
        sections,
        verdicts(sides, opened, replayed),
        {
            "sides": {side.name: side.as_dict() for side in sides},
            "rate": rate,
            "not_measured": dict(absent),
            "opened": [one.as_dict() for one in opened],
            "replayed": [one.as_dict() for one in replayed],
        },
    )


@click.command("wal")
@seconds_option(3.0, "Length of each of a side's two runs, each round.", least_s=0.05)
@rounds_option(3)
@rate_option(50_000.0, "Rows/s of the run at a rate.")
@click.option(
    "--slice-rows",
    default=256,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Rows of a record batch that is appended.",
)
@click.option("--codec", default="zstd", show_default=True, type=click.Choice(CODECS), help="Of the log.")
@click.option("--alone", is_flag=True, help="Without rivals.")
@click.option(
    "--open-mib",
    default=1_024,
    show_default=True,
    type=click.IntRange(min=0, max=1_048_576),
    help="Size of the log that is opened and read back; 0 leaves that out.",
)
@click.option(
    "--replay-rows",
    default=1_000_000,
    show_default=True,
    type=click.IntRange(min=0, max=1_000_000_000),
    help="Rows that a recorder replays into the embedded engine; 0 leaves that out.",
)
@check_option()
@pass_invocation
def command(
    invocation: Invocation,
    seconds_: float,
    rounds: int,
    rate: float,
    slice_rows: int,
    codec: str,
    alone: bool,
    open_mib: int,
    replay_rows: int,
    check: bool,
) -> None:
    """Measure the log: rows/s to disk, how long a commit takes, opening, reading back, replaying; and its rivals.

    Rivals that are not installed are named with what installs them. Files go to TMPDIR: its disk is what is measured.

    \b
    Example:
        recorder bench wal
        recorder bench wal --alone --open-mib 0 --replay-rows 0 --codec none
        TMPDIR=/dev/shm recorder bench wal --json
    """
    options = LogOptions(codec=None if codec == "none" else codec)
    absent = {} if alone else {kind.name: why for kind in RIVALS if (why := missing(kind))}
    rivals = [] if alone else [kind for kind in RIVALS if kind.name not in absent]
    what = f"{TABLE}, two runs of {seconds_:g} s a side, {rounds} round{'s' if rounds > 1 else ''} in turn"
    announce(what)
    load = Load(fills(slice_rows), seconds_, rate)
    conditions = (
        f"slices of {count(slice_rows)} rows, {len(load.schema)} columns, "
        f"{sum(one.nbytes for one in load.slices) / sum(one.num_rows for one in load.slices):,.0f} B of Arrow a row; "
        "rows made beforehand, groups of 10 ms, synced; garbage collector frozen"
    )
    with rig.scratch_folder() as folder:
        sides = run_sides(folder, load, options, rivals, rounds)
        opened = []
        if open_mib:
            announce(f"a log of {open_mib:,} MiB")
            with _fresh(folder) as place:
                opened = run_open(Path(place), open_mib * 2**20, options, rounds)
        replayed = []
        if replay_rows:
            announce(f"{replay_rows:,} rows into the embedded engine")
            replayed = list(run_replay(folder, replay_rows, rounds))
        found = report(sides, opened, replayed, absent, rate, what, conditions)
        publish(found, as_json=invocation.json, check=check)


equip(command)
