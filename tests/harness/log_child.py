"""Recording processes that are killed: orders and fills through the real engine, and what they are told is durable.

    python -m harness.log_child ANSWER_FILE

imports everything a recorder needs but the engine, whose threads no fork survives, and then forks a process for each
line of JSON on its input (`Run`), has it killed or lets it be, and answers with a line of JSON: `status` (of the
process: -9 for SIGKILL), what its `Marks` say, and of one that was let be what is in the database.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import select
import signal
import sys
import time
import traceback
from functools import partial
from typing import Any

import msgspec
import pandas as pd  # noqa: F401 - imported late by pyarrow, which takes each process long

from recorder import Recorder, Settings, log_setup, runtime
from recorder.sink import chdb, http  # noqa: F401 - imported late by the recorder
from recorder.sink.base import Sink
from wal.options import LogOptions

from .log_steps import STEPS, Killer, Marks

PIECE = 20
PATIENCE_S = 60.0
"""How long a run may take to come to its end, or to its step."""
UP, KILL_ME = b"u", b"k"


class Run(msgspec.Struct, kw_only=True):
    """One process: rows from number `first` on, in pieces, synced after each, until it is killed.

    With `step` that is the `nth` time that it comes there, or `kill_s` after. Without, `kill_s` after its recorder
    started, or after the fork where it is to die `young`. With `rows` it is let be: it records so many, gets in all
    that there is, and answers with what is in the database and its balance. A byte (`!`) on the input kills it at once.
    """

    data_dir: str
    target: str
    database: str
    first: int
    rows: int = 0
    step: str = ""
    nth: int = 1
    kill_s: float = 0.0
    young: bool = False


def settings(run: Run) -> Settings:
    return Settings(
        data_dir=pathlib.Path(run.data_dir),
        target=run.target or None,
        database=run.database,
        migrate_on_start=True,
        run_id="run",
        gap_window_s=0.05,
        wal_grace_s=0.1,
        retry_initial_s=0.01,
        retry_max_s=0.05,
        shutdown_timeout_s=30,
        insert_budget_per_s=1_000,
        defaults={"linger_ms": 5, "linger_max_ms": 20, "batch_rows": 200},
        tables={"metrics_timeseries": {"enabled": False}},
    )


def record(recorder: Recorder, run: Run, marks: Marks, killer: Killer) -> None:
    start = run.first
    while not run.rows or start < run.first + run.rows:
        for n in range(start, start + PIECE):
            recorder.record(
                "orders", {"client_order_id": f"c-{n}", "symbol": "B", "status": "Open", "qty": n}
            )
            recorder.record(
                "fills", {"fill_id": f"f-{n}", "symbol": "B", "side": "buy", "fill_qty": 1, "fill_price": 1}
            )
        marks.rows(start + PIECE, start)
        recorder.sync(30)
        killer.armed = True  # from here on there is something to lose
        start += PIECE
        # In memory that outlives it: what is told here was told, whatever comes next.
        marks.rows(start, start)
        for table, balance in recorder.balance().items():
            assert balance.exact, (table, balance)
            assert balance.shed == 0, (table, balance)


def stored(recorder: Recorder) -> dict[str, Any]:
    """What is in the database once all rows are in."""
    recorder.flush(30)
    deadline_s = time.monotonic() + 30
    while any(balance.pending for balance in recorder.balance().values()):
        assert time.monotonic() < deadline_s, recorder.balance()
        recorder.flush(30)
    return {
        table: recorder.ask(partial(ask, sql=f"SELECT _log, _seq, {column} FROM {table}"), 60)
        for table, column in (("orders", "client_order_id"), ("fills", "fill_id"))
    }


async def ask(sink: Sink, sql: str) -> list[tuple[int, int, int]]:
    """Identity and number of each row."""
    return [(log, seq, int(name[2:])) for log, seq, name in await sink.query(sql)]


def live(run: Run, marks: Marks, tell: int) -> dict[str, Any]:
    """Of a forked process: its life."""
    # Small segments and quick care: rotations, checkpoints and purges come often.
    vars(runtime)["LOG_CARE_S"] = 0.03
    vars(log_setup)["LogOptions"] = functools.partial(
        LogOptions, segment_bytes_min=16_384, segment_bytes_max=32_768, codec=None
    )
    step = STEPS[run.step] if run.step else None
    killer = Killer(marks, step, run.nth, lambda: os.write(tell, KILL_ME))
    with Recorder(settings(run)) as recorder:
        os.write(tell, UP)
        record(recorder, run, marks, killer)
        found = stored(recorder)
    balances = {name: (balance.as_dict(), balance.exact) for name, balance in recorder.balance().items()}
    return {"stored": found, "balances": balances}


def forked(run: Run, marks: Marks, answer: pathlib.Path) -> dict[str, Any]:
    """Have a process live, and see it die."""
    marks.clear()
    heard, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            answer.write_text(json.dumps(live(run, marks, tell)))
            code = 0
        except BaseException:  # noqa: BLE001 - told to who forked it
            answer.write_text(traceback.format_exc())
        finally:
            os._exit(code)
    os.close(tell)
    try:
        status = _ended(run, pid, heard)
    finally:
        os.close(heard)
    told = {"status": status, **marks.read()}
    if status != -signal.SIGKILL:
        told["said" if status else "found"] = (
            json.loads(answer.read_text()) if status == 0 else answer.read_text()
        )
    return told


def _ended(run: Run, pid: int, heard: int) -> int:
    """Wait for a process, and kill it when that is due."""
    random_kill = not run.step and not run.rows
    due_s = time.monotonic() + (run.kill_s if run.young else PATIENCE_S)
    while (left_s := due_s - time.monotonic()) > 0:
        ready, _, _ = select.select([heard, sys.stdin.fileno()], [], [], left_s)
        if heard in ready:
            said = os.read(heard, 1)
            if not said:
                break  # it has ended
            if said == KILL_ME or (said == UP and random_kill and not run.young):
                due_s = time.monotonic() + run.kill_s
        elif ready:
            os.read(sys.stdin.fileno(), 1)
            break  # whoever asked wants it dead, or has ended
    if left_s <= 0 or heard not in ready:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    marks = Marks()
    answer = pathlib.Path(sys.argv[1])
    # By hand, since `select` does not see what a buffer has.
    while line := os.read(sys.stdin.fileno(), 65_536).strip(b"!"):
        told = forked(msgspec.json.decode(line, type=Run), marks, answer)
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
