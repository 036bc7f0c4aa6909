"""Ctrl-C and SIGTERM at the worst moments: while a recorder starts, while it closes, while a file is recorded."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from harness.backends import Place

ROWS = 20_000

COMMON = """
import os, signal, sys, threading, time
from recorder import Recorder, Settings

folder, number = sys.argv[1], int(sys.argv[2])
recorder = Recorder(Settings(data_dir=folder, switch_interval_s=1e-4))


def when(ready, *pauses_s):
    def watch():
        while not ready():
            time.sleep(0.0005)
        for pause_s in pauses_s:
            time.sleep(pause_s)
            os.kill(os.getpid(), number)
    threading.Thread(target=watch, daemon=True).start()
"""

CLOSING = """
class Terminated(BaseException):
    pass


def terminate(*_):
    raise Terminated


signal.signal(signal.SIGTERM, terminate)
recorder.start()
now, accepted = time.time_ns(), 0
for n in range(%d):
    accepted += recorder.record("fills", {"ts_local": now + n, "fill_id": str(n), "symbol": "A", "fill_qty": 1,
                                          "fill_price": 1, "side": "buy"})
when(lambda: recorder._life.state.value == "closing", 0.005, 0.02, 0.02)
try:
    recorder.close()
except (KeyboardInterrupt, Terminated):
    print(accepted, recorder.balance()["fills"].inserted, recorder._life.state.value, "interrupted")
else:
    print(accepted, recorder.balance()["fills"].inserted, recorder._life.state.value, "too late")
"""

STARTING = """
when(lambda: any(thread.name == "recorder" for thread in threading.enumerate()), 0.02)
before = sys.getswitchinterval()
try:
    recorder.start()
except KeyboardInterrupt:
    pass
recorder.close()
left = sorted(thread.name for thread in threading.enumerate() if thread.name.startswith(("recorder", "sink")))
print(recorder._life.state.value, sys.getswitchinterval() == before, left)
with Recorder(Settings(data_dir=folder)) as second:
    print(second.ask(lambda sink: sink.query("SELECT 1"))[0][0])
"""


def child(code: str, place: Place, folder: pathlib.Path, number: signal.Signals = signal.SIGINT) -> list[str]:
    """The lines that a child process printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(COMMON + code), folder, str(int(number))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | place.variables,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout.splitlines()


def asked(place: Place, folder: pathlib.Path, sql: str) -> list[dict[str, int]]:
    """What `recorder query` answers."""
    command = [sys.executable, "-m", "recorder", "--json", "query", sql]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, cwd=folder,
        env=os.environ | place.variables,
    )  # fmt: skip
    answer: list[dict[str, int]] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_does_not_end_the_closing(
    number: signal.Signals, place: Place, tmp_path: pathlib.Path
) -> None:
    """However often it comes, the rows are waited for, and each accepted one is in; then it is raised."""
    told = child(CLOSING % ROWS, place, tmp_path, number)[-1].split(maxsplit=3)
    assert told == [str(ROWS), str(ROWS), "closed", "interrupted"]
    assert asked(place, tmp_path, "SELECT count() AS rows FROM fills") == [{"rows": ROWS}]


def test_an_interrupted_start_leaves_nothing_behind(place: Place, tmp_path: pathlib.Path) -> None:
    """No thread, no open database, the interpreter's switch interval as it was; another recorder can start."""
    state, second = child(STARTING, place, tmp_path)[-2:]
    assert state == "closed True []"
    assert second == "1"


@pytest.mark.parametrize("after_s", [0.1, 0.2, 0.4])
def test_an_interrupted_ingest_counts_what_is_in(
    after_s: float, place: Place, tmp_path: pathlib.Path
) -> None:
    """Its totals are those of the table, to the row, wherever Ctrl-C comes."""
    file = tmp_path / "fills.ndjson"
    now = time.time_ns()
    file.write_text(
        "".join(
            json.dumps({"ts_local": now + n, "fill_id": str(n), "symbol": "A", "side": "buy", "fill_qty": "1",
                        "fill_price": "2"}) + "\n"
            for n in range(100_000)
        )
    )  # fmt: skip
    command = [sys.executable, "-m", "recorder", "--json", "ingest"]
    run = subprocess.Popen(
        [*command, "--format", "ndjson", "--table", "fills", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | place.variables,
    )
    assert run.stderr is not None
    assert "migrated" in run.stderr.readline()  # recording begins
    time.sleep(after_s)
    os.kill(run.pid, signal.SIGINT)
    out, _ = run.communicate(timeout=60)
    balance = json.loads(out)["balance"].get("fills", {}) if out else {}  # it came before the first row
    assert balance.get("pending", 0) == balance.get("shed", 0) == 0
    assert asked(place, tmp_path, "SELECT count() AS rows FROM fills") == [
        {"rows": balance.get("inserted", 0)}
    ]
