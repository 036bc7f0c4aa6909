"""`recorder bars build|verify`: bars of market data."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from recorder.bars.survey import DELAY_S, Scope, require_tables
from recorder.bars.windows import ALL_BARS, Bars
from recorder.cli.errors import Failure
from recorder.cli.lazy import Home, LazyGroup
from recorder.cli.options import Number
from recorder.cli.wal_filter import Moment
from recorder.reading.database import client_of, folder_of, must_exist, plain_message

if TYPE_CHECKING:
    from recorder.settings import Settings
    from schemas.executor import SqlExecutor

F = TypeVar("F", bound=Callable[..., Any])

HOMES = {
    "build": Home("recorder.cli.bars_build:build", "Compute the bars that are due; late rows make them so."),
    "verify": Home("recorder.cli.bars_verify:verify", "Compute bars again, and compare. Changes nothing."),
}


@click.group(cls=LazyGroup, homes=HOMES)
def bars() -> None:
    """Bars of one second and one minute, from recorded trades and quotes (market_bars_1s, market_bars_1m).

    \b
    Example:
        recorder bars build
        recorder bars verify --since 2024-08-08
        recorder query "SELECT ts, open, high, low, close, volume FROM market_bars_1m WHERE symbol = 'BTCUSDT'"
    """


def scope_options(function: F) -> F:
    """Which bars: `tables`, `since`, `until` and `delay_s`."""
    for option in (
        click.option(
            "--delay-s", type=Number(0), default=DELAY_S, show_default=True, metavar="SECONDS",
            help="A window is closed so long after its end.",
        ),
        click.option("--until", type=Moment(), metavar="TIME", help="Hours that begin before this."),
        click.option("--since", type=Moment(), metavar="TIME", help="From the hour of this time on."),
        click.option(
            "--table", "-t", "tables", multiple=True, type=click.Choice([each.name for each in ALL_BARS]),
            help="Only these bars; may be given twice.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def chosen(tables: Sequence[str]) -> list[Bars]:
    """The bars of these names; all where none is named."""
    return [each for each in ALL_BARS if not tables or each.name in tables]


def scope_of(since: int | None, until: int | None) -> Scope:
    """The hours that were asked for.

    Raises:
        click.UsageError: none can be.
    """
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--until is not after --since; no hour can be between them")
    return Scope(since_ns=since, until_ns=until)


@contextlib.contextmanager
def writing(settings: Settings) -> Iterator[SqlExecutor]:
    """The database of the settings, with the tables of bars.

    Raises:
        Failure, SinkError, CannotBuild: it is not there, cannot be opened, or lacks them.
    """
    from schemas.executor import ClientExecutor

    if settings.target.embedded:
        must_exist(folder_of(settings))
    with client_of(settings, create=False) as client:
        executor = ClientExecutor(client)
        require_tables(executor, settings.database)
        with told_plainly():
            yield executor


@contextlib.contextmanager
def told_plainly() -> Iterator[None]:
    """ClickHouse's errors as one line.

    Raises:
        Failure: a statement failed.
    """
    from clickhouse_connect.driver.exceptions import Error

    try:
        yield
    except Error as error:
        raise Failure(plain_message(error)) from error
