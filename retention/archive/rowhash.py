"""The sum hash of rows: the same in any order, another for one changed value, a missing or a doubled row.

Defined over values and not over files, so that what the source gave and what is read back can be compared. All sums
and products are of unsigned 64-bit integers, modulo 2^64:

    mix(x)       x ^= x >> 30; x *= 0xbf58476d1ce4e5b9; x ^= x >> 27; x *= 0x94d049bb133111eb; x ^= x >> 31
    NULL         0x6a09e667f3bcc909
    integer      mix(its 64 bits, sign extended), of times and dates the number of units; bool 0 or 1
    float        mix(the bits of its double); every NaN is one
    decimal      the words of its unscaled integer, as a text
    text, bytes  mix(sum over k of mix(word k + (k + 1) * G) + mix(length in bytes)), words of 8 bytes, little-endian,
                 the last filled with zeros; G = 0x9e3779b97f4a7c15
    list, map    the same over the hashes of its items, and its length in items; a map's item is a list of key and value
    row          mix(sum over columns of mix(hash of the value + first 8 bytes of sha256(name), little-endian))
    identity     mix(mix(_log + G) + _seq)

A sum is the sum over all rows. It guards against accidents, not against forgery: files have a sha256 for that.
"""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as kinds

from retention.errors import ArchiveError

Words: TypeAlias = npt.NDArray[np.uint64]
LOG, SEQ, TIME = "_log", "_seq", "ts_local"
SLICE_ROWS = 16_384
SLICE_BYTES = 8 * 2**20
"""Rows are hashed in slices about so large: what numpy needs beside them is several times that."""
SAMPLE_ROWS = 256
THREADS, WAITING = 2, 3
_NULL = np.uint64(0x6A09E667F3BCC909)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_PLAIN = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_FLOATS = {2: np.float16, 4: np.float32, 8: np.float64}


@dataclass(frozen=True)
class Sums:
    """What rows come to: their number, sum hashes, and the range of their `ts_local` (ns since the epoch, UTC)."""

    rows: int = 0
    row_sum: int = 0
    identity_sum: int = 0
    min_ts_local_ns: int | None = None
    max_ts_local_ns: int | None = None

    def __add__(self, other: Sums) -> Sums:
        lows = [ts for ts in (self.min_ts_local_ns, other.min_ts_local_ns) if ts is not None]
        highs = [ts for ts in (self.max_ts_local_ns, other.max_ts_local_ns) if ts is not None]
        return Sums(
            self.rows + other.rows,
            (self.row_sum + other.row_sum) % 2**64,
            (self.identity_sum + other.identity_sum) % 2**64,
            min(lows, default=None),
            max(highs, default=None),
        )


def sums_of(rows: pa.RecordBatch) -> Sums:
    """The sums of a batch of any size.

    Raises:
        ArchiveError: it has no identity, or a column of a type that cannot be hashed.
    """
    total = Sums()
    for part in _slices(rows):
        total += _sums_of(part)
    return total


class Summing:
    """Sums of batches, computed beside whoever brings them. Holds at most `WAITING` batches; one owner.

    with Summing() as summing:
        summing.add(batch)
    summing.total
    """

    def __init__(self) -> None:
        self.total = Sums()
        """Of all batches, once the block is left."""
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="archive-sums")
        self._waiting: collections.deque[Future[Sums]] = collections.deque()

    def add(self, rows: pa.RecordBatch) -> None:
        """Have a batch summed up; raises, for an earlier one, as `sums_of` does."""
        if len(self._waiting) >= WAITING:
            self.total += self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(sums_of, rows))

    def __enter__(self) -> Summing:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            while self._waiting and kind is None:
                self.total += self._waiting.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)


def identity_hashes(logs: Words, seqs: Words) -> Words:
    """The hash of each identity, from two arrays of shape (n,)."""
    return mix(mix(logs + _GOLDEN) + seqs)


def identities_of(rows: pa.RecordBatch) -> tuple[Words, Words]:
    """`_log` and `_seq` of rows, two arrays of shape (n,).

    Raises:
        ArchiveError: a column is missing, of another type, or has NULLs.
    """
    return _identity(rows, LOG), _identity(rows, SEQ)


def identity_sum_sql() -> str:
    """`rows, identity_sum` of a table as an expression of ClickHouse, to compare with those of manifests."""
    return f"count() AS rows, sumWithOverflow({identity_hash_sql()}) AS identity_sum"


def identity_hash_sql() -> str:
    """`identity_hashes` as an expression of ClickHouse."""
    log = _mix_sql(f"(toUInt64({LOG}) + toUInt64({int(_GOLDEN)}))")
    return _mix_sql(f"({log} + toUInt64({SEQ}))")


def mix(words: Words) -> Words:
    """The mixing function of the module's table."""
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))


def hashes(values: pa.Array) -> Words:
    """The hash of each value, shape (n,).

    Raises:
        ArchiveError: there is no rule for their type.
    """
    if not len(values):
        return np.empty(0, np.uint64)
    found = _values(values)
    if values.null_count:
        found[values.is_null().to_numpy(zero_copy_only=False)] = _NULL
    return found


def _sums_of(rows: pa.RecordBatch) -> Sums:
    total = np.zeros(rows.num_rows, np.uint64)
    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        try:
            total += mix(hashes(column) + _seed(name))
        except ArchiveError as error:
            raise ArchiveError(f"column {name}: {error}") from error
    sums = Sums(
        rows.num_rows,
        int(mix(total).sum(dtype=np.uint64)),
        int(identity_hashes(*identities_of(rows)).sum(dtype=np.uint64)),
    )
    place = rows.schema.get_field_index(TIME)
    if place < 0 or not kinds.is_timestamp(rows.schema.field(place).type):
        return sums
    times = rows.column(place).drop_null().cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).to_numpy()
    return sums + Sums(0, 0, 0, int(times.min()), int(times.max())) if len(times) else sums


def _slices(rows: pa.RecordBatch) -> Iterable[pa.RecordBatch]:
    step = max(1, min(SLICE_ROWS, rows.num_rows * SLICE_BYTES // max(1, rows.nbytes)))
    return (rows.slice(start, step) for start in range(0, rows.num_rows, step))


def _seed(name: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))


def _identity(rows: pa.RecordBatch, name: str) -> Words:
    place = rows.schema.get_field_index(name)
    if place < 0:
        raise ArchiveError(
            f"rows have no column {name}; only tables of a pack, which have it, can be archived"
        )
    column = rows.column(place)
    if column.type != pa.uint64() or column.null_count:
        what = f"{column.null_count} NULLs" if column.null_count else str(column.type)
        raise ArchiveError(
            f"column {name}: {what}, expected uint64 without NULL; the table is none of a pack"
        )
    numbers: Words = column.to_numpy(zero_copy_only=False)
    return numbers


def _values(values: pa.Array) -> Words:
    kind = values.type
    if isinstance(values, pa.ExtensionArray):
        return hashes(values.storage)
    if kinds.is_dictionary(kind):
        known: Words = np.append(hashes(values.dictionary), _NULL)
        found: Words = known[values.indices.fill_null(len(values.dictionary)).to_numpy(zero_copy_only=False)]
        return found
    if kinds.is_null(kind):
        return np.full(len(values), _NULL)
    if kinds.is_boolean(kind):
        values = values.cast(pa.uint8())
        kind = values.type
    if kinds.is_binary_view(kind) or kinds.is_string_view(kind):
        values, kind = values.cast(pa.large_binary()), pa.large_binary()
    if kinds.is_decimal(kind) or kinds.is_fixed_size_binary(kind):
        width = kind.byte_width
        if width % 8 == 0 and width:
            return _words(values, width)
        start = values.offset * width
        stops = start + width * np.arange(len(values) + 1, dtype=np.int64)
        return _bytes(values.buffers()[1], stops)
    if kinds.is_primitive(kind):
        return mix(_bits(values))
    if kinds.is_binary(kind) or kinds.is_string(kind):
        if _repeats(values):
            return hashes(values.dictionary_encode())
        return _bytes(values.buffers()[2], _stops(values, np.int32))
    if kinds.is_large_binary(kind) or kinds.is_large_string(kind):
        return _bytes(values.buffers()[2], _stops(values, np.int64))
    if kinds.is_list(kind) or kinds.is_map(kind) or kinds.is_large_list(kind):
        stops = _stops(values, np.int64 if kinds.is_large_list(kind) else np.int32)
        first, last = int(stops[0]), int(stops[-1])
        if kinds.is_map(kind):
            pair = [hashes(side.slice(first, last - first)) for side in (values.keys, values.items)]
            items = _folded(np.stack(pair, axis=1).ravel(), 2 * np.arange(last - first + 1))
        else:
            items = hashes(values.values.slice(first, last - first))
        return _folded(items, stops - first)
    raise ArchiveError(f"no rule to hash {kind}; leave the column out, or have its type added")


def _repeats(values: pa.Array) -> bool:
    """Whether it has few different values, to go by its first: then it is quicker to hash each of them once."""
    return len(values) > 2 * SAMPLE_ROWS and len(values.slice(0, SAMPLE_ROWS).unique()) * 4 <= SAMPLE_ROWS


def _bits(values: pa.Array) -> Words:
    """Numbers of fixed width as 64 bits each."""
    kind = values.type
    width = kind.bit_width // 8
    known: Any = (
        _FLOATS if kinds.is_floating(kind) else _UNSIGNED if kinds.is_unsigned_integer(kind) else _PLAIN
    )
    numbers = np.frombuffer(values.buffers()[1], known[width], len(values), values.offset * width)
    if not kinds.is_floating(kind):
        return numbers.astype(np.int64 if known is _PLAIN else np.uint64).view(np.uint64)
    doubles = numbers.astype(np.float64)
    doubles[np.isnan(doubles)] = np.nan
    return doubles.view(np.uint64)


def _words(values: pa.Array, width: int) -> Words:
    """The hash of values of so many bytes, a multiple of 8: as `_bytes`, without looking for where each begins."""
    words = np.frombuffer(values.buffers()[1], "<u8", len(values) * width // 8, values.offset * width)
    sums = np.zeros(len(values), np.uint64)
    for place in range(width // 8):
        sums += mix(words[place :: width // 8] + np.uint64((place + 1) * int(_GOLDEN) % 2**64))
    return mix(sums + mix(np.full(1, width, np.uint64)))


def _stops(values: pa.Array, width: Any) -> npt.NDArray[np.int64]:
    """Where each value begins, and the last one ends: shape (n + 1,)."""
    size = np.dtype(width).itemsize
    stops = np.frombuffer(values.buffers()[1], width, len(values) + 1, values.offset * size)
    return stops.astype(np.int64)


def _bytes(content: pa.Buffer | None, stops: npt.NDArray[np.int64]) -> Words:
    """The hash of each stretch of bytes between two stops."""
    first, last = int(stops[0]), int(stops[-1])
    data = np.zeros(last - first + 8, np.uint8)
    if last > first:
        data[:-8] = np.frombuffer(cast(Any, content), np.uint8, last - first, first)
    lengths = np.diff(stops)
    counts = -(-lengths // 8)
    ends = np.concatenate([[0], np.cumsum(counts)])
    within = np.arange(ends[-1]) - np.repeat(ends[:-1], counts)
    # A word may begin at any byte: a view of one word a byte, of which some are copied out.
    every: Words = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))
    words = every[np.repeat(stops[:-1] - first, counts) + 8 * within]
    rest = np.minimum(np.repeat(lengths, counts) - 8 * within, 8).astype(np.uint64)
    words &= np.uint64(2**64 - 1) >> (np.uint64(64) - np.uint64(8) * rest)
    return _folded(words, ends, lengths.astype(np.uint64))


def _folded(items: Words, ends: npt.NDArray[Any], lengths: Words | None = None) -> Words:
    """One hash for each run of items between two ends."""
    counts = np.diff(ends)
    within = np.arange(ends[-1]) - np.repeat(ends[:-1], counts)
    terms = mix(items + (within.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
    sums = running[ends[1:]] - running[ends[:-1]]
    return mix(sums + mix(counts.astype(np.uint64) if lengths is None else lengths))


def _mix_sql(x: str) -> str:
    for shift, factor in ((30, int(_FIRST)), (27, int(_SECOND))):
        x = f"(bitXor({x}, bitShiftRight({x}, {shift})) * toUInt64({factor}))"
    return f"bitXor({x}, bitShiftRight({x}, 31))"
