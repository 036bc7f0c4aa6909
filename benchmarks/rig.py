"""A recorder under test: a fresh database, what is read from the recorder while it runs, and the count at the end.

The database is a folder that is gone afterwards, unless a target is named. What the recorder says of itself (balance,
lag, queues) is read on its own loop; what the database has is counted after it has closed, by a sink of our own.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from recorder import Recorder, log
from recorder.cli.options import Invocation
from recorder.latency import LatencyHistogram
from recorder.pipeline import TablePipeline
from recorder.runtime import Runtime
from recorder.settings import Settings
from recorder.sink.base import Sink
from recorder.sink.open import open_sink

SAMPLE_S = 0.02


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for a database, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="recorder-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def settings_of(
    invocation: Invocation, folder: Path, *, target: str | None = None, **overrides: Any
) -> Settings:
    """The settings in force, for a database in `folder` or at `target`; quiet unless `--debug`.

    Raises:
        SettingsError: they cannot be used.
    """
    settings = invocation.settings(
        base={"log_level": "error"},
        target=target or f"chdb://{folder / 'db'}",
        data_dir=str(folder),
        **overrides,
    )
    if not invocation.debug:
        log.configure("error", settings.log_format)
    return settings


def hush(invocation: Invocation) -> None:
    """Leave out what the recorder logs while its database fails on purpose."""
    if not invocation.debug:
        log.configure("critical", stream=io.StringIO())


async def _with_sink(settings: Settings, questions: Mapping[str, str]) -> dict[str, list[tuple[Any, ...]]]:
    sink: Sink = open_sink(settings)
    await sink.start()
    try:
        return {name: [tuple(row) for row in await sink.query(sql)] for name, sql in questions.items()}
    finally:
        await sink.close()


def ask(settings: Settings, questions: Mapping[str, str]) -> dict[str, list[tuple[Any, ...]]]:
    """Answers of the database to SQL, by name, while no recorder is running."""
    return asyncio.run(_with_sink(settings, questions))


def engine_version(settings: Settings) -> str:
    """The version of the database's engine."""
    return str(ask(settings, {"version": "SELECT version()"})["version"][0][0])


@dataclass(frozen=True)
class Stored:
    """Rows of one table in the database, and how many different identities they have."""

    rows: int
    identities: int


def stored(settings: Settings, tables: Mapping[str, Any] | list[str] | tuple[str, ...]) -> dict[str, Stored]:
    """What the database has of these tables; those it does not have are left out."""
    there = {name for (name,) in ask(settings, {"": "SHOW TABLES"})[""]}
    counts = ask(
        settings,
        {name: f"SELECT count(), uniqExact(_log, _seq) FROM {name}" for name in tables if name in there},
    )
    return {name: Stored(int(rows[0][0]), int(rows[0][1])) for name, rows in counts.items()}


# -- what a running recorder is asked ---------------------------------------------------------------------------


def on_loop(recorder: Recorder, ask_runtime: Any) -> Any:
    """An answer of the recorder's runtime, taken on its loop."""
    return recorder._life.ask(ask_runtime)


def pipelines(recorder: Recorder) -> dict[str, TablePipeline]:
    """The recorder's pipelines; read only counters from another thread."""
    return recorder._life.running()[0].pipelines


@dataclass
class Mark:
    """What was read at the end of a phase: counts since the one before."""

    lag: dict[str, LatencyHistogram]
    inserts: int
    inserted_rows: int


def take(recorder: Recorder) -> Mark:
    """Lag since the last call, by table, and the counts of now."""

    def read(runtime: Runtime) -> Mark:
        lag = {}
        for name, recorded in runtime.tables.items():
            lag[name], recorded.lag = recorded.lag, LatencyHistogram()
        return Mark(
            lag,
            sum(pipeline.inserts for pipeline in runtime.pipelines.values()),
            sum(pipeline.inserted_rows for pipeline in runtime.pipelines.values()),
        )

    mark: Mark = on_loop(recorder, read)
    return mark


# -- what the process uses ------------------------------------------------------------------------------------------

ROLES = ("producer", "recorder", "sink", "engine")


def cpu_by_role() -> dict[str, float]:
    """CPU seconds of this process so far, by who used them.

    `producer` is the calling thread, `recorder` the recorder's loop, `sink` the threads that hand batches to the
    engine (the engine's work on the calling thread included), `engine` all others.
    """
    process = psutil.Process()
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    here = threading.get_native_id()
    used = dict.fromkeys(ROLES, 0.0)
    for thread in process.threads():
        name = names.get(thread.id, "")
        seconds = thread.user_time + thread.system_time
        if thread.id == here:
            used["producer"] += seconds
        elif name.startswith("recorder"):
            used["recorder"] += seconds
        elif name.startswith("sink-"):
            used["sink"] += seconds
    total = time.process_time()
    # The engine's threads come and go, and take their times with them; the process keeps the sum.
    used["engine"] = max(0.0, total - sum(used.values()))
    return used


@dataclass
class Peaks:
    """The greatest seen between two looks."""

    rss_bytes: int = 0
    queue_rows: dict[str, int] = field(default_factory=dict)
    queue_usage: float = 0.0
    waiting_rows: int = 0
    """Rows in all queues together."""


class Probe:
    """Watches memory and queues every `SAMPLE_S` from a thread of its own."""

    def __init__(self, recorder: Recorder):
        self._pipelines = pipelines(recorder)
        self._peaks = Peaks()
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="bench-probe", daemon=True)

    def __enter__(self) -> Probe:
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self.look()

    def look(self) -> None:
        """Take one sample now."""
        peaks, waiting = self._peaks, 0
        peaks.rss_bytes = max(peaks.rss_bytes, rss_bytes(self._page))
        for name, pipeline in self._pipelines.items():
            rows = pipeline.queue.waiting_rows
            waiting += rows
            if rows:
                peaks.queue_rows[name] = max(peaks.queue_rows.get(name, 0), rows)
                peaks.queue_usage = max(peaks.queue_usage, pipeline.queue.usage())
        peaks.waiting_rows = max(peaks.waiting_rows, waiting)

    def take(self) -> Peaks:
        """The peaks since the last call."""
        peaks, self._peaks = self._peaks, Peaks()
        return peaks


def rss_bytes(page: int = 4_096) -> int:
    """Resident memory of this process now."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * page
    except OSError:
        return int(psutil.Process().memory_info().rss)
