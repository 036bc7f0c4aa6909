"""What a benchmark tells: one value, shown as tables for people or as JSON, the same numbers in both."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.machine import Machine
from benchmarks.stats import Spread
from recorder.cli.output import emit_json, note

WIDTH = 100


@dataclass(frozen=True)
class Verdict:
    """One measured value against its target."""

    name: str
    value: str
    target: str
    met: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"name": self.name, "value": self.value, "target": self.target, "met": self.met}


def within(name: str, value: Spread | float, limit_s: float) -> Verdict:
    """A duration, or the median of several, against the most it may be; in seconds."""
    if isinstance(value, Spread):
        return Verdict(name, spread_of_seconds(value), f"≤ {seconds(limit_s)}", value.median <= limit_s)
    return Verdict(name, seconds(value), f"≤ {seconds(limit_s)}", value <= limit_s)


@dataclass(frozen=True)
class Section:
    """A table: the first column names, the others are numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Report:
    """What was run, on what, what came out, and whether that is enough.

    `data` is what JSON carries: plain numbers, in the units their names say.
    """

    benchmark: str
    what: str
    conditions: str
    machine: Machine
    sections: Sequence[Section]
    verdicts: Sequence[Verdict]
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Whether every target is met."""
        return all(verdict.met for verdict in self.verdicts)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "benchmark": self.benchmark,
            "what": self.what,
            "conditions": self.conditions,
            "machine": self.machine.as_dict(),
            "met": self.met,
            "targets": [verdict.as_dict() for verdict in self.verdicts],
            **self.data,
        }


def announce(what: str) -> None:
    """Say on a terminal what runs now, because it takes a while."""
    if sys.stderr.isatty():
        note(f"{what} …")


def publish(report: Report, *, as_json: bool, check: bool) -> None:
    """Put the report on standard output; with `check`, a missed target ends the command with exit code 1."""
    if as_json:
        emit_json(report.as_dict())
    else:
        render(report, _console())
    if check and not report.met:
        raise click.exceptions.Exit(1)


def render(report: Report, console: Console) -> None:
    """The report as text of at most `WIDTH` columns."""
    console.print(Text(f"recorder bench {report.benchmark}", style="bold"), Text(f"  {report.what}"), sep="")
    console.print(Text(report.machine.line(), style="dim"))
    console.print(Text(report.conditions, style="dim"))
    for section in report.sections:
        _print_section(section, console)
    if report.verdicts:
        rows = [[v.name, v.value, v.target, "met" if v.met else "MISSED"] for v in report.verdicts]
        _print_section(Section("Targets", ("", "measured", "target", ""), rows), console)


def _print_section(section: Section, console: Console) -> None:
    console.print()
    console.print(Text(section.title, style="bold"))
    console.print(_table(section.columns, section.rows))
    if section.note:
        console.print(Text(section.note, style="dim"))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, column in enumerate(columns):
        if position:
            table.add_column(Text(column), justify="right", overflow="fold")
        else:
            table.add_column(Text(column), no_wrap=True)
    for row in rows:
        styles = {"met": "green", "MISSED": "bold red"}
        table.add_row(*(Text(cell, style=styles.get(cell, "")) for cell in row))
    return table


def _console() -> Console:
    console = Console(highlight=False)
    return Console(highlight=False, width=min(WIDTH, console.width) if console.is_terminal else WIDTH)


# How numbers are written.


def count(value: float) -> str:
    """A whole number with separators."""
    return f"{value:,.0f}"


_UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))


def _unit(value: float) -> tuple[str, float]:
    return next((unit for unit in _UNITS if abs(value) >= unit[1]), _UNITS[-1])


def _in(value: float, scale: float) -> str:
    """Three digits, and no exponent."""
    scaled = value / scale
    return f"{scaled:,.0f}" if abs(scaled) >= 99.95 else f"{scaled:.3g}"


def seconds(value: float) -> str:
    """A duration in the unit that suits it."""
    unit, scale = _unit(value)
    return f"{_in(value, scale)} {unit}"


def mebibytes(value: float) -> str:
    """A number of bytes in MiB."""
    return f"{value / 2**20:,.0f} MiB"


def spread_of_seconds(value: Spread) -> str:
    """Median and range of durations, in one unit."""
    if value.rounds == 1:
        return seconds(value.median)
    unit, scale = _unit(value.median)
    return f"{_in(value.median, scale)} {unit} ({_in(value.least, scale)}…{_in(value.greatest, scale)})"


def spread_of_numbers(value: Spread, digits: int = 2) -> str:
    """Median and range of plain numbers."""
    if value.rounds == 1:
        return f"{value.median:,.{digits}f}"
    return f"{value.median:,.{digits}f} ({value.least:,.{digits}f}…{value.greatest:,.{digits}f})"


def row_of_quantiles(name: str, found: Mapping[str, Spread]) -> list[str]:
    """A table's row: the medians of all quantiles, and of p99.9, which the targets speak of, the range too."""
    return [name, *(spread_of_seconds(v) if q == "p999" else seconds(v.median) for q, v in found.items())]
