"""Partition ids and spans agree with each other and with the engine; how many partitions full retention has."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retention.partitions import Span, at_full_retention, partition_id, span_of
from retention.policy import DAY_NS
from schemas.policy import Partition

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

LAST_NS = 9_223_372_036_000_000_000  # in 2262, the last that 64 bits hold
TIMES = st.integers(0, LAST_NS)
BOTH = st.sampled_from(Partition)


@given(at_ns=TIMES, partition=BOTH)
def test_a_time_is_in_the_span_of_its_partition(at_ns: int, partition: Partition) -> None:
    """The id of a time means a span that has that time, and each moment of the span has that id."""
    identifier = partition_id(at_ns, partition)
    span = span_of(identifier, partition)
    assert span is not None
    assert span.covers(at_ns, at_ns)
    assert partition_id(span.start_ns, partition) == partition_id(span.end_ns - 1, partition) == identifier
    assert partition_id(span.end_ns, partition) != identifier


@given(at_ns=TIMES, partition=BOTH, group=st.integers(0, 255))
def test_a_partition_of_time_and_group_has_the_span_of_its_time(
    at_ns: int, partition: Partition, group: int
) -> None:
    """What stands behind the time in an id changes nothing about its span."""
    identifier = partition_id(at_ns, partition)
    assert span_of(f"{identifier}-{group}", partition) == span_of(identifier, partition)


@pytest.mark.parametrize("partition", Partition)
@pytest.mark.parametrize(
    "identifier", ["", "all", "2024", "20241301", "202413", "20240230", "2024081", "-20240808", "0" * 32, "20240808 "]
)  # fmt: skip
def test_what_is_no_id_has_no_span(identifier: str, partition: Partition) -> None:
    """Ids of other keys, and dates that are none, have no span."""
    assert span_of(identifier, partition) is None


def test_an_id_of_a_month_is_none_of_a_day() -> None:
    """The two forms are not taken for each other."""
    assert span_of("202408", Partition.DAY) is None
    assert span_of("20240808", Partition.MONTH) is None


def test_ids_are_those_of_the_engine(engine: Client) -> None:
    """`toYYYYMMDD` and `toYYYYMM` of the engine give the ids that are counted here."""
    times = [at * DAY_NS + shift for at in range(0, 106_000, 37) for shift in (0, DAY_NS - 1)]
    rows = engine.query(
        "SELECT arrayMap(t -> toString(toYYYYMMDD(fromUnixTimestamp64Nano(t, 'UTC'))), {times:Array(Int64)}), "
        "arrayMap(t -> toString(toYYYYMM(fromUnixTimestamp64Nano(t, 'UTC'))), {times:Array(Int64)})",
        {"times": times},
    ).result_rows
    days, months = rows[0]
    assert list(days) == [partition_id(at_ns, Partition.DAY) for at_ns in times]
    assert list(months) == [partition_id(at_ns, Partition.MONTH) for at_ns in times]


@given(
    start=st.dates(datetime.date(1971, 1, 1), datetime.date(2090, 1, 1)),
    keep=st.integers(1, 900),
    partition=BOTH,
)
def test_no_moment_has_more_partitions_than_full_retention(
    start: datetime.date, keep: int, partition: Partition
) -> None:
    """The days from one to `keep` days later are never in more partitions than said."""
    days = [start + datetime.timedelta(days=day) for day in range(keep + 1)]
    form = "%Y%m%d" if partition is Partition.DAY else "%Y%m"
    assert len({day.strftime(form) for day in days}) <= at_full_retention(partition, keep)


def test_full_retention_is_not_said_too_high() -> None:
    """Some moment has as many: 90 days are in 91 partitions of a day, 31 days in 3 months at most, and so on."""
    assert at_full_retention(Partition.DAY, 90) == 91
    assert [at_full_retention(Partition.MONTH, keep) for keep in (1, 28, 29, 31, 365)] == [2, 2, 3, 3, 13]


def test_spans_that_touch_do_not_overlap() -> None:
    """A span ends before its end."""
    assert not Span(0, 5).overlaps(Span(5, 9))
    assert Span(0, 6).overlaps(Span(5, 9))
