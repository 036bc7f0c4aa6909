"""The builder: rows of every shape become one record batch, and a bad row costs itself and no other."""

from __future__ import annotations

import collections
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from recorder.arrow_rows import exact_columns
from recorder.bad_rows import BadRow, row_bytes
from recorder.batch import NS_PER_DAY, Batch, cut_by_partitions
from recorder.build import SLICE_ROWS, BatchBuilder
from recorder.entries import ArrowBlock, Block, Waiting
from recorder.errors import WrongColumns
from schemas.columns import (
    REQUIRED,
    Bool,
    Float,
    Floats,
    Id,
    Money,
    Name,
    Payload,
    Tags,
    TimeNs,
    UInt32,
    choice,
)
from schemas.policy import Durability, Overflow, Partition, TablePolicy
from schemas.table import Row, table

NOW_NS = 1_700_000_000_000_000_000
EPOCH = 77
Side = Annotated[str, choice("buy", "sell")]


class Thing(Row, kw_only=True):
    """One of each kind."""

    ts_local: TimeNs = 0
    run_id: Name = ""
    correlation_id: Id | None = None
    symbol: Name
    qty: Money
    side: Side | None = None
    price: Float | None = None
    count: UInt32 = 0
    raw: Payload = b""
    flag: Bool = False
    sizes: Floats = ()
    tags: Tags = {}


THING = table(
    "things",
    Thing,
    TablePolicy(
        durability=Durability.MEMORY,
        overflow=Overflow.DROP_OLDEST,
        partition=Partition.DAY,
        order_by=("ts_local",),
    ),
)
NAMES = [column.name for column in THING.columns]


class Built:
    """A builder, and what came out of it."""

    def __init__(self, **options: Any):
        self.bad: list[BadRow] = []
        self.builder = BatchBuilder(THING, epoch=EPOCH, run_id="run-1", on_bad=self.bad.append, **options)

    def add(self, *rows: Any, correlations: Sequence[str | None] | None = None) -> list[Batch]:
        now = time.monotonic_ns()
        entries = [(row, now + n, correlations[n] if correlations else None, 0) for n, row in enumerate(rows)]
        return self.add_entries(entries)

    def add_entries(self, entries: Sequence[Waiting]) -> list[Batch]:
        for built in self.builder.add(entries):
            assert 0 < built <= 2_048
        return self.builder.seal()


def good(n: int = 0, **fields: Any) -> dict[str, Any]:
    return {"ts_local": NOW_NS + n, "symbol": f"S{n}", "qty": f"{n}.5", "count": n} | fields


@pytest.mark.parametrize("rows", [1, SLICE_ROWS + 1])
def test_it_pauses_between_the_columns_of_each_slice(rows: int) -> None:
    """However few its rows: a column at a time is the longest that other threads wait."""
    pauses: list[int] = []
    built = Built(breathe=lambda: pauses.append(1))
    built.add(*(good(n) for n in range(rows)))
    # At least: looking for secrets pauses too.
    assert len(pauses) >= len(NAMES) * -(-rows // SLICE_ROWS)


def full(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        column.name: row.get(column.name, {} if column.name == "tags" else column.default)
        for column in THING.columns
    }


class OtherMapping(collections.abc.Mapping[str, Any]):
    def __init__(self, fields: dict[str, Any]):
        self.fields = fields

    def __getitem__(self, key: str) -> Any:
        return self.fields[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)


class HostileMapping(OtherMapping):
    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("no item")


class HostileKeys(OtherMapping):
    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no keys")


class HostileLen(OtherMapping):
    def __len__(self) -> int:
        raise RuntimeError("no length")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no keys")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class HostileTuple(tuple):
    def __len__(self) -> int:
        raise RuntimeError("no length")


class HostileValue:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    __hash__ = None  # type: ignore[assignment]


SHAPES = {
    "dict": lambda row: dict(row),
    "full dict": full,
    "mapping": OtherMapping,
    "tuple": lambda row: tuple(full(row).values()),
    "struct": lambda row: Thing(**row),
}
BAD = {
    "missing_field": {"ts_local": NOW_NS, "qty": 1},
    "unknown_field": good(colour="red"),
    "wrong_length": (1, 2, 3),
    "wrong_row": 5,
    "null": good(symbol=None),
    "wrong_type": good(count=1.5),
    "out_of_range": good(count=-1),
    "unknown_choice": good(side="left"),
    "bad_decimal": good(qty="0.0000000000000000001"),
    "not_finite": good(price=math.nan),
    "bad_text": good(symbol="\ud800"),
    "not_readable": HostileMapping(good()),
}
HOSTILE = [
    HostileMapping(good()),
    HostileKeys(good()),
    HostileLen({}),
    HostileTuple((1,)),
    good(ts_local=np.array([1, 2])),
    good(run_id=HostileValue()),
    good(count=HostileValue()),
    good(symbol=HostileValue()),
    good(sizes=np.array(5.0)),
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(SHAPES)), min_size=1, max_size=20))
def test_rows_of_every_shape_become_the_same_columns(shapes: list[str]) -> None:
    """An object, a mapping, a tuple: mixed or not, they say the same, in order, each with its identity."""
    built = Built()
    rows = [good(n, side="buy", raw=b"\xff", sizes=(1.0,), tags={"a": "b"}) for n in range(len(shapes))]
    (batch,) = built.add(*(SHAPES[shape](row) for shape, row in zip(shapes, rows, strict=True)))
    assert built.bad == []
    assert batch.data.schema == THING.schema
    (reference,) = Built().add(*rows)
    assert batch.data.equals(reference.data)
    assert batch.identities() == [(EPOCH, n) for n in range(len(rows))]


bad_rows = st.one_of(st.sampled_from(list(BAD.values())), st.sampled_from(HOSTILE))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.none(), st.none(), st.none(), bad_rows), min_size=1, max_size=40))
def test_a_bad_row_costs_one_row(rows: list[Any]) -> None:
    """Whatever is wrong with some rows of a slice, all others are built, in order, and each bad one is told once."""
    built = Built()
    given_rows = [good(n) if bad is None else bad for n, bad in enumerate(rows)]
    batches = built.add(*given_rows)
    right = [n for n, bad in enumerate(rows) if bad is None]
    stored = [identity for batch in batches for identity in batch.identities()]
    assert stored == [(EPOCH, n) for n in right]
    if batches:
        assert [name for batch in batches for name in batch.data["symbol"].to_pylist()] == [
            f"S{n}" for n in right
        ]
    assert sorted((bad.log, bad.seq) for bad in built.bad) == [
        (EPOCH, n) for n in range(len(rows)) if n not in right
    ]
    assert all(bad.reason and bad.detail for bad in built.bad)


@pytest.mark.parametrize("reason", sorted(BAD))
def test_a_dead_letter_says_why(reason: str) -> None:
    """Each kind of fault has its own short code, at the first, last and every other place of a slice."""
    for place in (0, 1, 100, SLICE_ROWS - 1, SLICE_ROWS, 299):
        built = Built()
        rows: list[Any] = [good(n) for n in range(300)]
        rows[place] = BAD[reason]
        (batch,) = built.add(*rows)
        assert [(bad.reason, bad.seq) for bad in built.bad] == [(reason, place)]
        assert batch.rows == 299
        assert "things" in built.bad[0].detail or any(f"{name}:" in built.bad[0].detail for name in NAMES)


def test_what_the_producer_leaves_out_is_filled_in() -> None:
    """Local time from acceptance, the run of the settings, the correlation id of the call; defaults for the rest."""
    built = Built()
    before = time.time_ns()
    (batch,) = built.add(
        {"symbol": "A", "qty": 1},
        {"symbol": "B", "qty": 1, "run_id": "mine", "correlation_id": "own"},
        good(3),
        correlations=["call", "call", None],
    )
    row = batch.data.to_pylist()
    times = batch.data["ts_local"].cast(pa.int64()).to_pylist()
    assert all(abs(ns - before) < 10**9 for ns in times[:2])
    assert times[1] == times[0] + 1, "the order of acceptance"
    assert times[2] == NOW_NS + 3
    assert [one["run_id"] for one in row] == ["run-1", "mine", "run-1"]
    assert [one["correlation_id"] for one in row] == ["call", "own", None]
    assert [row[0][name] for name in ("count", "raw", "flag", "sizes", "tags", "price")] == [
        0,
        b"",
        False,
        [],
        [],
        None,
    ]


def test_unknown_fields_can_be_ignored_and_are_counted_once() -> None:
    """By setting a field that the table lacks is left out and counted, however often its slice is built."""
    built = Built(ignore_unknown=True)
    (batch,) = built.add(
        good(0, colour="red", size=5), good(1), good(2, count=1.5), HOSTILE[0], good(4, colour="blue")
    )
    assert batch.data["symbol"].to_pylist() == ["S0", "S1", "S4"]
    assert built.builder.unknown_fields == 3
    assert [bad.reason for bad in built.bad] == ["wrong_type", "not_readable"]


def test_rows_of_a_source_keep_its_identities_and_need_their_own_time() -> None:
    """The recorder's clock would say another time at each delivery, and the look-up would miss the row."""
    built = Built()
    rows = [good(0), {"symbol": "A", "qty": 1}, good(2)]
    (batch,) = built.add_entries([Block(rows, time.monotonic_ns(), 5, [10, 20, 2**64 - 1], 0)])
    assert batch.identities() == [(5, 10), (5, 2**64 - 1)]
    assert batch.from_source
    assert [(bad.log, bad.seq, bad.reason) for bad in built.bad] == [(5, 20, "out_of_range")]
    (own,) = built.add(good(1))
    assert not own.from_source
    assert own.identities() == [(EPOCH, 0)]


def test_a_batch_is_one_record_batch_of_what_came() -> None:
    """Singles, blocks of a source and Arrow columns come out in order, each with its identity; then all begins anew."""
    built = Built()
    columns, _ = exact_columns(
        THING, pa.record_batch({"symbol": ["X", "Y"], "qty": [1, 2], "run_id": ["", "mine"]})
    )
    now = time.monotonic_ns()
    entries: list[Waiting] = [
        (good(0), now, None, 0),
        ArrowBlock(columns, now, 0),
        Block([good(5)], now, 9, [3], 0),
        (good(7), now, None, 0),
    ]
    (batch,) = built.add_entries(entries)
    assert batch.data["symbol"].to_pylist() == ["S0", "X", "Y", "S5", "S7"]
    assert batch.data["run_id"].to_pylist() == ["run-1", "run-1", "mine", "run-1", "run-1"]
    assert batch.identities() == [(EPOCH, 0), (EPOCH, 1), (EPOCH, 2), (9, 3), (EPOCH, 3)]
    assert all(isinstance(column, pa.Array) for column in batch.data.columns)
    batch.data.validate(full=True)
    assert built.builder.seal() == []
    assert (built.builder.rows, built.builder.nbytes, built.builder.oldest_ns) == (0, 0, None)


def test_two_seals_never_share_a_token() -> None:
    """A token names these rows and no others."""
    built = Built()
    tokens = {built.add(good(n))[0].token for n in range(50)}
    assert len(tokens) == 50


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(1, 4))
def test_a_batch_is_cut_as_seldom_as_can_be(keys: list[int], most: int) -> None:
    """Consecutive runs that cover all rows, each within `most` partitions, and no fewer would do."""
    cuts = list(cut_by_partitions(np.array(keys, dtype=np.int64), most))
    assert [start for start, _ in cuts] == [0, *[stop for _, stop in cuts[:-1]]]
    assert cuts[-1][1] == len(keys)
    assert all(start < stop and len(set(keys[start:stop])) <= most for start, stop in cuts)
    fewest = [0] + [len(keys) + 1] * len(keys)  # brute force: the fewest runs for every beginning of the rows
    for stop in range(1, len(keys) + 1):
        for start in range(stop):
            if len(set(keys[start:stop])) <= most:
                fewest[stop] = min(fewest[stop], fewest[start] + 1)
    assert len(cuts) == fewest[-1]


def test_a_batch_touches_at_most_twenty_partitions() -> None:
    """Rows of fifty days go as three batches, in order, nothing lost."""
    built = Built()
    batches = built.add(*(good(n, ts_local=NOW_NS + n * NS_PER_DAY) for n in range(50)))
    assert [batch.rows for batch in batches] == [20, 20, 10]
    assert [identity for batch in batches for identity in batch.identities()] == [
        (EPOCH, n) for n in range(50)
    ]
    assert len({batch.token for batch in batches}) == 3


def test_a_dead_letter_shows_what_json_does_not_have() -> None:
    """NaN, infinity, bytes, lone surrogates, decimals and numpy values are all readable in the payload."""
    row = {
        "nan": math.nan,
        "inf": -math.inf,
        "raw": b"\xff\x00",
        "text": "\ud800",
        "money": Decimal("1.50"),
        "array": np.array([1, 2]),
        "scalar": np.float64(0.5),
        5: "key",
        "nested": OtherMapping({"a": 1}),
    }
    payload, payload_format = row_bytes(row)
    assert payload_format == "json"
    shown = json.loads(payload)
    assert math.isnan(shown["nan"])
    assert shown["inf"] == -math.inf
    assert shown["raw"] == {"base64": "/wA="}
    assert shown["text"] == "\ud800"
    assert shown["money"] == "1.50"
    assert (shown["array"], shown["scalar"], shown["5"], shown["nested"]) == ([1, 2], 0.5, "key", {"a": 1})
    assert (
        row_bytes(Thing(symbol="A", qty=1))[0]
        == json.dumps(
            msgspec.structs.asdict(Thing(symbol="A", qty=1)), default=lambda value: {"base64": ""}
        ).encode()
    )
    cycle: dict[str, Any] = {}
    cycle["me"] = cycle
    assert row_bytes(cycle)[1] == "text"
    assert row_bytes(HostileLen({}))[1] == "text"


# -- Arrow columns --------------------------------------------------------------------------------------------------

wide_ints = st.integers(-(2**63), 2**63 - 1)


def arrays(kind: pa.DataType, values: st.SearchStrategy[Any], rows: int) -> st.SearchStrategy[pa.Array]:
    return st.lists(st.one_of(st.none(), values), min_size=rows, max_size=rows).map(
        lambda some: pa.array(some, kind)
    )


def columns_of(rows: int) -> st.SearchStrategy[dict[str, pa.Array]]:
    stamp = pa.timestamp
    near = st.integers(1_600_000_000, 1_800_000_000)
    return st.fixed_dictionaries(
        {
            "symbol": st.one_of(
                arrays(pa.string(), st.text(max_size=3), rows),
                arrays(pa.large_string(), st.text(max_size=3), rows),
                arrays(pa.string(), st.text(max_size=3), rows).map(lambda some: some.dictionary_encode()),
            ),
            "qty": st.one_of(
                arrays(pa.float64(), st.floats(), rows),
                arrays(pa.float32(), st.floats(width=32), rows),
                arrays(
                    pa.string(), st.sampled_from(["1.5", "x", "1e30", "1" + "0" * 30, "0.1", "1e5"]), rows
                ),
                arrays(pa.int64(), wide_ints, rows),
                arrays(pa.decimal128(38, 0), st.integers(0, 10**37).map(Decimal), rows),
                arrays(
                    pa.decimal128(20, 4), st.integers(0, 10**15).map(lambda n: Decimal(n).scaleb(-4)), rows
                ),
            ),
        },
        optional={
            "ts_local": st.one_of(
                arrays(pa.int64(), st.one_of(near.map(lambda s: s * 10**9), near, st.just(0)), rows),
                arrays(stamp("ms", "UTC"), st.one_of(near.map(lambda s: s * 1_000), wide_ints), rows),
                arrays(stamp("us", "Europe/Berlin"), near.map(lambda s: s * 10**6), rows),
            ),
            "count": st.one_of(
                arrays(pa.int64(), st.one_of(st.integers(0, 9), wide_ints), rows),
                arrays(pa.uint8(), st.integers(0, 255), rows),
            ),
            "price": st.one_of(
                arrays(pa.float32(), st.floats(width=32), rows),
                arrays(pa.int64(), wide_ints, rows),
                arrays(pa.float64(), st.floats(), rows),
            ),
            "side": arrays(pa.string(), st.sampled_from(["buy", "sell", "left"]), rows),
            "raw": arrays(pa.binary(), st.binary(max_size=3), rows),
            "flag": arrays(pa.bool_(), st.booleans(), rows),
            "sizes": st.one_of(
                arrays(pa.list_(pa.float64()), st.lists(st.one_of(st.floats(), st.none()), max_size=2), rows),
                arrays(pa.list_(pa.int64()), st.lists(wide_ints, max_size=2), rows),
            ),
            "tags": arrays(
                pa.map_(pa.string(), pa.string()),
                st.dictionaries(
                    st.text(max_size=2), st.one_of(st.none(), st.text(max_size=2)), max_size=2
                ).map(lambda tags: list(tags.items())),
                rows,
            ),
            "run_id": arrays(pa.string(), st.just("r"), rows),
        },
    )


def as_rows(data: pa.RecordBatch) -> list[dict[str, Any]]:
    """The columns as a producer would give them row by row."""
    rows = []
    per_unit = {"ms": 10**6, "us": 10**3, "ns": 1, "s": 10**9}
    for n in range(data.num_rows):
        row = {}
        for name in data.schema.names:
            value = data[name][n]
            if value.is_valid and pa.types.is_timestamp(value.type):
                row[name] = value.cast(pa.int64()).as_py() * per_unit[value.type.unit]
            elif pa.types.is_map(value.type):
                row[name] = dict(value.as_py()) if value.is_valid else None
            elif name == "ts_local" and not value.is_valid:
                continue
            else:
                row[name] = value.as_py()
        rows.append(row)
    return rows


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4).flatmap(columns_of))
def test_columns_say_what_their_rows_say(columns: dict[str, pa.Array]) -> None:
    """Arrow columns store what the same rows store one by one, and lose the same rows, each by itself."""
    data = pa.record_batch(columns)
    good_columns, others = exact_columns(THING, data)
    by_columns = Built()
    entries: list[Waiting] = [ArrowBlock(good_columns, 0, 0)] if good_columns.num_rows else []
    entries += [(row, 0, None, 0) for row in others]
    stored = stored_rows(by_columns.add_entries(entries))
    by_rows = Built()
    assert stored == stored_rows(by_rows.add(*as_rows(data)))
    assert len(stored) + len(by_columns.bad) == data.num_rows == good_columns.num_rows + len(others)


def stored_rows(batches: list[Batch]) -> list[str]:
    """What was stored, to compare: sorted, without identities, and without times that the recorder made up."""
    rows = []
    for batch in batches:
        times = batch.data["ts_local"].cast(pa.int64()).to_pylist()
        for row, ns in zip(
            batch.data.drop_columns(["ts_local", "_log", "_seq"]).to_pylist(), times, strict=True
        ):
            rows.append(repr((ns if ns < 1_790_000_000 * 10**9 else "now", row)))
    return sorted(rows)


REFUSED_COLUMNS = {
    "unknown": {"colour": pa.array(["red"])},
    "text for a number": {"count": pa.array(["5"])},
    "float for an integer": {"count": pa.array([5.0])},
    "bool for a float": {"price": pa.array([True])},
    "texts for floats": {"sizes": pa.array([["1.5"]])},
    "bools for floats": {"sizes": pa.array([[True]])},
    "time without a zone": {"ts_local": pa.array([NOW_NS], pa.timestamp("ns"))},
    "numbers for tags": {"tags": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))},
    "number for a text": {"raw": pa.array([5])},
    "day for a time": {"ts_local": pa.array([0], pa.date32())},
}


@pytest.mark.parametrize("what", sorted(REFUSED_COLUMNS))
def test_a_column_of_a_wrong_type_is_refused_as_a_whole(what: str) -> None:
    """That is a mistake of the program, not of a row: it is told at once, and names the column."""
    columns = {"symbol": pa.array(["A"]), "qty": pa.array([1])} | REFUSED_COLUMNS[what]
    with pytest.raises(WrongColumns, match=next(iter(REFUSED_COLUMNS[what]))):
        exact_columns(THING, pa.record_batch(columns))


def test_a_column_that_is_missing_or_there_twice_is_refused() -> None:
    """A column without a default must be there, and once."""
    with pytest.raises(WrongColumns, match="qty"):
        exact_columns(THING, pa.record_batch({"symbol": pa.array(["A"])}))
    twice = pa.RecordBatch.from_arrays(
        [pa.array(["A"]), pa.array(["B"]), pa.array([1])], ["symbol", "symbol", "qty"]
    )
    with pytest.raises(WrongColumns, match="symbol"):
        exact_columns(THING, twice)
    assert any(column.default is REQUIRED for column in THING.columns)


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_a_time_beyond_the_nanoseconds_is_no_other_time(unit: str) -> None:
    """A time that 64 bits of nanoseconds cannot hold wraps round in a cast; it must make a dead letter."""
    per_s = {"s": 1, "ms": 10**3, "us": 10**6}[unit]
    years = (500, 600, 700, 900, 1_200, 1_800)
    times = pa.array([years * 31_556_952 * per_s for years in years], pa.timestamp(unit, "UTC"))
    data = pa.record_batch({"symbol": ["A"] * len(times), "qty": [1] * len(times), "ts_local": times})
    good_columns, others = exact_columns(THING, data)
    built = Built()
    assert good_columns.num_rows == 0
    assert built.add(*others) == []
    assert [bad.reason for bad in built.bad] == ["out_of_range"] * len(times)
