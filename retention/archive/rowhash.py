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
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.types as kinds

from retention.archive.valuehash import GOLDEN, LAST, STEPS, add_hashes, mix
from retention.archive.valuehash import Words as Words
from retention.errors import ArchiveError

LOG, SEQ, TIME = "_log", "_seq", "ts_local"
WAITING = 4


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
    total = np.zeros(rows.num_rows, np.uint64)
    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        try:
            add_hashes(total, column, _seed(name))
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


class Summing:
    """Sums of batches, computed beside whoever brings them. Holds at most `WAITING` batches; one owner.

    with Summing() as summing:
        summing.add(batch)
    summing.total
    """

    def __init__(self) -> None:
        self.total = Sums()
        """Of all batches, once the block is left."""
        # One thread: two of them take the interpreter from each other, and from whoever brings the batches.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="archive-sums")
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
    return mix(mix(logs + GOLDEN) + seqs)


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
    log = _mix_sql(f"(toUInt64({LOG}) + toUInt64({int(GOLDEN)}))")
    return _mix_sql(f"({log} + toUInt64({SEQ}))")


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


def _mix_sql(x: str) -> str:
    for shift, factor in STEPS:
        x = f"(bitXor({x}, bitShiftRight({x}, {shift})) * toUInt64({factor}))"
    return f"bitXor({x}, bitShiftRight({x}, {LAST}))"
