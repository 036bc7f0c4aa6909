"""What makes a producer late, part by part: `python -m benchmarks.alone`.

An open-loop producer without a recorder, beside one part of the recorder's work at a time, at the pace that 25,000
rows/s ask for: building rows into columns, and inserting ready batches. docs/threads.md says what was seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

import click

import recorder.build
from benchmarks import ingest_sides, rig
from benchmarks.gcstate import gc_state
from benchmarks.machine import describe_machine
from benchmarks.options import rounds_option, seconds_option
from benchmarks.report import Report, Section, publish, row_of_quantiles
from benchmarks.stats import QUANTILES, quantiles, spread
from benchmarks.steps import no_recorder, take_steps
from recorder.batch import Batch
from recorder.build import BatchBuilder
from recorder.cli.options import Invocation, equip, pass_invocation
from recorder.sink.open import open_sink

RATE = 25_000
TABLE = "market_data"
Work = Callable[[threading.Event], None]


@contextlib.contextmanager
def beside(work: Work | None) -> Iterator[None]:
    """Do a part of the work on a thread of its own for as long as the context lasts."""
    stop = threading.Event()
    thread = threading.Thread(target=lambda: work(stop) if work else None, name="bench-part")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def builds(rows: ingest_sides.Rows, slice_rows: int) -> Work:
    """`RATE` rows/s into columns, a thousand at a time, letting go of the lock after each slice."""
    entries = [(row, 1, None, 0) for row in rows[:1_000]]

    def work(stop: threading.Event) -> None:
        recorder.build.SLICE_ROWS = slice_rows
        while not stop.wait(len(entries) / RATE):
            builder = BatchBuilder(
                ingest_sides.TABLES[TABLE], epoch=1, run_id="bench", on_bad=lambda bad: None
            )
            for _ in builder.add(entries):
                time.sleep(1e-6)
            builder.seal()
        recorder.build.SLICE_ROWS = 256

    return work


def inserts(arena: ingest_sides.Arena, batch_rows: int) -> Work:
    """`RATE` rows/s as ready batches of so many."""
    batches = ingest_sides.arrow_batches(arena.table, arena.rows, batch_rows * 8, batch_rows)

    async def insert(stop: threading.Event) -> None:
        sink = open_sink(arena.settings)
        await sink.start()
        try:
            while not stop.is_set():
                for data in batches:
                    await sink.insert(Batch(TABLE, data, 0), timeout_s=30)
                    await asyncio.sleep(batch_rows / RATE)
        finally:
            await sink.close()

    return lambda stop: asyncio.run(insert(stop))


@click.command("alone")
@seconds_option(3.0, "Length of each run.")
@rounds_option(3, "Turns of all parts.")
@pass_invocation
def command(invocation: Invocation, seconds_: float, rounds: int) -> None:
    """See which part of the recorder's work makes a producer late.

    \b
    Example:
        python -m benchmarks.alone --seconds 3 --rounds 3
    """
    table = ingest_sides.TABLES[TABLE]
    rows = ingest_sides.make_rows(table)
    own = sys.getswitchinterval()
    late: dict[tuple[str, float], list[dict[str, float]]] = {}
    with rig.scratch_folder() as folder:
        settings = rig.settings_of(invocation, folder, database="bench")
        arena = ingest_sides.Arena(settings, table, rows, [], 0, 0, "freeze")
        client = arena.client()
        arena.create(client)
        parts: dict[str, Work | None] = {"nothing": None}
        parts |= {f"builds, slices of {n:,}": builds(rows, n) for n in (64, 256, 1_000)}
        parts |= {f"inserts of {n:,} rows": inserts(arena, n) for n in (1_000, 6_000)}
        try:
            for _ in range(rounds):
                for (name, work), interval in ((item, s) for item in parts.items() for s in (own, 1e-4)):
                    sys.setswitchinterval(interval)
                    with beside(work), gc_state("freeze"):
                        taken = take_steps(
                            no_recorder,
                            [("", ())],
                            rate=RATE,
                            steps=int(RATE * seconds_),
                            skip=int(RATE * min(0.5, seconds_ / 4)),
                        )
                    late.setdefault((name, interval), []).append(quantiles(taken.lateness))
        finally:
            sys.setswitchinterval(own)
            client.close()
        machine = describe_machine(rig.engine_version(settings))
    shown, data = [], {}
    for (name, interval), rounds_ in late.items():
        spreads = {quantile: spread(found[quantile] * 1e-9 for found in rounds_) for quantile in QUANTILES}
        named = row_of_quantiles(name, spreads)
        shown.append([named[0], f"{interval * 1e3:g} ms", *named[1:]])
        data[f"{name}, {interval * 1e3:g} ms"] = {key: value.as_dict() for key, value in spreads.items()}
    section = Section(
        "Lateness of the producer", ("beside it", "switch", "p50", "p99", "p99.9", "max"), shown
    )
    publish(
        Report(
            "alone",
            f"{RATE:,} rows/s of {TABLE}, {seconds_:g} s a part, {rounds} rounds in turn",
            "the producer holds the lock while it waits",
            machine,
            [section],
            [],
            {"lateness_s": data},
        ),
        as_json=invocation.json,
        check=False,
    )


equip(command)

if __name__ == "__main__":
    command()
