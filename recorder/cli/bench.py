"""`recorder bench`: the benchmarks that are installed, found by the entry point `recorder.benchmarks`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import entry_points

import click

from recorder.cli.lazy import Home, LazyGroup

HELP = {
    "load": "All tables at a steady rate, then a burst.",
    "ingest": "Rows/s against the limit of ready Arrow batches.",
    "service": "Rows over ZeroMQ, through the service, into a server.",
    "hotpath": "What record() costs its caller, and how late it makes a producer.",
    "archive": "A partition to Parquet and back, beside INTO OUTFILE.",
    "wal": "The log alone, beside others that keep rows on disk.",
}


class BenchGroup(LazyGroup):
    """Benchmarks by entry point."""

    @cached_property
    def _found(self) -> Mapping[str, Home]:
        return {
            point.name: Home(point.value, HELP.get(point.name, "A benchmark."))
            for point in entry_points(group="recorder.benchmarks")
        }

    def homes(self) -> Mapping[str, Home]:
        """The benchmarks."""
        return self._found


@click.group(cls=BenchGroup)
def bench() -> None:
    """Measure what the recorder does on this machine.

    \b
    Example:
        recorder bench load
    """
