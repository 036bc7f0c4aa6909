"""Partitions by local time: the span that a partition's id means, and how many there are at full retention.

Ids are as ClickHouse writes them: `20240808` by day (`toYYYYMMDD`), `202408` by month (`toYYYYMM`). A key with more
behind the time (`(toYYYYMMDD(ts_local), symbol_group)`) makes `20240808-3`. Times are nanoseconds since 1970, UTC.
"""

from __future__ import annotations

import datetime
import functools
import re
from typing import NamedTuple

from retention.policy import DAY_NS
from schemas.policy import Partition

_ID = {
    Partition.DAY: re.compile(r"(\d{4})(\d\d)(\d\d)(?:-\S+)?"),
    Partition.MONTH: re.compile(r"(\d{4})(\d\d)()(?:-\S+)?"),
}
_EPOCH = datetime.date(1970, 1, 1)
_FIRST_OF_CYCLE = datetime.date(2000, 3, 1)
_CYCLE_DAYS = 4 * 365 + 1
"""After so many days months and leap years come again, but for 2100 and alike."""


class Span(NamedTuple):
    """From `start_ns` on, and before `end_ns`."""

    start_ns: int
    end_ns: int

    def overlaps(self, other: Span) -> bool:
        """Whether a moment is in both."""
        return self.start_ns < other.end_ns and other.start_ns < self.end_ns

    def covers(self, first_ns: int, last_ns: int) -> bool:
        """Whether both moments are in it."""
        return self.start_ns <= first_ns <= last_ns < self.end_ns


def partition_id(at_ns: int, partition: Partition) -> str:
    """The id of the partition that a row of this time goes to."""
    day = _EPOCH + datetime.timedelta(days=at_ns // DAY_NS)
    return f"{day:%Y%m%d}" if partition is Partition.DAY else f"{day:%Y%m}"


def span_of(identifier: str, partition: Partition) -> Span | None:
    """The time that a partition's id means; None where it is no id of such a partition."""
    found = _ID[partition].fullmatch(identifier)
    if found is None:
        return None
    year, month, day = int(found[1]), int(found[2]), int(found[3] or 1)
    try:
        first = datetime.date(year, month, day)
        if partition is Partition.DAY:
            after = first + datetime.timedelta(days=1)
        else:
            after = datetime.date(year + month // 12, month % 12 + 1, 1)
    except (ValueError, OverflowError):
        return None
    return Span(_ns(first), _ns(after))


def _ns(day: datetime.date) -> int:
    return (day - _EPOCH).days * DAY_NS


@functools.cache
def at_full_retention(partition: Partition, keep_days: int) -> int:
    """The most partitions that hold a row of the last `keep_days` days at one moment, whenever that is.

    Until the run that drops it there is one more.
    """
    if partition is Partition.DAY:
        return keep_days + 1  # a moment within a day: the first and the last day are both begun
    most = 0
    for offset in range(_CYCLE_DAYS):
        first = _FIRST_OF_CYCLE + datetime.timedelta(days=offset)
        last = first + datetime.timedelta(days=keep_days)
        most = max(most, (last.year - first.year) * 12 + last.month - first.month + 1)
    return most
