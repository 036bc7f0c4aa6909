"""What tests of the archive share: rows of every type, a source in memory, stores that fail at a chosen call."""

from __future__ import annotations

import contextlib
import decimal
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa

from retention.archive import Entry, Partition, Place, partition_of, read_files
from retention.archive.store import Readable, Store

DAY = Place("fills", "2024-08-08")
NOON_NS = 1_723_118_400_000_000_000
SCHEMA = pa.schema(
    [
        pa.field("ts_local", pa.timestamp("ns", "UTC"), nullable=False),
        pa.field("symbol", pa.binary(), nullable=False),
        pa.field("payload", pa.binary()),
        pa.field("price", pa.decimal128(38, 18)),
        pa.field("depth", pa.list_(pa.float64())),
        pa.field("labels", pa.map_(pa.binary(), pa.binary())),
        pa.field("side", pa.int8()),
        pa.field("_log", pa.uint64(), nullable=False),
        pa.field("_seq", pa.uint64(), nullable=False),
    ]
)


def rows(start: int, stop: int, log: int = 2**63 + 7, *, payload_bytes: int = 12) -> pa.Table:
    """Rows number `start` to `stop` of a log, each another."""
    numbers = range(start, stop)
    return pa.table(
        {
            "ts_local": [NOON_NS + number for number in numbers],
            "symbol": [b"BTCUSDT" if number % 3 else b"ETHUSDT" for number in numbers],
            "payload": [
                None if number % 5 == 0 else bytes([number % 256]) * payload_bytes for number in numbers
            ],
            "price": [decimal.Decimal(number).scaleb(-18) + 61_800 for number in numbers],
            "depth": [[number + 0.5] * (number % 4) for number in numbers],
            "labels": [[(b"k", str(number).encode())] * (number % 2) for number in numbers],
            "side": [number % 2 or None for number in numbers],
            "_log": [log] * len(numbers),
            "_seq": list(numbers),
        },
        schema=SCHEMA,
    )


class Rows:
    """A source of rows in memory; what is in `table` may change between two runs, as a table does."""

    database = "trading"
    order_by = "symbol, ts_local"
    columns = {"side": "Enum8('buy' = 0, 'sell' = 1)"}

    def __init__(self, table: pa.Table, place: Place = DAY, *, batch_rows: int = 100):
        self.table, self.place, self._batch_rows = table, place, batch_rows

    def batches(self) -> Iterator[pa.RecordBatch]:
        keys = [(name, "ascending") for name in ("symbol", "ts_local", "_log", "_seq")]
        yield from self.table.sort_by(keys).to_batches(self._batch_rows)

    def identities(self) -> Iterator[pa.RecordBatch]:
        yield from self.table.select(["_log", "_seq"]).to_batches(self._batch_rows)


class Stopped(Exception):  # noqa: N818 - what happens to a run, no fault of it
    """The run ends here."""


class Stopping:
    """A store of which the call number `stop_at` does not happen, or, with `after`, happens and is the last."""

    def __init__(self, store: Store, stop_at: int | None = None, *, after: bool = False):
        self.store, self.calls = store, itertools.count()
        self._stop_at, self._after = stop_at, after
        self.made = 0

    def _call(self, call: Callable[[], Any]) -> Any:
        number = next(self.calls)
        self.made = number + 1
        if number == self._stop_at and not self._after:
            raise Stopped
        answer = call()
        if number == self._stop_at:
            raise Stopped
        return answer

    def files(self, folder: str) -> list[Entry]:
        return self._call(lambda: self.store.files(folder))  # type: ignore[no-any-return]

    def read(self, name: str) -> bytes | None:
        return self._call(lambda: self.store.read(name))  # type: ignore[no-any-return]

    def create(self, name: str, content: bytes) -> bool:
        return self._call(lambda: self.store.create(name, content))  # type: ignore[no-any-return]

    def drop(self, name: str) -> None:
        self._call(lambda: self.store.drop(name))

    def put(self, name: str, draft: Path) -> None:
        self._call(lambda: self.store.put(name, draft))

    def drafted(self, name: str) -> AbstractContextManager[Path]:
        return self._call(lambda: self.store.drafted(name))  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def fetched(self, name: str) -> Iterator[Path | None]:
        self._call(lambda: None)
        with self.store.fetched(name) as path:
            yield path

    def opened(self, name: str) -> AbstractContextManager[Path | Readable | None]:
        return self._call(lambda: self.store.opened(name))  # type: ignore[no-any-return]

    def exclusive(self, folder: str) -> AbstractContextManager[None]:
        return self._call(lambda: self.store.exclusive(folder))  # type: ignore[no-any-return]


def archived(store: Store, place: Place = DAY) -> pa.Table:
    """All rows of a partition's pieces, in the order of their identity."""
    known = partition_of(store, place)
    batches = [batch for piece in known.pieces for batch in read_files(piece.manifest, store)]
    return in_order(pa.Table.from_batches(batches, known.pieces[0].manifest.schema))


def in_order(table: pa.Table) -> pa.Table:
    """Rows in the order of their identity."""
    return table.sort_by([("_log", "ascending"), ("_seq", "ascending")]).combine_chunks()


def receipts(known: Partition) -> list[int]:
    """The numbers of the pieces that have one."""
    return [piece.manifest.piece for piece in known.pieces if piece.receipt is not None]
