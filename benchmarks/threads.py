"""The thread model and its alternatives, each beside the same open-loop producer: `python -m benchmarks.threads`.

Not one of `recorder bench`'s commands: it replaces a part of the running recorder by what it could have been, and is
here so that docs/threads.md can be measured again. What each variant does is said there.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import click

import recorder.build
from benchmarks import rig
from benchmarks.gcstate import gc_state
from benchmarks.load_run import merged
from benchmarks.machine import describe_machine
from benchmarks.options import rate_option, rounds_option, seconds_option, wait_option
from benchmarks.report import Report, Section, announce, count, publish, seconds, spread_of_seconds
from benchmarks.rows import ALL_TABLES, make_rows
from benchmarks.stats import QUANTILES, differences, quantiles, spread
from benchmarks.steps import Wait, no_recorder, take_steps
from recorder import Recorder
from recorder.cli.options import Invocation, equip, pass_invocation
from recorder.cutting import Cutter
from recorder.entries import Waiting, rows_in

Build = Callable[[Cutter, Sequence[Waiting]], Coroutine[Any, Any, None]]
_as_it_is: Build = Cutter._build
_modules: tuple[Any, ...] = (recorder.build, sys.modules[Cutter.__module__])
"""Both know how many rows a slice has."""
_thread = ThreadPoolExecutor(1, thread_name_prefix="recorder-build")


async def _without_yields(cutter: Cutter, entries: Sequence[Waiting]) -> None:
    """All slices of a drain in one go on the loop."""
    await _in_one_go(cutter, entries, None)


async def _in_own_thread(cutter: Cutter, entries: Sequence[Waiting]) -> None:
    """The loop hands a drain to a thread that builds, and waits for it."""
    await _in_one_go(cutter, entries, _thread)


async def _in_one_go(cutter: Cutter, entries: Sequence[Waiting], thread: ThreadPoolExecutor | None) -> None:
    # What `Cutter._build` does, but for the pauses between slices.
    builder, rows_before = cutter._builder, cutter._builder.rows
    cutter._account.flying_rows += rows_in(entries)
    cutter._budget.saw_rows(cutter._account.table.name, time.monotonic_ns())

    def build() -> None:
        nonlocal rows_before
        for _ in builder.add(entries):
            if (built := builder.rows - rows_before) > 0:
                cutter._accepted.append((builder.slice_accepted_ns, built))
            rows_before = builder.rows

    if thread is None:
        build()
    else:
        await asyncio.get_running_loop().run_in_executor(thread, build)


@dataclass(frozen=True)
class Variant:
    """One way to do it: who builds, in slices of how many rows, with which switch interval."""

    name: str
    build: Build = _as_it_is
    slice_rows: int = 256
    switch_interval_s: float | None = 1e-4


VARIANTS = (
    Variant("as it is: 256, 0.1 ms"),
    Variant("switch interval 5 ms", switch_interval_s=None),
    Variant("switch interval 1 ms", switch_interval_s=1e-3),
    Variant("switch interval 0.02 ms", switch_interval_s=2e-5),
    Variant("slices of 64", slice_rows=64),
    Variant("slices of 1,024", slice_rows=1_024),
    Variant("slices of 10,000", slice_rows=10_000),
    Variant("no pause between slices", build=_without_yields),
    Variant("built in a thread of its own", build=_in_own_thread),
)


@contextlib.contextmanager
def in_force(variant: Variant) -> Iterator[None]:
    """Put a variant in the place of what is there."""
    slices = recorder.build.SLICE_ROWS
    for module in _modules:
        module.SLICE_ROWS = variant.slice_rows
    setattr(Cutter, "_build", variant.build)  # noqa: B010 - a method is not to be assigned, and here it is
    try:
        yield
    finally:
        for module in _modules:
            module.SLICE_ROWS = slices
        setattr(Cutter, "_build", _as_it_is)  # noqa: B010


@click.command("threads")
@rate_option(25_000.0, "Rows/s of the producer.")
@seconds_option(5.0, "Length of each variant's run.")
@rounds_option(3, "Turns of all variants.")
@wait_option()
@pass_invocation
def command(invocation: Invocation, rate: float, seconds_: float, rounds: int, wait: Wait) -> None:
    """Compare ways to share the interpreter between producer and recorder.

    \b
    Example:
        python -m benchmarks.threads --seconds 3 --rounds 3
    """
    rows = make_rows(ALL_TABLES, rate)
    skip, steps = int(rate * min(0.5, seconds_ / 4)), int(rate * seconds_)
    calm: list[dict[str, float]] = []
    late: dict[str, list[dict[str, float]]] = {variant.name: [] for variant in VARIANTS}
    lag: dict[str, list[float]] = {variant.name: [] for variant in VARIANTS}
    cpu: dict[str, list[float]] = {variant.name: [] for variant in VARIANTS}
    with rig.scratch_folder() as folder:
        for turn in range(rounds):
            with gc_state("freeze"):
                calm.append(
                    quantiles(
                        take_steps(no_recorder, rows, rate=rate, steps=steps, skip=skip, wait=wait).lateness
                    )
                )
            for number, variant in enumerate(VARIANTS):
                announce(f"round {turn + 1} of {rounds}: {variant.name}")
                database = f"threads_{turn}_{number}"
                settings = rig.settings_of(
                    invocation,
                    folder,
                    database=database,
                    switch_interval_s=variant.switch_interval_s,
                    tables={"book_deltas": {"enabled": True}},
                )
                with in_force(variant), Recorder(settings) as recorder_:
                    recorder_.flush(60)
                    rig.take(recorder_)
                    before = rig.cpu_by_role()
                    with gc_state("freeze"):
                        taken = take_steps(
                            recorder_.record, rows, rate=rate, steps=steps, skip=skip, wait=wait
                        )
                    used = rig.cpu_by_role()
                    recorder_.flush(60)
                    lag[variant.name].append(merged(rig.take(recorder_).lag).quantile(0.99))
                    late[variant.name].append(quantiles(taken.lateness))
                    cpu[variant.name].append(sum(used[role] - before[role] for role in ("recorder", "sink")))
                rig.ask(settings, {"": f"DROP DATABASE {database} SYNC"})
        machine = describe_machine(rig.engine_version(settings))
    shown, data = [], {}
    for variant in VARIANTS:
        name = variant.name
        added = {
            quantile: differences(
                [found[quantile] * 1e-9 for found in late[name]], [found[quantile] * 1e-9 for found in calm]
            )
            for quantile in QUANTILES
        }
        lags, busy = spread(lag[name]), spread(used_s / seconds_ for used_s in cpu[name])
        shown.append(
            [
                name,
                *(spread_of_seconds(added[quantile]) for quantile in ("p99", "p999")),
                seconds(lags.median),
                f"{busy.median:.0%}",
            ]
        )
        data[name] = {
            "added_lateness_s": {quantile: value.as_dict() for quantile, value in added.items()},
            "lag_p99_s": lags.as_dict(),
            "recorder_cpu_share": busy.as_dict(),
        }
    what = f"{count(rate)} rows/s for {seconds_:g} s a variant, {rounds} rounds in turn"
    section = Section(
        "Added lateness of the producer",
        ("", "p99", "p99.9", "lag p99", "CPU"),
        shown,
        "CPU: of the recorder's loop and its sink threads, share of one core.",
    )
    publish(
        Report("threads", what, f"the producer waits by {wait}", machine, [section], [], {"variants": data}),
        as_json=invocation.json,
        check=False,
    )


equip(command)

if __name__ == "__main__":
    command()
