"""The group `recorder`, and how errors leave it: one line on standard error, and an exit code.

Exit codes: 0 done, 1 failed, 2 wrong use or settings, 130 interrupted, 143 terminated. A reader that goes away
(`| head`) ends a command quietly with 1, as click and rich do.

SIGTERM ends every command as Ctrl-C does: an exception in the main thread leaves the `with` of its recorder, which
flushes and closes. A command that handles the signal itself sets its own handler meanwhile.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn, TypeGuard

import click

from recorder.cli.errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_WRONG_USE, Terminated
from recorder.cli.lazy import Home, LazyGroup
from recorder.cli.options import Invocation, global_options

HOMES = {
    "archive": Home("recorder.cli.archive:archive", "Keep partitions as Parquet files, verified."),
    "bars": Home("recorder.cli.bars:bars", "Bars of market data: compute those that are due, verify them."),
    "bench": Home("recorder.cli.bench:bench", "Measure this machine: load, ingest, hot path."),
    "completion": Home(
        "recorder.cli.completion:completion", "Print the shell completion for bash, zsh or fish."
    ),
    "config": Home("recorder.cli.config:config", "Show every setting in force and where it came from."),
    "copy": Home("recorder.cli.copy:copy", "Copy rows into another database, verified."),
    "dead-letters": Home(
        "recorder.cli.dead_letters:dead_letters", "What could not be inserted: list, show, retry."
    ),
    "demo": Home("recorder.cli.demo:demo", "Record a simulated trading session and show it."),
    "devserver": Home(
        "recorder.cli.devserver:devserver", "Serve ClickHouse over HTTP from the embedded engine."
    ),
    "export": Home("recorder.cli.export:export", "Write a query's answer to Parquet, CSV or Arrow files."),
    "ingest": Home("recorder.cli.ingest:ingest", "Record files: captures, NDJSON, Parquet."),
    "migrate": Home("recorder.cli.migrate:migrate", "Bring the database's schema up, or check it."),
    "query": Home("recorder.cli.query:query", "Ask the database with SQL."),
    "publish": Home("recorder.cli.publish:publish", "Publish rows from NDJSON to a bus."),
    "replay": Home("recorder.cli.replay:replay", "Get in what the logs hold, and record nothing new."),
    "retention": Home("recorder.cli.retention:retention", "Show how long tables are kept, and what is due."),
    "run": Home("recorder.cli.run:run", "Record what buses deliver, until stopped: the service."),
    "simulate": Home("recorder.cli.simulate:simulate", "Record a simulated trading session."),
    "status": Home("recorder.cli.status:status", "Ask a running recorder how it is."),
    "version": Home(
        "recorder.cli.version:version", "Show the versions of the recorder and what it stands on."
    ),
    "wal": Home("recorder.cli.wal:wal", "Look into the logs of tables, and mend them."),
}


class MainGroup(LazyGroup):
    """The outermost group: turns every error into a line and an exit code."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run a command line as click does; exits with its code unless `standalone_mode` is false."""
        invocation = extra.setdefault("obj", Invocation())
        extra.setdefault("prog_name", "recorder")
        _open_streams()
        run: Any = super().main  # click overloads it by the literal value of standalone_mode
        if not standalone_mode:
            return run(*args, standalone_mode=False, **extra)
        try:
            with _ends_on_terminate():
                code = run(*args, standalone_mode=False, **extra)
            sys.stdout.flush()
        except BrokenPipeError:
            _quiet_pipe()
        except (click.Abort, KeyboardInterrupt):
            _stopped(invocation)
            sys.exit(EXIT_INTERRUPTED)
        except Terminated:
            _stopped(invocation)
            raise
        except Exception as error:  # noqa: BLE001 - the outermost place: every error becomes one line
            given = args[0] if args else extra.get("args")
            # Where parsing failed, what stands behind the mistake was not read.
            invocation.json |= "--json" in (sys.argv[1:] if given is None else given)
            _fail(error, invocation)
        sys.exit(code if isinstance(code, int) and not isinstance(code, bool) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """As click does; it would write an empty line when it is interrupted, also where a program reads."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, EOFError) as error:
            raise click.Abort from error


@contextlib.contextmanager
def _ends_on_terminate() -> Iterator[None]:
    """SIGTERM raises `Terminated` in the main thread, once: a second one does not hurry what closes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except Terminated:
        raise  # SIGTERM stays ignored until the process has ended
    except BaseException:
        signal.signal(signal.SIGTERM, before)
        raise
    else:
        signal.signal(signal.SIGTERM, before)


def _open_streams() -> None:
    """Standard streams that were closed (`>&-`) lead nowhere; else a file that is opened next would get their number,
    and with it what is printed."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() not in ("utf-8", "utf8"):
            stream.reconfigure(errors="backslashreplace")  # a locale that lacks a character is no error
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - until the end
                if getattr(sys, name).fileno() == number:
                    os.set_inheritable(number, True)


def _quiet_pipe() -> NoReturn:
    _give_up_output()
    sys.exit(EXIT_FAILURE)


def _give_up_output() -> None:
    # Whatever is still buffered would raise again when the interpreter closes the stream.
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())


def _asks_for_help(error: Exception) -> TypeGuard[click.UsageError]:
    """Whether a group was called without a command: its help is what to say."""
    return isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ()))


def _stopped(invocation: Invocation) -> None:
    if sys.stderr.isatty():
        click.echo(err=True)  # behind what the terminal shows of the key
    click.echo('{"note":"stopped"}' if invocation.json else "stopped", err=True)


def _fail(error: Exception, invocation: Invocation) -> NoReturn:
    from recorder.cli.output import NO_COMMAND, error_lines, print_error

    if _asks_for_help(error):
        if not invocation.json:
            error.show()
            sys.exit(EXIT_WRONG_USE)
        path = error.ctx.command_path if error.ctx is not None else "recorder"
        error = click.UsageError(f'{NO_COMMAND}; see "{path} --help"')
    lines, code = error_lines(error)
    if invocation.debug:
        from recorder.redact import redacted

        click.echo(redacted("".join(traceback.format_exception(error))), err=True, nl=False)
    print_error(lines, as_json=invocation.json)
    try:
        sys.stdout.flush()
    except OSError:
        _give_up_output()
    assert code in (EXIT_FAILURE, EXIT_WRONG_USE)
    sys.exit(code)


@click.group(
    "recorder",
    cls=MainGroup,
    homes=HOMES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="coldpath-recorder", message="%(version)s")
@global_options
def main() -> None:
    """A flight recorder for trading systems: events in, ClickHouse out.

    Settings come from defaults, a TOML file, the environment (RECORDER_…) and these options, in rising priority;
    "recorder config" shows them.

    \b
    Example:
        recorder demo
        recorder query "SELECT symbol, count() FROM market_data GROUP BY symbol"
    """
