"""The sum hash of rows, and Parquet there and back: over random tables of every type that packs have."""

from __future__ import annotations

import decimal
import hashlib
import math
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from harness.archives import DAY, Rows, archived, in_order, rows
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from retention.archive import (
    FolderStore,
    Limits,
    Sums,
    partition_of,
    read_files,
    sums_of,
    valuehash,
    write_partition,
)
from retention.archive.identities import IdentitySet, missing, only, portion
from retention.archive.valuehash import add_hashes, hashes
from retention.errors import ArchiveError

UINT64 = st.integers(0, 2**64 - 1)
TIMES = st.integers(-(2**62), 2**62)
BYTES = st.binary(max_size=40)
FLOATS = st.floats(allow_nan=True)


def decimals(scale: int, digits: int = 38) -> st.SearchStrategy[decimal.Decimal]:
    wide = decimal.Context(prec=90)
    return st.integers(-(10**digits) + 1, 10**digits - 1).map(
        lambda number: decimal.Decimal(number).scaleb(-scale, wide)
    )


COLUMNS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "ts_venue": (pa.timestamp("ns", "UTC"), TIMES),
    "symbol": (pa.binary(), BYTES),
    "text": (pa.string(), st.text(max_size=20)),
    "price": (pa.decimal128(38, 18), decimals(18)),
    "bids": (pa.list_(pa.float64()), st.lists(st.none() | FLOATS, max_size=4)),
    "nested": (pa.list_(pa.list_(pa.binary())), st.lists(st.lists(BYTES, max_size=3), max_size=3)),
    "labels": (pa.map_(pa.binary(), pa.binary()), st.lists(st.tuples(BYTES, BYTES), max_size=3)),
    "side": (pa.int8(), st.integers(-128, 127)),
    "count": (pa.uint32(), st.integers(0, 2**32 - 1)),
    "number": (pa.uint64(), UINT64),
    "signed": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "live": (pa.bool_(), st.booleans()),
    "rate": (pa.float64(), FLOATS),
    "small": (pa.float32(), st.floats(width=32)),
    "day": (pa.date32(), st.integers(-(2**31), 2**31 - 1)),
    "uuid": (pa.binary(16), st.binary(min_size=16, max_size=16)),
    "code": (pa.binary(5), st.binary(min_size=5, max_size=5)),
    "widest": (pa.decimal256(76, 10), decimals(10, 76)),
    "amounts": (pa.list_(pa.decimal128(38, 18)), st.lists(st.none() | decimals(18), max_size=3)),
    "of_maps": (
        pa.map_(pa.binary(), pa.list_(pa.float64())),
        st.lists(st.tuples(BYTES, st.lists(st.none() | FLOATS, max_size=2)), max_size=2),
    ),
}
TEXTS = [name for name, (kind, _) in COLUMNS.items() if pa.types.is_binary(kind) or pa.types.is_string(kind)]
SCHEMA = pa.schema(
    [
        pa.field("ts_local", pa.timestamp("ns", "UTC"), nullable=False),
        *(pa.field(name, kind) for name, (kind, _) in COLUMNS.items()),
        pa.field("_log", pa.uint64(), nullable=False),
        pa.field("_seq", pa.uint64(), nullable=False),
    ]
)
ROW = st.fixed_dictionaries(
    {
        "ts_local": TIMES,
        **{name: st.none() | values for name, (_, values) in COLUMNS.items()},
        "_log": st.sampled_from([0, 1, 2**64 - 1]),
        "_seq": UINT64,
    }
)
ROWS = st.lists(ROW, min_size=1, max_size=12, unique_by=lambda row: (row["_log"], row["_seq"]))
QUICK = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def batch_of(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, SCHEMA)


def bits(value: Any) -> Any:
    """A value as what tells it from every other one; all NaN are one."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("<d", value)
    if isinstance(value, list | tuple):
        return [bits(item) for item in value]
    return value


def same(one: pa.Table, other: pa.Table) -> bool:
    """Equal to the last bit: Arrow takes 0.0 and -0.0 for one."""
    return (
        bool(one.schema.equals(other.schema))
        and all(
            [bits(value) for value in one[name].cast(pa.int64()).to_pylist()]
            == [bits(value) for value in other[name].cast(pa.int64()).to_pylist()]
            if pa.types.is_timestamp(one.schema.field(name).type)
            else [bits(value) for value in one[name].to_pylist()]
            == [bits(value) for value in other[name].to_pylist()]
            for name in one.schema.names
            if name != "day"
        )
        and bool(one["day"].equals(other["day"]))
    )


@QUICK
@given(rows=ROWS, batch_rows=st.integers(1, 5), group_rows=st.integers(1, 5))
def test_every_table_comes_back_to_the_last_bit(
    rows: list[dict[str, Any]], batch_rows: int, group_rows: int
) -> None:
    """Written, read back, and verified on the way, however it was sliced."""
    table = pa.Table.from_batches([batch_of(rows)])
    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(Path(folder))
        limits = Limits(group_rows=group_rows, file_bytes=20_000)
        done = write_partition(Rows(table, batch_rows=batch_rows), store, recorder_version="1", limits=limits)
        assert done.sums == sums_of(batch_of(rows))
        assert same(archived(store, DAY), in_order(table))


@QUICK
@given(rows=ROWS, group_rows=st.integers(1, 5), texts=st.sets(st.sampled_from(TEXTS)))
def test_rows_read_as_dictionaries_are_the_same_rows(
    rows: list[dict[str, Any]], group_rows: int, texts: set[str]
) -> None:
    """Whichever columns of text: they come encoded, and their values and sums are those that were written."""
    table = pa.Table.from_batches([batch_of(rows)])
    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(Path(folder))
        done = write_partition(Rows(table), store, recorder_version="1", limits=Limits(group_rows=group_rows))
        (piece,) = partition_of(store, DAY).pieces
        back = list(read_files(piece.manifest, store, check=True, encoded=texts))
        assert {field.name for field in back[0].schema if pa.types.is_dictionary(field.type)} == texts
        assert sum(map(sums_of, back), Sums()) == done.sums
        assert same(in_order(pa.Table.from_batches(back).cast(SCHEMA)), in_order(table))


@QUICK
@given(rows=ROWS, order=st.randoms(use_true_random=False), cut=st.integers(0, 12))
def test_the_sum_is_the_same_in_any_order_and_any_slices(
    rows: list[dict[str, Any]], order: Any, cut: int
) -> None:
    """Rows shuffled, cut in two, taken from the middle of a larger batch, columns turned round: one sum."""
    whole = sums_of(batch_of(rows))
    shuffled = rows.copy()
    order.shuffle(shuffled)
    assert sums_of(batch_of(shuffled)) == whole
    batch = batch_of(rows)
    assert sums_of(batch.slice(0, cut)) + sums_of(batch.slice(cut)) == whole
    assert sums_of(batch_of([*rows[:1], *rows, *rows[:1]]).slice(1, len(rows))) == whole
    assert sums_of(batch.select(batch.schema.names[::-1])) == whole


@QUICK
@given(rows=ROWS, data=st.data())
def test_the_sum_sees_every_changed_value(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    """One value of one column of one row is another one: another sum."""
    name = data.draw(st.sampled_from(SCHEMA.names))
    at = data.draw(st.integers(0, len(rows) - 1))
    values = {"ts_local": TIMES, "_log": UINT64, "_seq": UINT64} | {
        name: st.none() | of for name, (_, of) in COLUMNS.items()
    }
    other = data.draw(values[name])
    assume(bits(other) != bits(rows[at][name]))
    changed = [*rows[:at], {**rows[at], name: other}, *rows[at + 1 :]]
    assert sums_of(batch_of(changed)).row_sum != sums_of(batch_of(rows)).row_sum


@QUICK
@given(rows=ROWS, data=st.data())
def test_the_sum_sees_missing_doubled_and_swapped(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    """A row less, a row twice, a row in another's stead; two values that changed places."""
    at = data.draw(st.integers(0, len(rows) - 1))
    whole = sums_of(batch_of(rows))
    less, twice = [*rows[:at], *rows[at + 1 :]], [*rows, rows[at]]
    for wrong in (less, twice, [*less, less[0]] if less else []):
        assert sums_of(batch_of(wrong)).row_sum != whole.row_sum
        assert sums_of(batch_of(wrong)).identity_sum != whole.identity_sum
    swapped = {**rows[at], "number": rows[at]["signed"], "signed": rows[at]["number"]}
    assume(swapped != rows[at] and all((swapped[name] or 0) in range(2**63) for name in ("number", "signed")))
    assert sums_of(batch_of([*less, swapped])).row_sum != whole.row_sum


def mix(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def plain(value: Any, kind: pa.DataType) -> int:
    """The module's definition, written down a second time and slowly."""
    golden = 0x9E3779B97F4A7C15

    def folded(items: list[int], length: int) -> int:
        terms = (mix((item + (place + 1) * golden) % 2**64) for place, item in enumerate(items))
        return mix((sum(terms) + mix(length)) % 2**64)

    def text(content: bytes) -> int:
        words = [int.from_bytes(content[at : at + 8], "little") for at in range(0, len(content), 8)]
        return folded(words, len(content))

    if value is None:
        return 0x6A09E667F3BCC909
    if pa.types.is_decimal(kind):
        number = int(value.scaleb(kind.scale, decimal.Context(prec=90)))
        return text(number.to_bytes(kind.bit_width // 8, "little", signed=True))
    if pa.types.is_map(kind):
        pairs = ((plain(key, kind.key_type), plain(item, kind.item_type)) for key, item in value)
        return folded([folded([*pair], 2) for pair in pairs], len(value))
    if pa.types.is_list(kind):
        return folded([plain(item, kind.value_type) for item in value], len(value))
    if isinstance(value, float):
        return mix(int.from_bytes(struct.pack("<d", math.nan if math.isnan(value) else value), "little"))
    if isinstance(value, bytes | str):
        return text(value.encode() if isinstance(value, str) else value)
    return mix(int(value) % 2**64)


@QUICK
@given(rows=ROWS)
def test_the_hash_is_the_one_that_is_written_down(rows: list[dict[str, Any]]) -> None:
    """Vectorised or value by value, it comes to the same: another program can compute it from the definition."""
    total = identities = 0
    batch = batch_of(rows)
    for row in rows:
        of_row = 0
        for field in SCHEMA:
            seed = int.from_bytes(hashlib.sha256(field.name.encode()).digest()[:8], "little")
            of_row += mix((plain(row[field.name], field.type) + seed) % 2**64)
        total += mix(of_row % 2**64)
        identities += mix((mix((row["_log"] + 0x9E3779B97F4A7C15) % 2**64) + row["_seq"]) % 2**64)
    sums = sums_of(batch)
    assert (sums.row_sum, sums.identity_sum) == (total % 2**64, identities % 2**64)
    times = [row["ts_local"] for row in rows]
    assert (sums.min_ts_local_ns, sums.max_ts_local_ns) == (min(times), max(times))


def test_dictionaries_count_as_their_values() -> None:
    """A dictionary that holds NULLs, or more than is used, or as much as it can, hashes as the plain column does."""
    column = pa.array([b"a", None, b"b", b"a"])
    odd = pa.DictionaryArray.from_arrays(pa.array([1, None, 0, 1]), pa.array([b"b", b"a", b"c", None]))
    assert hashes(odd).tolist() == hashes(column).tolist()
    assert hashes(pa.array(["a", None, "b", "a"])).tolist() == hashes(column).tolist()
    full = pa.DictionaryArray.from_arrays(
        pa.array([0, None, 127], pa.int8()), pa.array([b"%d" % n for n in range(128)])
    )
    assert hashes(full).tolist() == hashes(pa.array([b"0", None, b"127"])).tolist()


MANY = 1_500
COLUMNS_OF_MANY = {
    "few texts": pa.array([None if n % 7 == 0 else b"text %d" % (n % 11) for n in range(MANY)]),
    "few at first": pa.array([b"same" if n < MANY // 2 else b"another %d" % n for n in range(MANY)]),
    "texts": pa.array([b"x" * (n % 40) + b"%d" % n for n in range(MANY)]),
    "strings": pa.array(["\u20ac"] * MANY),
    "no value": pa.array([None] * MANY, pa.float64()),
    "as many in each": pa.array([[n + 0.5, -n / 3, math.nan] for n in range(MANY)]),
    "as many or none": pa.array([[n, None] * (n % 3 == 0) for n in range(MANY)]),
    "more or fewer": pa.array([[float(n)] * (n % 5) for n in range(MANY)]),
    "longer than a column at once": pa.array([list(range(n, n + 70)) for n in range(MANY)]),
    "lists of texts": pa.array([[b"a%d" % n, b""] for n in range(MANY)]),
    "decimals": pa.array([decimal.Decimal(n - 700).scaleb(-3) for n in range(MANY)], pa.decimal128(38, 18)),
    "live": pa.array([n % 3 == 0 for n in range(MANY)]),
}


@pytest.mark.parametrize("name", COLUMNS_OF_MANY)
@pytest.mark.parametrize("stretch_rows", [7, 1_000, None])
def test_long_columns_hash_value_by_value(
    name: str, stretch_rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a column is worked through (in stretches, each value once, place by place): the hash as defined."""
    if stretch_rows is not None:
        monkeypatch.setattr(valuehash, "STRETCH_ROWS", stretch_rows)
        monkeypatch.setattr(valuehash, "MIXED_AT_ONCE", stretch_rows)
    column = COLUMNS_OF_MANY[name]
    expected = [plain(value, column.type) for value in column.to_pylist()]
    assert hashes(column).tolist() == expected
    assert hashes(column.slice(3, 1_100)).tolist() == expected[3:1_103]
    seed, total = np.uint64(2**63 + 5), np.arange(MANY, dtype=np.uint64)
    add_hashes(total, column, seed)
    assert total.tolist() == [
        (place + mix((value + int(seed)) % 2**64)) % 2**64 for place, value in enumerate(expected)
    ]


def test_hashing_changes_no_row() -> None:
    """Arrays are mixed in place, but never those that the rows are made of."""
    batch = pa.record_batch(
        {
            **COLUMNS_OF_MANY,
            "_log": pa.array([1] * MANY, pa.uint64()),
            "_seq": pa.array(range(MANY), pa.uint64()),
        }
    )
    before = [column.to_pylist() for column in batch.drop_columns(["as many in each"]).columns]
    first = sums_of(batch)
    assert [column.to_pylist() for column in batch.drop_columns(["as many in each"]).columns] == before
    assert sums_of(batch) == first


def test_sums_of_archives_that_are_there_still_hold() -> None:
    """What the first version came to, for rows of all types: a manifest of any age can be compared."""
    sums = sums_of(rows(0, 2_000).combine_chunks().to_batches()[0])
    assert (sums.row_sum, sums.identity_sum) == (0xD6295CA43E3D2F75, 0x635E169D2713C302)


def test_nothing_comes_to_nothing() -> None:
    """No rows: zero, and the neutral element of adding."""
    assert sums_of(batch_of([])) == Sums()


@pytest.mark.parametrize("without", ["_log", "_seq"])
def test_rows_without_identity_are_refused(without: str) -> None:
    """Rows that cannot be told apart cannot be archived once."""
    with pytest.raises(ArchiveError, match=without):
        sums_of(
            pa.record_batch(
                {"_log": pa.array([1], pa.uint64()), "_seq": pa.array([1], pa.uint64())}
            ).drop_columns([without])
        )


IDENTITIES = st.lists(st.tuples(st.sampled_from([0, 7, 2**64 - 1]), st.integers(0, 30)), max_size=40)


@QUICK
@given(have=IDENTITIES, want=IDENTITIES, of=st.integers(1, 4))
def test_what_is_missing_is_told_exactly(
    have: list[tuple[int, int]], want: list[tuple[int, int]], of: int
) -> None:
    """Over all portions: those that are wanted and not there, none else; and `only` passes their rows."""

    def batch(pairs: list[tuple[int, int]]) -> pa.RecordBatch:
        logs, seqs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        return pa.record_batch({"_log": pa.array(logs, pa.uint64()), "_seq": pa.array(seqs, pa.uint64())})

    logs, seqs = (np.array([pair[side] for pair in have], np.uint64) for side in (0, 1))
    found: list[tuple[int, int]] = []
    for number in range(of):
        known = IdentitySet()
        mine = portion(logs, seqs, number, of)
        known.add(logs[mine], seqs[mine])
        lacking = missing([batch(want)], known, number, of, at_most=1_000)
        found += [
            (row["_log"], row["_seq"]) for part in only([batch(want)], lacking) for row in part.to_pylist()
        ]
    assert sorted(found) == sorted(pair for pair in want if pair not in have)
