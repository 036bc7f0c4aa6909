"""One process of `recorder bench archive`: it fills a partition, or takes it out one way, and tells what that took.

Each is a process of its own, as an engine has one place a process, and as a peak of memory is a process's.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.ingest_sides import TABLES, arrow_batches, make_rows
from benchmarks.memory import peak_bytes
from recorder import Recorder, log
from recorder.batch import Batch
from recorder.cli.errors import Failure
from recorder.reading.reader import open_reader
from recorder.retaining.source import TableSource
from recorder.settings import Settings
from recorder.sink.open import open_sink
from recorder.version import version
from retention.archive import FolderStore, Limits, place_of, write_partition
from schemas.quote import quote_text

TABLE = "market_data"
DAY, DAY_NS = "2024-08-08", 1_723_075_200 * 10**9
INSERT_ROWS = 100_000
SIDES = ("archive", "outfile", "outfile sorted", "outfile alike")
ALIKE = f", output_format_compression_level = 1, output_format_parquet_row_group_size = {Limits().group_rows}"
"""What the archive's files have: pyarrow's level of zstd (ClickHouse's own is 3), and row groups as small."""
INSERT_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Taken:
    """What one way out took."""

    rows: int
    elapsed_s: float
    """From the question until the rows are in files; of the archive until they were read back, too."""
    disk_bytes: int
    opened_bytes: int
    """The peak of the process when it had opened the database."""
    peak_bytes: int
    """The same at the end: the engine's memory and ours."""


def run_fill(folder: Path, rows: int) -> None:
    """Make a database in the folder with one closed partition of so many rows.

    Raises:
        Failure: it could not be made.
    """
    _run("fill", folder, str(rows))


def run_side(side: str, folder: Path, out: Path) -> Taken:
    """Take the partition out, one way.

    Raises:
        Failure: it failed.
    """
    return Taken(**json.loads(_run(side, folder, str(out))))


def _run(what: str, folder: Path, more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", __name__, what, str(folder), more],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failure(f"{what} failed; see above")
    return done.stdout


def settings_in(folder: Path) -> Settings:
    """Those of the database that `run_fill` made."""
    # Without TTL: the day is long past.
    return Settings(target=f"chdb://{folder / 'db'}", data_dir=folder, health_addr="", ttl=False)


def _fill(folder: Path, rows: int) -> None:
    settings = settings_in(folder)
    with Recorder(settings):
        pass  # the schema is there

    async def insert() -> None:
        sink = open_sink(settings)
        await sink.start()
        try:
            for batch in _batches(rows):
                await sink.insert(batch, timeout_s=INSERT_TIMEOUT_S)
        finally:
            await sink.close()

    asyncio.run(insert())


def _batches(rows: int) -> Iterator[Batch]:
    """The rows of a session again and again, spread over a day, each with an identity of its own."""
    table = TABLES[TABLE]
    made = arrow_batches(table, make_rows(table), INSERT_ROWS, INSERT_ROWS)
    schema = made[0].schema
    at = {name: schema.get_field_index(name) for name in ("_log", "_seq", "ts_local", "ts_exchange")}
    first = 0
    for one in itertools.cycle(made):
        if first >= rows:
            return
        one = one.slice(0, rows - first)
        columns = one.columns
        seqs = pa.array(range(first, first + one.num_rows), pa.uint64())
        local = pc.add(pc.multiply(seqs.cast(pa.int64()), 86_400 * 10**9 // rows), DAY_NS)
        columns[at["ts_local"]] = local.cast(columns[at["ts_local"]].type)
        columns[at["ts_exchange"]] = pc.subtract(local, 1_000_000).cast(columns[at["ts_exchange"]].type)
        columns[at["_log"]] = pa.repeat(pa.scalar(1, pa.uint64()), one.num_rows)
        columns[at["_seq"]] = seqs
        yield Batch(TABLE, pa.RecordBatch.from_arrays(columns, schema=schema), 0)
        first += one.num_rows


def _archive(folder: Path, out: Path) -> Taken:
    settings = settings_in(folder)
    reader = open_reader(settings)
    try:
        opened_bytes, began_s = peak_bytes(), time.perf_counter()
        source = TableSource(reader, settings.database, place_of(TABLE, DAY))
        done = write_partition(source, FolderStore(out), recorder_version=version())
        elapsed_s = time.perf_counter() - began_s
    finally:
        reader.close()
    nbytes = sum(receipt.nbytes for receipt in done.receipts)
    return Taken(done.sums.rows, elapsed_s, nbytes, opened_bytes, peak_bytes())


def _outfile(folder: Path, out: Path, *, ordered: bool, more: str = "") -> Taken:
    import chdb

    settings = settings_in(folder)
    out.mkdir(parents=True)
    file = out / "rows.parquet"
    connect: Any = chdb.connect
    connection = connect(str(settings.target.path))
    try:
        of_database = f"database = {quote_text(settings.database)} AND name = {quote_text(TABLE)}"
        asked = connection.query(f"SELECT sorting_key FROM system.tables WHERE {of_database}", "TSVRaw")
        order = f"ORDER BY {str(asked).strip()}, _log, _seq" if ordered else ""
        where = f"_partition_id = {quote_text(DAY.replace('-', ''))}"
        opened_bytes, began_s = peak_bytes(), time.perf_counter()
        connection.query(
            f"SELECT * FROM {settings.database}.{TABLE} WHERE {where} {order} INTO OUTFILE {quote_text(str(file))} "
            f"FORMAT Parquet SETTINGS output_format_parquet_compression_method = 'zstd'{more}"
        )
        elapsed_s = time.perf_counter() - began_s
        rows = int(str(connection.query(f"SELECT count() FROM file({quote_text(str(file))})", "TSV")))
    finally:
        connection.close()
    return Taken(rows, elapsed_s, file.stat().st_size, opened_bytes, peak_bytes())


def _main(what: str, folder: Path, more: str) -> None:
    log.configure("error")
    if what == "fill":
        _fill(folder, int(more))
        return
    out = Path(more)
    if what == "archive":
        taken = _archive(folder, out)
    else:
        taken = _outfile(
            folder, out, ordered=what != "outfile", more=ALIKE if what == "outfile alike" else ""
        )
    print(json.dumps(asdict(taken)))


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
