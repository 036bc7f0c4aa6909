"""`recorder bench archive`: a partition to Parquet and back again, beside ClickHouse's own `INTO OUTFILE`.

The sides take turns with the same partition of the embedded engine: the archive, which sorts, hashes every row, syncs,
reads all of it back and compares; and the engine's own file, as the rows come, in the order of the archive's, and with
its level of compression and row groups, too; that is neither synced nor read. The archive runs on a smaller partition,
too, to see whether memory grows with the rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from benchmarks import rig
from benchmarks.archive_round import DAY, SIDES, TABLE, Taken, run_fill, run_side, settings_in
from benchmarks.machine import describe_machine
from benchmarks.options import check_option, rounds_option
from benchmarks.report import (
    Report,
    Section,
    Verdict,
    announce,
    count,
    mebibytes,
    publish,
    spread_of_numbers,
    spread_of_seconds,
)
from benchmarks.stats import Spread, spread
from recorder.cli.errors import Failure
from recorder.cli.options import Invocation, equip, pass_invocation

ARCHIVE, OUTFILE, SORTED, ALIKE = SIDES
RATIO_TARGET = 0.5
MEMORY_TARGET = 1.25
SMALLER = 4
NOTES = {
    ARCHIVE: "the archive, sorted, synced, read back and compared",
    OUTFILE: "INTO OUTFILE … FORMAT Parquet, as the rows come",
    SORTED: "the same, ORDER BY as the archive has it",
    ALIKE: "sorted, and with the archive's level of zstd and row groups",
}


def run_sides(
    folder: Path, database: Path, rows: int, sides: Sequence[str], rounds: int
) -> dict[str, list[Taken]]:
    """Each side in turn, on the partition of `database`.

    Raises:
        Failure: a side failed, or has not all rows.
    """
    found: dict[str, list[Taken]] = {side: [] for side in sides}
    for turn in range(rounds):
        for side in sides:
            announce(f"round {turn + 1} of {rounds}: {side}, {count(rows)} rows")
            with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as place:
                taken = run_side(side, database, Path(place, "out"))
            if taken.rows != rows:
                raise Failure(f"{side}: {taken.rows:,} rows came out of a partition of {rows:,}")
            found[side].append(taken)
    return found


def _of(rounds: Sequence[Taken], value: Callable[[Taken], float]) -> Spread:
    return spread(value(one) for one in rounds)


def _ratio(found: Mapping[str, Sequence[Taken]], other: str) -> Spread:
    """How fast the archive is as a part of how fast the other is, round by round."""
    pairs = zip(found[ARCHIVE], found[other], strict=True)
    return spread(theirs.elapsed_s / ours.elapsed_s for ours, theirs in pairs)


def _section(found: Mapping[str, Sequence[Taken]], rows: int) -> Section:
    lines = [
        [
            side,
            spread_of_seconds(_of(rounds, lambda one: one.elapsed_s)),
            count(_of(rounds, lambda one: one.rows / one.elapsed_s).median),
            "1.00" if side == ARCHIVE else spread_of_numbers(_ratio(found, side)),
            mebibytes(_of(rounds, lambda one: one.disk_bytes).median),
            mebibytes(_of(rounds, lambda one: one.opened_bytes).median),
            mebibytes(_of(rounds, lambda one: one.peak_bytes).median),
        ]
        for side, rounds in found.items()
    ]
    return Section(
        f"{count(rows)} rows",
        ("", "took", "rows/s", "archive to it", "files", "memory before", "at its peak"),
        lines,
        "; ".join(f"{side}: {NOTES[side]}" for side in found)
        + ". Memory is the process's, the engine in it.",
    )


def verdicts(found: Mapping[str, Sequence[Taken]], smaller: Sequence[Taken]) -> list[Verdict]:
    """The targets of the run."""
    ratio = _ratio(found, OUTFILE)
    grown = _of(found[ARCHIVE], lambda one: one.peak_bytes).median / max(
        1.0, _of(smaller, lambda one: one.peak_bytes).median
    )
    return [
        Verdict(
            "archive to INTO OUTFILE",
            spread_of_numbers(ratio),
            f"≥ {RATIO_TARGET:g}",
            ratio.median >= RATIO_TARGET,
        ),
        Verdict(
            f"memory, {SMALLER} x the rows",
            f"x {grown:.2f}",
            f"≤ x {MEMORY_TARGET:g}",
            grown <= MEMORY_TARGET,
        ),
    ]


@click.command("archive")
@click.option(
    "--rows",
    default=3_000_000,
    show_default=True,
    type=click.IntRange(1_000, 1_000_000_000),
    help="Rows of the partition.",
)
@rounds_option(3)
@check_option()
@pass_invocation
def command(invocation: Invocation, rows: int, rounds: int, check: bool) -> None:
    """Measure the archive: a partition out of the embedded engine and read back, beside ClickHouse's own Parquet.

    Files go to TMPDIR: its disk is part of what is measured.

    \b
    Example:
        recorder bench archive
        recorder bench archive --rows 20000000 --rounds 1 --json
    """
    rig.hush(invocation)
    what = f"{TABLE} of {DAY}, {count(rows)} rows, {rounds} round{'s' if rounds > 1 else ''} in turn"
    announce(what)
    with rig.scratch_folder() as folder:
        databases = {}
        for part in (rows, max(1, rows // SMALLER)):
            announce(f"a partition of {count(part)} rows")
            databases[part] = folder / f"of-{part}"
            run_fill(databases[part], part)
        found = run_sides(folder, databases[rows], rows, SIDES, rounds)
        small = max(1, rows // SMALLER)
        smaller = run_sides(folder, databases[small], small, [ARCHIVE], rounds)
        machine = describe_machine(rig.engine_version(settings_in(databases[small])))
    sections = [_section(found, rows), _section(smaller, small)]
    data: dict[str, Any] = {
        "rows": rows,
        "sides": {side: [asdict(one) for one in rounds_] for side, rounds_ in found.items()},
        "smaller": [asdict(one) for one in smaller[ARCHIVE]],
        "ratio": _ratio(found, OUTFILE).as_dict(),
        "ratio_sorted": _ratio(found, SORTED).as_dict(),
        "ratio_alike": _ratio(found, ALIKE).as_dict(),
    }
    conditions = (
        "rows of a simulated session, spread over the day; zstd on all sides; each in a process of its own"
    )
    published = Report(
        "archive", what, conditions, machine, sections, verdicts(found, smaller[ARCHIVE]), data
    )
    publish(published, as_json=invocation.json, check=check)


equip(command)
