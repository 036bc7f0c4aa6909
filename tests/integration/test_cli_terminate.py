"""SIGTERM ends a command that records: what it took is in the database, and the exit code says what happened."""

from __future__ import annotations

import json
import pathlib
import signal
import subprocess
import urllib.request

import pytest
from harness.backends import Place
from harness.ingest_files import COMMAND, child_environment, run_command
from harness.ports import free_port
from harness.recorders import wait_until

TABLE = "market_data"


def _received(port: int) -> int:
    """Rows the recorder in the child has taken; 0 while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5) as answer:
            return int(json.load(answer)["balance"][TABLE]["received"])
    except OSError:
        return 0


@pytest.mark.parametrize("arguments", [["simulate", "--rate", "2k:600"], ["demo", "--minutes", "30"]])
def test_sigterm_flushes_and_says_so(place: Place, tmp_path: pathlib.Path, arguments: list[str]) -> None:
    """Rows that were waiting for company are in the database afterwards, in the order they came, none missing."""
    port = free_port()
    child = subprocess.Popen(
        [*COMMAND, "--data-dir", str(tmp_path / "data"), *arguments],
        env=child_environment(
            **place.variables,
            RECORDER_HEALTH_ADDR=f"127.0.0.1:{port}",
            RECORDER_DEFAULTS__LINGER_MS="3600000",  # only closing sends the rows that wait
            RECORDER_DEFAULTS__LINGER_MAX_MS="3600000",
        ),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    try:
        wait_until(lambda: child.poll() is not None or _received(port) > 500, "rows")
        child.send_signal(signal.SIGTERM)
        _, errors = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 143, errors
    assert errors.splitlines()[-1] == "stopped"
    sql = f"SELECT count() AS rows, max(_seq) + 1 AS numbered FROM {TABLE}"
    asked = run_command(
        "--data-dir", tmp_path / "data", "query", "--format", "jsonl", sql, cwd=tmp_path, **place.variables
    )
    found = json.loads(asked.stdout)
    assert int(found["rows"]) > 500
    assert found["rows"] == found["numbered"]
