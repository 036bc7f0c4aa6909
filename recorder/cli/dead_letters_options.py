"""What the commands of dead letters have in common: filters, names, times, and the way to a database that they read."""

from __future__ import annotations

import contextlib
import datetime
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from recorder.cli.errors import Failure
from recorder.reading.reader import open_reader

if TYPE_CHECKING:
    import pyarrow as pa

    from recorder.dead_letters.examine import Examiner
    from recorder.dead_letters.store import Filter, Store
    from recorder.reading.reader import Reader
    from recorder.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

NS_PER_S = 1_000_000_000
_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)")
_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_PARAMETER = re.compile(r"\{(\w+):String\}")
_CODE = re.compile(r"\(code (\d+)")
_UNKNOWN_TABLE = 60


class When(click.ParamType[int]):
    """A time: ISO 8601 (UTC where it names no zone), or how long ago, such as `90m`, `2h`, `7d`. Becomes ns."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The time in ns since the epoch."""
        if isinstance(value, int):
            return value
        if found := _AGO.fullmatch(value.strip()):
            return time.time_ns() - int(float(found[1]) * _UNIT_S[found[2]] * NS_PER_S)
        try:
            when = datetime.datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is no time; write 2026-01-05, 2026-01-05T12:30Z, or 2h for two hours ago",
                param,
                ctx,
            )
        if when.tzinfo is None:
            when = when.replace(tzinfo=datetime.UTC)
        since = when - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        return (since.days * 86_400 + since.seconds) * NS_PER_S + since.microseconds * 1_000


def filters(function: F) -> F:
    """The options that say which letters; the command takes them as `**which` and gives them to `filter_of`."""
    for option in reversed(
        [
            click.option(
                "--table", metavar="NAME", help='Of this table; "" are messages, which have none yet.'
            ),
            click.option("--reason", metavar="CODE", help="Of this reason, such as unknown_field."),
            click.option(
                "--since", type=When(), help="Not older: 2026-01-05, 2026-01-05T12:30Z, or 2h, 7d ago."
            ),
            click.option("--until", type=When(), help="Older than this."),
            click.option(
                "--origin", metavar="TEXT", help="Whose origin has this text in it: a bus, topic or file."
            ),
        ]
    ):
        function = option(function)
    return function


def filter_of(names: Sequence[str] = (), **which: Any) -> Filter:
    """The filter that the options and names say.

    Raises:
        UsageError: a name is none.
    """
    from recorder.dead_letters.letter import parse_name
    from recorder.dead_letters.store import Filter

    try:
        ids = tuple(parse_name(name) for name in names)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return Filter(
        table=which["table"],
        reason=which["reason"],
        since_ns=which["since"],
        until_ns=which["until"],
        origin=which["origin"],
        ids=ids,
    )


def when_shown(ns: int) -> str:
    """A time for people, UTC, to the millisecond."""
    whole, rest = divmod(ns, NS_PER_S)
    at = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=whole)
    return f"{at:%Y-%m-%d %H:%M:%S}.{rest // 1_000_000:03}"


class Reading(NamedTuple):
    """A database to look at."""

    store: Store
    examiner: Examiner


@contextlib.contextmanager
def reading(settings: Settings) -> Iterator[Reading]:
    """Look at the dead letters of the target, and change nothing.

    Raises:
        Failure, SinkError: there is no such database, or it cannot be opened.
        SettingsError: the settings cannot be used.
    """
    from recorder.dead_letters.assembly import examiner_on, rebuilder_of
    from recorder.dead_letters.store import Store, blocking

    rebuilder = rebuilder_of(settings)
    reader = open_reader(settings)
    try:
        asked = _Asked(reader)
        store = Store(blocking(asked.arrow), settings.database)
        yield Reading(store, examiner_on(asked, settings.database, store, rebuilder))
    finally:
        reader.close()


class _Refused(Failure):
    """A statement failed; `code` is ClickHouse's, for whoever can do without the answer."""

    def __init__(self, message: str):
        found = _CODE.search(message)
        self.code = int(found[1]) if found else 0
        if self.code == _UNKNOWN_TABLE:
            message = f'the database has no such table; run "recorder migrate up" ({message})'
        super().__init__(message)


class _Asked:
    """A reader as the look at a schema needs it, and as the store does."""

    def __init__(self, reader: Reader):
        self._reader = reader

    def arrow(self, sql: str) -> pa.Table:
        """The answer of a statement."""
        import pyarrow as pa

        try:
            answer = b"".join(self._reader.stream(sql, "ArrowStream"))
        except Failure as error:
            raise _Refused(str(error)) from error
        with pa.ipc.open_stream(answer) as stream:
            return stream.read_all()

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        """Rows of a statement; its parameters are texts."""
        from schemas.quote import quote_text

        bound = _PARAMETER.sub(lambda found: quote_text(str((parameters or {})[found[1]])), sql)
        columns = [_plain(column.to_pylist()) for column in self.arrow(bound).columns]
        return list(zip(*columns, strict=True))

    def command(self, sql: str) -> object:
        """Nothing is changed here."""
        raise NotImplementedError(sql)


def _plain(values: Sequence[Any]) -> list[Any]:
    return [value.decode() if isinstance(value, bytes) else value for value in values]
