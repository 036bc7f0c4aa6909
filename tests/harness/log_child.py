"""A recording process that is killed: orders and fills through the real engine, and what it was told is durable.

    python -m harness.log_child DATA_DIR TOLD_FILE FIRST COUNT [STEP NTH]

It records rows FIRST to FIRST + COUNT of both tables in pieces, syncs after each, and then writes to TOLD_FILE how far
rows are durable. With STEP it kills itself at the NTH time that it comes there. Without an end of COUNT (0) it only
starts, gets in what the log has, and ends in order, with its balance on stdout.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from recorder import Recorder, Settings
from recorder.flush_worker import FlushWorker
from recorder.log_earlier import EarlierRows
from recorder.sink.base import Sink
from recorder.sink.client_sink import ClientSink
from recorder.table_log import TableLog
from wal import purge as purging
from wal.checkpoint import CheckpointFile
from wal.log_disk import LogDisk
from wal.replay import Replay
from wal.writer import LogWriter

PIECE = 50
STEPS: dict[str, tuple[Any, str, bool]] = {
    "after append": (LogWriter, "append", True),
    "after sync": (TableLog, "durable_upto", True),
    "before seal": (TableLog, "seal", False),
    "during insert": (ClientSink, "insert", False),
    "before confirm": (TableLog, "_confirm", False),
    "during checkpoint": (CheckpointFile, "_write_new", True),
    "after checkpoint": (CheckpointFile, "write", True),
    "during rotate": (LogDisk, "rotate", False),
    "during purge": (purging, "remove", True),
    "during replay": (EarlierRows, "next", False),
    "during replay of a seal": (Replay, "_sealed", False),
    "look-up": (FlushWorker, "_take_up", False),
}
"""Name: class or module, function, and whether after its call."""


def die_at(step: str, nth: int) -> None:
    owner, name, after = STEPS[step]
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, counted)


def settings(data_dir: pathlib.Path) -> Settings:
    return Settings(
        data_dir=data_dir,
        run_id="run",
        gap_window_s=0.05,
        wal_grace_s=0.2,
        shutdown_timeout_s=30,
        defaults={"linger_ms": 5, "linger_max_ms": 20, "batch_rows": 200},
    )


def main() -> None:
    data_dir, told = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    first, count = int(sys.argv[3]), int(sys.argv[4])
    if len(sys.argv) > 5:
        die_at(sys.argv[5], int(sys.argv[6]))
    with Recorder(settings(data_dir)) as recorder:
        for start in range(first, first + count, PIECE):
            for n in range(start, start + PIECE):
                recorder.record(
                    "orders", {"client_order_id": f"c-{n}", "symbol": "B", "status": "Open", "qty": n}
                )
                recorder.record(
                    "fills",
                    {"fill_id": f"f-{n}", "symbol": "B", "side": "buy", "fill_qty": 1, "fill_price": 1},
                )
            recorder.sync(60)
            # One write of few bytes: what the process did before it was killed stays in the page cache.
            told.write_text(str(start + PIECE))
        recorder.flush(60)
        deadline_s = time.monotonic() + 60
        while any(recorder.balance()[table].pending for table in ("orders", "fills")):
            assert time.monotonic() < deadline_s, recorder.balance()
            time.sleep(0.01)
        stored = {
            table: recorder.ask(partial(ask, sql=f"SELECT _log, _seq, {column} FROM {table}"), 60)
            for table, column in (("orders", "client_order_id"), ("fills", "fill_id"))
        }
    balances = {name: (balance.as_dict(), balance.exact) for name, balance in recorder.balance().items()}
    print(json.dumps({"stored": stored, "balances": balances}))


async def ask(sink: Sink, sql: str) -> list[tuple[int, int, int]]:
    """Identity and number of each row."""
    return [(log, seq, int(name[2:])) for log, seq, name in await sink.query(sql)]


if __name__ == "__main__":
    main()
