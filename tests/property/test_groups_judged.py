"""Symbol groups: a batch that some groups of a day committed is completed, whatever groups the table had or has."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.batch import Batch, cut_by_partitions
from recorder.build import MAX_PARTITIONS, max_times
from recorder.errors import SettingsError
from recorder.settings import Settings
from recorder.subset import judge
from retention.partitions import span_of
from schemas.core.market import MARKET_DATA
from schemas.core.tables import PACK
from schemas.errors import PackError
from schemas.policy import SYMBOL_GROUPS_MAX, Partition
from schemas.render import is_cut_by, partition_expression
from schemas.table import table

DAY_NS = 86_400_000_000_000
START_NS = 1_723_075_200_000_000_000  # 2024-08-08
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
ROWS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(SYMBOLS)), min_size=1, max_size=30)


def _batch(rows: list[tuple[int, str]]) -> Batch:
    times = [START_NS + day * DAY_NS + n for n, (day, _) in enumerate(rows)]
    columns = {
        "ts_local": pa.array(times, pa.timestamp("ns", tz="UTC")),
        "symbol": pa.array([symbol for _, symbol in rows]),
        "_log": pa.array([7] * len(rows), pa.uint64()),
        "_seq": pa.array(range(len(rows)), pa.uint64()),
    }
    return Batch("market_data", pa.RecordBatch.from_pydict(columns), 0)


@given(ROWS, st.data())
def test_groups_that_are_in_are_in_and_the_others_are_sent_again(
    rows: list[tuple[int, str]], data: st.DataObject
) -> None:
    """For any groups at the time of the insert and any of them committed: exactly the others' rows are absent."""
    group_of = data.draw(st.fixed_dictionaries({symbol: st.integers(0, 3) for symbol in SYMBOLS}))
    partitions = [(day, group_of[symbol]) for day, symbol in rows]
    committed = data.draw(st.sets(st.sampled_from(partitions)))
    there = {n for n, partition in enumerate(partitions) if partition in committed}
    verdict = judge(_batch(rows), {(7, n) for n in there}, Partition.DAY)
    absent = [n for n in range(len(rows)) if n not in there]
    assert verdict.partly == ()
    assert verdict.present_rows == len(there)
    assert (verdict.absent.identities() if verdict.absent else []) == [(7, n) for n in absent]


@given(ROWS, st.data())
def test_a_symbol_of_a_day_that_is_partly_there_is_named(
    rows: list[tuple[int, str]], data: st.DataObject
) -> None:
    """No insert makes that, whatever the groups: the day is told, once, and such rows are not sent again."""
    there = data.draw(st.sets(st.sampled_from(range(len(rows)))))
    verdict = judge(_batch(rows), {(7, n) for n in there}, Partition.DAY)
    in_table = {rows[n] for n in there}
    partly = {rows[n][0] for n in range(len(rows)) if n not in there and rows[n] in in_table}
    assert sorted(verdict.partly) == sorted(START_NS // DAY_NS + day for day in partly)
    absent = verdict.absent.identities() if verdict.absent else []
    assert absent == [(7, n) for n, row in enumerate(rows) if row not in in_table]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=200), st.integers(1, SYMBOL_GROUPS_MAX))
def test_an_insert_touches_fewer_partitions_than_the_server_takes(days: list[int], groups: int) -> None:
    """Cut by days, a batch stays below 100 partitions though each day has all groups; without groups below 21."""
    policy = dataclasses.replace(MARKET_DATA.policy, symbol_groups=groups)
    most = max_times(policy)
    cuts = list(cut_by_partitions(np.array(days), most))
    assert [first for first, _ in cuts] == [0, *(stop for _, stop in cuts[:-1])]
    for first, stop in cuts:
        partitions = len(set(days[first:stop])) * groups
        assert partitions < 100
        assert groups > 1 or partitions <= MAX_PARTITIONS
    assert most >= 3, "rows around midnight must not be cut to pieces"


def test_the_key_is_the_day_and_the_group() -> None:
    """One group is the day alone; both are cut by the policy's time, and a month is not."""
    keys = [
        partition_expression(dataclasses.replace(MARKET_DATA.policy, symbol_groups=groups))
        for groups in (1, 8)
    ]
    assert keys == ["toYYYYMMDD(ts_local)", "(toYYYYMMDD(ts_local), cityHash64(symbol) % 8)"]
    assert all(is_cut_by(key, MARKET_DATA.policy) for key in keys)
    assert not is_cut_by("toYYYYMM(ts_local)", MARKET_DATA.policy)
    assert span_of("20240808-3", Partition.DAY) == (START_NS, START_NS + DAY_NS)


@pytest.mark.parametrize(
    ("name", "groups", "words"),
    [
        ("market_data", 33, "less than or equal to 32"),
        ("market_data", 0, "greater than or equal to 1"),
        ("system_events", 4, "which this table has not"),
        ("orders", 4, "partitioned by day, this one is by month"),
    ],
)
def test_where_there_can_be_no_groups_it_is_said_at_once(name: str, groups: int, words: str) -> None:
    """A table without symbols, by month, or too many groups."""
    chosen = next(table for table in PACK.tables if table.name == name)
    with pytest.raises(SettingsError, match=words):
        Settings(packs=("core",), tables={name: {"symbol_groups": groups}}).for_table(chosen)


def test_a_pack_that_asks_for_what_cannot_be_is_refused() -> None:
    """As a setting that does."""
    orders = next(table for table in PACK.tables if table.name == "orders")
    with pytest.raises(PackError, match="table orders: symbol_groups 4 is for tables"):
        table("orders", orders.row, dataclasses.replace(orders.policy, symbol_groups=4))
