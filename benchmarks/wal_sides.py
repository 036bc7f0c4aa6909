"""The log and its rivals under the same load: slices of rows that come at a rate, in groups of 10 ms, synced.

Two runs a side. *As fast as it goes*: groups of so many rows as come in 10 ms at a million rows/s, one after the
other, until the time is up; what counts is rows on disk by the time all of them are. *At a rate*: slices are due at
moments that do not depend on how the ones before fared (open loop); whoever is written to once a group gathers them
for 10 ms, the log does so itself; what counts is how long after its moment a slice is on disk.

Rows and their forms are made beforehand. The garbage collector is frozen, the same for all.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.gcstate import gc_state
from benchmarks.ingest_sides import TABLES, arrow_batches
from benchmarks.rows import make_reel
from benchmarks.stats import Nanoseconds
from benchmarks.wal_rivals import Rival, RivalKind
from recorder.cli.errors import Failure
from wal.commit import GroupCommit
from wal.errors import LogFull, NotDurable
from wal.options import LogOptions
from wal.writer import LogWriter

TABLE = "fills"
GROUP_S = 0.010
GROUP_ROWS = 10_000
"""What comes in 10 ms at a million rows/s: a group where rows come as fast as they are taken."""
SYNC_TIMEOUT_S = 60.0
_FULL_S = 0.001


Form = Callable[[pa.RecordBatch], Sequence[Any]]


class Load:
    """What a side is given: slices of rows, again and again, for `seconds`; at `rate` rows/s, or as fast as it goes."""

    def __init__(self, slices: Sequence[pa.RecordBatch], seconds: float, rate: float):
        self.slices = slices
        self.seconds = seconds
        self.rate = rate
        self._forms: dict[Form, list[Sequence[Any]]] = {}

    @property
    def schema(self) -> pa.Schema:
        """Of all slices."""
        return self.slices[0].schema

    def forms(self, form: Form) -> list[Sequence[Any]]:
        """Each slice's rows as somebody wants them, made once for all rounds and for all who want them so."""
        if form not in self._forms:
            self._forms[form] = [form(one) for one in self.slices]
        return self._forms[form]

    def groups(self, form: Form) -> list[tuple[list[Any], int]]:
        """The same rows in groups of at least `GROUP_ROWS`, or all as one where there are fewer; and their bytes."""
        found: list[tuple[list[Any], int]] = []
        rows: list[Any] = []
        nbytes = 0
        for one, made in zip(self.slices, self.forms(form), strict=True):
            rows.extend(made)
            nbytes += one.nbytes
            if len(rows) >= GROUP_ROWS:
                found.append((rows, nbytes))
                rows, nbytes = [], 0
        return found or [(rows, nbytes)]


@dataclass(frozen=True)
class Measured:
    """What came of one side in one round."""

    rows: int
    """Put in as fast as it goes."""
    elapsed_s: float
    """Until all of them were on disk."""
    arrow_bytes: int
    """Of these rows in memory."""
    disk_bytes: int
    """What they took on disk, without what was made ahead."""
    cpu_s: float
    """Of this process, all threads, meanwhile."""
    latencies_ns: Nanoseconds | None
    """Of slices at the rate, from their moments until they were on disk; None for who does not tell."""
    late_rows: int
    """Due by the end of that run, and not taken yet: this side does not keep up with the rate."""
    idle_cpu: float
    """Cores that the run at the rate took."""


def fills(slice_rows: int, rows: int = 30_000) -> list[pa.RecordBatch]:
    """Ready rows of `fills`, as the recorder's builder makes them, in slices."""
    made = [row for _, row in itertools.islice(make_reel([TABLE], 25_000.0).events(), rows)]
    return arrow_batches(TABLES[TABLE], made, rows, slice_rows)


def due_slices(load: Load) -> Iterator[tuple[float, pa.RecordBatch]]:
    """Each slice and when it is due, in seconds after the beginning."""
    rows = 0
    for one in itertools.cycle(load.slices):
        rows += one.num_rows
        at_s = rows / load.rate
        if at_s > load.seconds:
            return
        yield at_s, one


# -- the log ------------------------------------------------------------------------------------------------------


class _Synced:
    """Notes when each slice was told to be on disk."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, int]] = deque()
        self._lock = threading.Lock()
        self.latencies_ns: list[int] = []

    def appended(self, mark: int, due_ns: int) -> None:
        """A slice has this mark."""
        with self._lock:
            self._waiting.append((mark, due_ns))

    def told(self, writer: LogWriter) -> None:
        """Everything up to the writer's mark is on disk, now."""
        now_ns, mark = time.perf_counter_ns(), writer.synced_mark
        with self._lock:
            while self._waiting and self._waiting[0][0] <= mark:
                self.latencies_ns.append(now_ns - self._waiting.popleft()[1])

    @property
    def waiting(self) -> int:
        """Slices that are not on disk."""
        return len(self._waiting)


def measure_log(folder: Path, load: Load, options: LogOptions) -> Measured:
    """The log: one writer, its group commit every 10 ms.

    Raises:
        Failure: it does not get its rows to disk.
    """
    synced = _Synced()
    commit = GroupCommit(group_ms=GROUP_S * 1e3)
    try:
        with gc_state("freeze"):
            fast = _log_fast(folder / "fast", load, options, commit)
            paced = LogWriter.open(
                folder / "paced", TABLE, load.schema, commit=commit, options=options, on_synced=synced.told
            )
            cpu = _Cpu()
            late = _paced(load, lambda one, due: synced.appended(paced.append(one).mark, due))
            _closed(paced)
            synced.told(paced)
            cores = cpu.used_s() / load.seconds
    finally:
        commit.close(SYNC_TIMEOUT_S)
    return Measured(
        *fast,
        latencies_ns=np.array(synced.latencies_ns, np.int64),
        late_rows=late,
        idle_cpu=cores,
    )


def _log_fast(
    folder: Path, load: Load, options: LogOptions, commit: GroupCommit
) -> tuple[int, float, int, int, float]:
    """Rows, seconds, bytes of Arrow and on disk, and CPU seconds of a run as fast as it goes."""
    writer = LogWriter.open(folder, TABLE, load.schema, commit=commit, options=options)
    rows = nbytes = 0
    sizes = [one.nbytes for one in load.slices]
    cpu, began_s = _Cpu(), time.perf_counter()
    for one, size in zip(itertools.cycle(load.slices), itertools.cycle(sizes), strict=False):
        if time.perf_counter() - began_s > load.seconds:
            break
        while True:
            try:
                mark = writer.append(one).mark
                break
            except LogFull:
                time.sleep(_FULL_S)
        rows += one.num_rows
        nbytes += size
    try:
        writer.wait(mark, SYNC_TIMEOUT_S)
    except NotDurable as error:
        raise Failure(f"the log did not get its rows to disk: {error}") from error
    elapsed_s, cpu_s = time.perf_counter() - began_s, cpu.used_s()
    _closed(writer)
    return rows, elapsed_s, nbytes, disk_bytes(folder), cpu_s


def _closed(writer: LogWriter) -> None:
    if not writer.close(SYNC_TIMEOUT_S):
        raise Failure(f"the log did not close within {SYNC_TIMEOUT_S:g} s: {writer.stats()}")


# -- a rival ------------------------------------------------------------------------------------------------------


def measure_rival(kind: RivalKind, folder: Path, load: Load) -> Measured:
    """A rival: whoever calls it gathers a group, and waits until it is written."""
    groups, slices = load.groups(kind.form), load.forms(kind.form)
    for name in ("fast", "paced"):
        (folder / name).mkdir(parents=True)
    with gc_state("freeze"):
        fast = _rival_fast(kind, folder / "fast", load, groups)
        rival = kind(folder / "paced", load.schema)
        try:
            cpu = _Cpu()
            latencies, late = _gathered(rival, load, slices)
            cores = cpu.used_s() / load.seconds
        finally:
            rival.close()
    return Measured(
        *fast,
        latencies_ns=np.array(latencies, np.int64) if kind.tells else None,
        late_rows=late,
        idle_cpu=cores,
    )


def _rival_fast(
    kind: RivalKind, folder: Path, load: Load, groups: Sequence[tuple[list[Any], int]]
) -> tuple[int, float, int, int, float]:
    rival = kind(folder, load.schema)
    rows = nbytes = 0
    try:
        cpu, began_s = _Cpu(), time.perf_counter()
        for group, size in itertools.cycle(groups):
            if time.perf_counter() - began_s > load.seconds:
                break
            rival.put(group)
            rows += len(group)
            nbytes += size
        elapsed_s, cpu_s = time.perf_counter() - began_s, cpu.used_s()
        on_disk = disk_bytes(folder)
    finally:
        rival.close()
    return rows, elapsed_s, nbytes, on_disk, cpu_s


def _gathered(rival: Rival, load: Load, slices: Sequence[Sequence[Any]]) -> tuple[list[int], int]:
    """Latency of each slice, and rows that were due and never taken."""
    latencies: list[int] = []
    group: list[Any] = []
    dues: list[int] = []
    forms = itertools.cycle(slices)

    def commit() -> None:
        rival.put(group)
        now_ns = time.perf_counter_ns()
        latencies.extend(now_ns - due for due in dues)
        group.clear()
        dues.clear()

    def take(_: pa.RecordBatch, due_ns: int) -> None:
        if dues and time.perf_counter_ns() - dues[0] >= GROUP_S * 1e9:
            commit()
        group.extend(next(forms))
        dues.append(due_ns)

    late = _paced(load, take)
    if group:
        commit()
    return latencies, late


# -- both ---------------------------------------------------------------------------------------------------------


def _paced(load: Load, take: Callable[[pa.RecordBatch, int], None]) -> int:
    """Hand over each slice at its moment, or at once if that is past; rows that the time did not suffice for."""
    began_ns = time.perf_counter_ns()
    end_ns = began_ns + int(load.seconds * 1e9)
    late = 0
    for at_s, one in due_slices(load):
        due_ns = began_ns + int(at_s * 1e9)
        now_ns = time.perf_counter_ns()
        if now_ns > end_ns + GROUP_S * 1e9:
            late += one.num_rows
            continue
        if now_ns < due_ns:
            time.sleep((due_ns - now_ns) / 1e9)
        take(one, due_ns)
    return late


class _Cpu:
    def __init__(self) -> None:
        self._before_s = time.process_time()

    def used_s(self) -> float:
        return time.process_time() - self._before_s


def disk_bytes(folder: Path) -> int:
    """What the files of a folder take; they were made for these rows alone."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
