"""How commands speak: tables and progress for people, JSON for programs, one line for an error.

Answers go to standard output, everything else (progress, notes, errors) to standard error, so that a pipe carries
the answer and nothing more. With `--json` both are JSON: what is on standard error is one object a line.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import click

from recorder.cli.errors import EXIT_FAILURE, EXIT_WRONG_USE, Failure
from recorder.cli.options import GLOBAL, Invocation

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

NO_COMMAND = "no command is given"
PIPED_WIDTH = 200
"""Columns of a table that no terminal shows."""
LEAST_COLUMN = 8
"""What a column of a table has at least, if what is in it is that long."""


def console() -> Console:
    """Standard output, for tables and text."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False, soft_wrap=False)


def notes() -> Console:
    """Standard error, for progress and notes."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def note(text: str) -> None:
    """One line for the person at the terminal, beside the answer; with `--json` `{"note": …}`."""
    click.echo(_json_line({"note": text}) if _wants_json() else text, err=True)


def note_bad_line(number: int, fault: str) -> None:
    """One line about a line of the input; with `--json` `{"error": …, "line": …}`."""
    text = f"line {number:,}: {fault}"
    click.echo(_json_line({"error": text, "line": number}) if _wants_json() else text, err=True)


def counted(count: int, one: str) -> str:
    """A number and its noun: `1 row`, `2,000 rows`."""
    return f"{count:,} {one}" if count == 1 else f"{count:,} {one}s"


def _wants_json() -> bool:
    ctx = click.get_current_context(silent=True)
    invocation = ctx.find_object(Invocation) if ctx is not None else None
    return invocation is not None and invocation.json


def _json_line(value: Any) -> str:
    import orjson

    return orjson.dumps(value).decode()


def emit_json(value: Any) -> None:
    """A value as indented JSON on standard output. Bytes that are no UTF-8 are shown as escapes."""
    import orjson

    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
    write_bytes(orjson.dumps(value, default=_jsonable, option=options))


def write_bytes(data: bytes) -> None:
    """Bytes on standard output as they are."""
    with _writing():
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Say that it is standard output which cannot be written: the system's error names no file."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Failure(f"standard output: {error.strerror}") from error


def _jsonable(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    return str(value)


def emit_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    title: str | None = None,
    right: Iterable[str] = (),
    caption: str | None = None,
) -> None:
    """A table on standard output; the columns named in `right` are aligned to the right."""
    from rich import box
    from rich.cells import cell_len
    from rich.console import ConsoleDimensions
    from rich.table import Table
    from rich.text import Text

    numbers = set(right)
    table = Table(
        title=title, caption=caption, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left"
    )
    texts = [[shown(value) for value in row] for row in rows]
    least = [
        min(LEAST_COLUMN, max(map(cell_len, cells)))
        for cells in zip(map(shown, columns), *texts, strict=True)
    ]
    for column, width in zip(columns, least, strict=True):
        justify: Literal["left", "right"] = "right" if column in numbers else "left"
        table.add_column(Text(shown(column)), justify=justify, overflow="fold", min_width=width)
    for row_texts in texts:
        # Text, so that brackets in a value are no markup.
        table.add_row(*map(Text, row_texts))
    out = console()
    # A terminal that is too narrow breaks the lines; columns without room would lose what is in them.
    out.size = ConsoleDimensions(max(out.width, sum(least) + 3 * len(least) + 2), out.height)
    with _writing():
        out.print(table)


def shown(value: Any) -> str:
    """A value as one line of a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        value = ", ".join(value)
    return _visible(str(value))


def _visible(text: str) -> str:
    # A control character of recorded data, or of an argument, must not reach the terminal as one.
    return "".join(char if char.isprintable() or char == "\n" else _escape(char) for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


def progress(*, unit: str = "rows", transient: bool = False) -> Progress:
    """A progress bar on standard error with the rate and the time left; nothing where that is no terminal.

    Tasks have a field `rate`: set it by `update(task, rate="12,345")`, or leave it to the bar's own speed.
    """
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        Task,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            given = task.fields.get("rate")
            speed = given if given is not None else task.finished_speed or task.speed
            if speed is None:
                return Text("")
            return Text(f"{speed} {unit}/s" if isinstance(speed, str) else f"{speed:,.0f} {unit}/s")

    err = notes()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn("{task.percentage:>3.0f}%"),  # nothing where nobody knows how much there is
        Rate(),
        TimeRemainingColumn(),
        console=err,
        transient=transient,
        disable=not err.is_terminal,
    )


def error_lines(error: Exception) -> tuple[list[str], int]:
    """What to say of an error, one line a problem, and the exit code."""
    from recorder.errors import RecorderError, SettingsError
    from recorder.redact import redacted

    if isinstance(error, SettingsError):
        return [redacted(problem) for problem in error.problems], EXIT_WRONG_USE
    if isinstance(error, click.UsageError):
        return [redacted(_usage(error))], EXIT_WRONG_USE
    if isinstance(error, click.ClickException):
        return [_one_line(error.format_message())], EXIT_FAILURE
    text = redacted(_one_line(str(error)))
    if isinstance(error, RecorderError) or _is_ours(error):
        return [text or type(error).__name__], EXIT_FAILURE
    if isinstance(error, OSError) and error.strerror:
        return [_of_system(error)], EXIT_FAILURE
    return [
        f"unexpected {type(error).__name__}: {text or 'no message'}; "
        "run again with --debug for the traceback, and report it"
    ], EXIT_FAILURE


def print_error(lines: Sequence[str], *, as_json: bool) -> None:
    """Write an error to standard error."""
    lines = [_visible(line) for line in lines]
    if as_json:
        click.echo(_json_line({"error": "; ".join(lines)}), err=True)
        return
    for line in lines:
        click.echo(f"error: {line}", err=True)


def _of_system(error: OSError) -> str:
    """What an error of the system is about, also where it does not say so itself."""
    if error.filename:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    try:
        os.getcwd()
    except OSError:
        return "the current folder is gone; cd to one that is there"
    try:
        sys.stdout.flush()  # what could not be written is still waiting
    except OSError:
        return f"standard output: {error.strerror}"
    return str(error.strerror)


def _is_ours(error: Exception) -> bool:
    """Whether an error's class is from one of this project's error modules: its message is meant for people."""
    module = type(error).__module__
    return module.split(".")[0] in ("recorder", "retention", "schemas", "wal", "benchmarks")


def _usage(error: click.UsageError) -> str:
    message = _one_line(error.format_message()).rstrip(".")
    if message == "Missing command":  # click's words where options are given
        message = NO_COMMAND
    if isinstance(error, click.NoSuchOption) and error.option_name in GLOBAL and error.ctx is not None:
        command = error.ctx.command_path.partition(" ")[2]
        return f"{error.option_name} stands before the command: recorder {error.option_name} … {command}"
    if ";" in message or error.ctx is None:
        return message
    return f'{message}; see "{error.ctx.command_path} --help"'


def _one_line(text: str) -> str:
    return " ".join(text.split())
