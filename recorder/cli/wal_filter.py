"""Which rows of a log are asked for: by time, by epoch, by sequence."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click
import pyarrow as pa
import pyarrow.compute as pc

from recorder.cli.errors import Failure
from wal.places import Range

F = TypeVar("F", bound=Callable[..., Any])

TIME = "ts_local"
_ISO = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:?\d\d)?")
_EPOCH_DIGITS = 16


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2 only
    """A time: ISO, UTC where no zone is given, to the nanosecond; or whole nanoseconds since 1970."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Nanoseconds since 1970."""
        if isinstance(value, int):
            return value
        if re.fullmatch(r"-?\d{10,19}", value):
            return int(value)
        found = _ISO.fullmatch(value.strip())
        try:
            if found is None:
                raise ValueError
            day, clock, fraction, zone = found.groups()
            zone = "+00:00" if zone in (None, "Z") else zone
            at = datetime.datetime.fromisoformat(f"{day}T{clock or '00:00'}{zone}")
        except ValueError:
            self.fail(
                f"{value!r} is no time; write 2024-08-08T12:00:00, or nanoseconds since 1970", param, ctx
            )
        return int(at.timestamp()) * 1_000_000_000 + int((fraction or "").ljust(9, "0"))


class Epoch(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2 only
    """An epoch: 16 hexadecimal digits, as "recorder wal ls" shows it, or the decimal number that `_log` has."""

    name = "epoch"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number."""
        if isinstance(value, int):
            return value
        try:
            number = int(value, 16 if len(value) == _EPOCH_DIGITS else 10)
        except ValueError:
            number = -1
        if not 0 < number < 2**64:
            self.fail(
                f"{value!r} is no epoch; write the 16 hexadecimal digits of `recorder wal ls`", param, ctx
            )
        return number


def wanted_options(function: F) -> F:
    """The options that a `Wanted` is made of."""
    sequence = click.IntRange(min=0)
    for option in (
        click.option("--to", "stop", type=sequence, metavar="SEQUENCE", help="Up to the row before this."),
        click.option(
            "--from", "first", type=sequence, default=0, metavar="SEQUENCE", help="From this row on."
        ),
        click.option("--epoch", type=Epoch(), metavar="EPOCH", help="Rows of this opening of the log."),
        click.option("--until", type=Moment(), metavar="TIME", help="Rows whose ts_local is earlier."),
        click.option("--since", type=Moment(), metavar="TIME", help="Rows whose ts_local is this or later."),
    ):
        function = option(function)
    return function


@dataclass(frozen=True)
class Wanted:
    """None: whatever it is. `since_ns` and `first` are the first that are wanted, `until_ns` and `stop` no more."""

    since_ns: int | None = None
    until_ns: int | None = None
    epoch: int | None = None
    first: int = 0
    stop: int | None = None

    def places(self, there: Range) -> Range:
        """The part of a frame's rows that may be wanted."""
        if self.epoch is not None and there.epoch != self.epoch:
            return there._replace(stop=there.first)
        first = max(there.first, self.first)
        stop = there.stop if self.stop is None else min(there.stop, self.stop)
        return there._replace(first=min(first, there.stop), stop=max(min(first, there.stop), stop))

    def by_time(self, rows: pa.RecordBatch) -> list[bool] | None:
        """Which rows are wanted by their time; None if all are.

        Raises:
            Failure: they have no time.
        """
        if self.since_ns is None and self.until_ns is None:
            return None
        at = rows.schema.get_field_index(TIME)
        if at < 0 or not pa.types.is_timestamp(rows.schema.field(at).type):
            raise Failure(
                f"these rows have no {TIME}; leave --since and --until out, or choose by --from and --to"
            )
        column = rows.column(at)
        times = column.cast(pa.timestamp("ns", tz=column.type.tz)).cast(pa.int64())
        keep = pa.repeat(True, rows.num_rows)
        if self.since_ns is not None:
            keep = pc.and_(keep, pc.greater_equal(times, self.since_ns))
        if self.until_ns is not None:
            keep = pc.and_(keep, pc.less(times, self.until_ns))
        found: list[bool] = pc.fill_null(keep, False).to_pylist()
        return found
