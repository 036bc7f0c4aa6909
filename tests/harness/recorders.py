"""Recorders for tests: in a database of their own, with short waits."""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from recorder import Recorder, Settings
from recorder.sink.errors import SinkError
from recorder.sink.open import open_sink

from .backends import Backend
from .faulty_sink import Fail, FaultySink

WAIT_S = 60.0


def settings_for(
    where: Backend | pathlib.Path, database: str, folder: pathlib.Path, **changes: Any
) -> Settings:
    """Settings for a backend, or for the embedded engine of a path; everything that waits waits briefly."""
    target = where.target if isinstance(where, Backend) else f"chdb://{where}"
    quick: dict[str, Any] = {
        "target": target, "database": database, "data_dir": folder, "run_id": "run-1",
        "migrate_on_start": True,
        "retry_initial_s": 0.01, "retry_max_s": 0.05, "hold_probe_s": 0.05, "gap_window_s": 0.05,
        "defaults": {"linger_ms": 5, "linger_max_ms": 20},
    }  # fmt: skip
    return Settings(**(quick | changes))


def faulty(settings: Settings) -> FaultySink:
    """A real sink for these settings, with room for faults in its way."""
    return FaultySink(open_sink(settings))


@contextlib.contextmanager
def in_trouble(
    settings: Settings, table: str, error: SinkError
) -> Iterator[tuple[Recorder, Callable[[], None]]]:
    """A recorder of whose inserts into a table each fails with an error, until the call beside it mends the table."""
    sink = faulty(settings)
    sink.always(table, Fail(error))
    with Recorder(settings, sink=sink) as recorder:
        yield recorder, lambda: sink.always(table, None)


def rows(recorder: Recorder, sql: str) -> list[tuple[Any, ...]]:
    """What the database answers."""
    return [tuple(row) for row in recorder.ask(lambda sink: sink.query(sql), WAIT_S)]


def wait_until(true: Callable[[], bool], what: str = "the condition") -> None:
    """Poll until it is true."""
    deadline_s = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline_s, f"{what} did not come true within {WAIT_S} s"
        time.sleep(0.005)


def order(n: int, **fields: Any) -> dict[str, Any]:
    """A row of `orders`."""
    return {"client_order_id": f"c-{n}", "symbol": "BTCUSDT", "status": "Open", "qty": n} | fields
