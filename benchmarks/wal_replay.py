"""How fast a recorder gets in what an earlier run left on the log of `fills`: read, looked up, inserted into the
embedded engine, confirmed.

The rows were appended and synced, and never sent: as after a kill in an outage. Each round is a process of its own, as
an engine has one place a process, with a database of its own. The clock runs from the start of the recorder until every
row is in; the rows there are counted by their identities.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks import rig
from benchmarks.wal_sides import SYNC_TIMEOUT_S, TABLE, fills
from recorder import Recorder, log
from recorder.cli.errors import Failure
from recorder.settings import Settings
from wal.commit import GroupCommit
from wal.errors import LogFull
from wal.options import LogOptions
from wal.writer import LogWriter

SLICE_ROWS = 1_024
LOOK_S = 0.01
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Replayed:
    """What one round took."""

    rows: int
    opened_s: float
    """Until the recorder had started: the log recovered, the engine open, the schema looked at."""
    elapsed_s: float
    """Until all rows were in, from the same moment."""
    memory_bytes: int
    """By which the process grew meanwhile, at the end; the engine is in it."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"rows_per_s": self.rows / self.elapsed_s}


def run_replay(folder: Path, rows: int, rounds: int) -> Iterator[Replayed]:
    """Write a log of so many rows and replay it, so many times.

    Raises:
        Failure: a round failed, or the database does not have every row once.
    """
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as place:
            done = subprocess.run(
                [sys.executable, "-m", __name__, place, str(rows)],
                stdout=subprocess.PIPE,
                text=True,
                check=False,
            )
        if done.returncode:
            raise Failure(f"replaying {rows:,} rows failed; see above")
        yield Replayed(**json.loads(done.stdout))


def _settings(folder: Path) -> Settings:
    return Settings(target=f"chdb://{folder / 'db'}", data_dir=folder, health_addr="")


def _write(folder: Path, schema: pa.Schema, rows: int) -> None:
    """So many rows with identities of their own."""
    commit = GroupCommit()
    writer = LogWriter.open(folder, TABLE, schema, commit=commit, options=LogOptions())
    at = {name: schema.get_field_index(name) for name in ("_log", "_seq", "ts_local")}
    made = fills(SLICE_ROWS)
    times = pa.chunked_array([one.column(at["ts_local"]) for one in made]).cast(pa.int64())
    span_ns = pc.max(times).as_py() - pc.min(times).as_py() + 1
    mark = first = 0
    for number, one in enumerate(itertools.cycle(made)):
        if first >= rows:
            break
        one = one.slice(0, rows - first)
        columns = one.columns
        later_ns = number // len(made) * span_ns
        local = columns[at["ts_local"]]
        columns[at["ts_local"]] = pc.add(local.cast(pa.int64()), later_ns).cast(local.type)
        columns[at["_log"]] = pa.repeat(pa.scalar(writer.epoch, pa.uint64()), one.num_rows)
        columns[at["_seq"]] = pa.array(range(first, first + one.num_rows), pa.uint64())
        while True:
            try:
                mark = writer.append(pa.RecordBatch.from_arrays(columns, schema=schema)).mark
                break
            except LogFull:
                time.sleep(LOOK_S)
        first += one.num_rows
    writer.wait(mark, SYNC_TIMEOUT_S)
    writer.close(SYNC_TIMEOUT_S)
    commit.close(SYNC_TIMEOUT_S)


def _replayed(folder: Path, rows: int) -> Replayed:
    settings, process = _settings(folder), psutil.Process()
    with Recorder(settings):
        pass  # the schema is there, as it was before the outage
    _write(folder / "wal" / TABLE, fills(1, 1)[0].schema, rows)
    memory_bytes, began_s = process.memory_info().rss, time.perf_counter()
    with Recorder(settings) as recorder:
        opened_s = time.perf_counter() - began_s
        while True:
            balance = recorder.balance()[TABLE]
            if balance.received >= rows and not balance.pending:
                break
            if time.perf_counter() - began_s > TIMEOUT_S:
                raise SystemExit(f"after {TIMEOUT_S:g} s {balance.inserted:,} of {rows:,} rows are in")
            time.sleep(LOOK_S)
        elapsed_s = time.perf_counter() - began_s
        grown_bytes = process.memory_info().rss - memory_bytes
    found = rig.ask(settings, {"rows": f"SELECT count(), uniqExact(_log, _seq) FROM {TABLE}"})["rows"]
    if found != [(rows, rows)]:
        raise SystemExit(f"{rows:,} rows were on the log; the database has {found}: rows, identities")
    return Replayed(rows, opened_s, elapsed_s, grown_bytes)


if __name__ == "__main__":
    log.configure("error")
    print(json.dumps(asdict(_replayed(Path(sys.argv[1]), int(sys.argv[2])))))
