"""How the demonstration looks: tables of at most 100 columns, the SQL as it was run, and how to go on."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from recorder.demo.run import Answer, DemoReport

WIDTH = 100
_OUTCOMES = ("received", "inserted", "pending", "shed", "dead_lettered", "duplicates_skipped", "expired")
_HEADINGS = ("received", "inserted", "pending", "shed", "dead", "dupes", "expired")


def show(report: DemoReport, console: Console) -> None:
    """Print a report."""
    simulation = report.simulation
    simulated_s = (simulation.end_ns - simulation.start_ns) / 1e9
    console.print()
    console.print(
        Text.assemble(
            (f"{simulation.rows:,} rows", "bold"),
            f" of {simulated_s / 60:.1f} minutes of trading, recorded and queryable in ",
            (f"{report.queryable_s:.1f} s", "bold"),
            " (",
            (f"{report.rows_per_s:,.0f} rows/s", "bold"),
            ")",
        )
    )
    console.print(_tables(report))
    console.print(
        Text(
            "Every row is accounted for: received = the sum of the columns behind it, in every table.",
            "green",
        )
        if report.exact
        else Text("The balance does NOT add up.", "bold red")
    )
    for number, answer in enumerate(report.answers, 1):
        _show_answer(number, answer, console)
    console.print()
    place = report.data_dir if report.target.startswith("chdb:") else report.target
    console.print(Text.assemble("The database stays in ", (place, "bold"), ". Go on with:"))
    # Not wrapped: it is there to be copied.
    console.print(Text(f"  {report.next_command}", "bold cyan"), soft_wrap=True)
    console.print()


def _tables(report: DemoReport) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("table", style="cyan", no_wrap=True)
    for heading in (*_HEADINGS, "lag p50", "p99"):
        table.add_column(heading, justify="right", no_wrap=True)
    totals = dict.fromkeys(_OUTCOMES, 0)
    for line in report.tables:
        if not line.balance.received:
            continue
        counts = line.balance.as_dict()
        for name in _OUTCOMES:
            totals[name] += counts[name]
        table.add_row(
            line.table,
            *(_count(counts[name]) for name in _OUTCOMES),
            _lag(line.lag_p50_s),
            _lag(line.lag_p99_s),
        )
    table.add_section()
    table.add_row("all", *(_count(totals[name]) for name in _OUTCOMES), "", "", style="bold")
    return table


def _count(value: int) -> Text:
    return Text(f"{value:,}" if value else "·", "" if value else "dim")


def _lag(seconds: float) -> str:
    if not seconds:
        return "-"
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _show_answer(number: int, answer: Answer, console: Console) -> None:
    console.print()
    console.print(Text(f"{number}. {answer.question}", "bold"))
    sql = Syntax(answer.sql, "sql", theme="ansi_dark", background_color="default", word_wrap=True)
    console.print(Panel(sql, box=box.ROUNDED, border_style="dim", width=min(WIDTH, console.width)))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    numeric = {
        name
        for index, name in enumerate(answer.columns)
        if any(isinstance(row[index], int | float | Decimal) for row in answer.rows)
    }
    for name in answer.columns:
        table.add_column(name, justify="right" if name in numeric else "left", overflow="fold")
    for row in answer.rows:
        table.add_row(*(_cell(name, value) for name, value in zip(answer.columns, row, strict=True)))
    console.print(table)
    if answer.check:
        console.print(Text(answer.check, "green" if answer.agrees else "bold red"))


def _cell(name: str, value: Any) -> Text:
    if value is None:
        return Text("")
    if name == "time":
        # Local day and nanoseconds say nothing here; microseconds do.
        return Text(str(value)[11:26])
    if name == "from_fill_ms":
        return Text(f"{value:+.3f}", "bold" if abs(value) < 1 else "")
    if name.endswith("_us"):
        return Text(f"{value:,.0f}")
    if isinstance(value, Decimal):
        whole = f"{value:,f}"
        return Text(whole.rstrip("0").rstrip(".") if "." in whole else whole)
    if isinstance(value, float):
        return Text(f"{value:,.6g}" if abs(value) < 1_000 else f"{value:,.2f}")
    if isinstance(value, int):
        return Text(f"{value:,}")
    return Text(str(value))
