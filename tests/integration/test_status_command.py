"""`recorder status`: what a running recorder says of itself, and an exit code for scripts."""

from __future__ import annotations

import http.server
import json
import pathlib
import signal
import socketserver
import subprocess
import threading
from collections.abc import Iterator

import pytest
from harness.backends import Backend
from harness.faulty_sink import Fail
from harness.ingest_files import COMMAND, child_environment, run_command
from harness.ports import free_port
from harness.recorders import WAIT_S, faulty, order, settings_for, wait_until

from recorder import Recorder
from recorder.alarms import rules
from recorder.sink.errors import HoldError
from recorder.stats import BusCounts, RetentionStats, SourceCounts

BUS = BusCounts(
    guarantee="at-least-once", down="", restarts=0, messages=12, redelivered=3, duplicates=0, undecodable=1, ignored=2,
    rows=34, unacknowledged=5, oldest_unacknowledged_s=0.25,
)  # fmt: skip
RETENTION = RetentionStats(
    schedule="0 2 * * *", next_run_s=1_800_000_000.0, last_run_s=1_700_000_000.0, last_outcome="failed",
    last_why="no room", last_success_s=1_699_913_600.0, actions={("drop", "done"): 2},
)  # fmt: skip


@pytest.fixture
def address() -> str:
    """Where a health port may be."""
    return f"127.0.0.1:{free_port()}"


def test_a_ready_recorder_is_shown_with_exit_code_0(
    backend: Backend, database: str, tmp_path: pathlib.Path, address: str
) -> None:
    """State, balance, lag and buses; as JSON everything there is. The address may come from the settings."""
    with Recorder(settings_for(backend, database, tmp_path, health_addr=address)) as recorder:
        recorder.watch("zmq://here", lambda: SourceCounts(bus=BUS))
        recorder.watch_retention(lambda: RETENTION)
        for n in range(7):
            recorder.record("orders", order(n))
        recorder.flush(WAIT_S)
        told = run_command("status", cwd=tmp_path, RECORDER_HEALTH_ADDR=address)
        assert told.returncode == 0, told.stderr
        assert told.stdout.startswith("ready: recorder ")
        assert "log disk " in told.stdout
        assert " GiB, " in told.stdout
        assert (
            "retention last run 2023-11-14 22:13:20Z, failed (no room); last success 2023-11-13 22:13:20Z; "
            "next 2027-01-15 08:00:00Z" in told.stdout
        )
        (line,) = [line for line in told.stdout.splitlines() if " orders " in line]
        assert line.split()[:4] == ["orders", "flowing", "7", "7"]
        (line,) = [line for line in told.stdout.splitlines() if "zmq://here" in line]
        assert line.split()[1:] == ["up", "at-least-once", "12", "3", "34", "1", "2", "5", "0.2"]
        found = json.loads(run_command("status", "--url", address, "--json", cwd=tmp_path).stdout)
        assert (found["ready"], found["balance"]["orders"]["inserted"]) == (True, 7)
        assert found["buses"]["zmq://here"]["unacknowledged"] == 5
        assert found["retention"]["actions"] == [{"kind": "drop", "state": "done", "count": 2}]


def test_a_recorder_that_is_not_ready_says_why_with_exit_code_3(
    backend: Backend, database: str, tmp_path: pathlib.Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A held table, though it has inserted nothing."""
    monkeypatch.setattr(rules, "LAG_LEAST_S", 3_600.0)  # a busy machine is late, too
    settings = settings_for(backend, database, tmp_path, health_addr=address)
    sink = faulty(settings)
    sink.always("orders", Fail(HoldError("no such column", code=16)))
    with Recorder(settings, sink=sink) as recorder:
        recorder.record("orders", order(1))
        wait_until(lambda: recorder.state_of("orders").value == "held", "held")
        told = run_command("status", "--url", f"http://{address}/", cwd=tmp_path)
        assert told.returncode == 3, told.stderr
        assert told.stdout.startswith("NOT READY: recorder ")
        assert "orders is held: no such column" in told.stdout
        (line,) = [line for line in told.stdout.splitlines() if line.startswith("ALARM ")]
        assert line.startswith("ALARM RecorderFailure (error) for 0 min ")
        assert line.endswith(" s: orders is held: no such column")
        found = json.loads(run_command("status", "--url", address, "--json", cwd=tmp_path).stdout)
        (alarm,) = found["alarms"]
        assert (alarm["alarm"], alarm["table"]) == ("RecorderFailure", "orders")
        sink.always("orders", None)
        recorder.flush(WAIT_S)


def test_nobody_there_is_exit_code_1(tmp_path: pathlib.Path, address: str) -> None:
    """One line with the address, what was seen and what to do."""
    told = run_command("status", "--url", address, cwd=tmp_path)
    assert told.returncode == 1
    (line,) = told.stderr.splitlines()
    assert line.startswith(
        f"error: http://{address}/readyz: no answer (connection refused); is the recorder running"
    )
    assert "health_addr (--health-addr of" in line


@pytest.fixture
def somebody_else() -> Iterator[str]:
    """A web server that is no recorder."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_somebody_else_there_is_exit_code_1(tmp_path: pathlib.Path, somebody_else: str) -> None:
    """It is told that this is no recorder."""
    told = run_command("status", "--url", somebody_else, cwd=tmp_path)
    assert told.returncode == 1
    assert "the answer is not a recorder's" in told.stderr


@pytest.mark.parametrize("data", [b"SSH-2.0-x\r\n", b""])
def test_a_port_that_speaks_something_else_is_exit_code_1(tmp_path: pathlib.Path, data: bytes) -> None:
    """One line; also where it hangs up at once."""

    class Other(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1_000)
            self.request.sendall(data)

    with socketserver.TCPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        told = run_command("status", "--url", f"127.0.0.1:{server.server_address[1]}", cwd=tmp_path)
        server.shutdown()
        thread.join()
    assert told.returncode == 1
    (line,) = told.stderr.splitlines()
    assert "health" in line
    assert "--debug" not in line


def test_no_proxy_is_asked(
    backend: Backend, database: str, tmp_path: pathlib.Path, address: str, somebody_else: str
) -> None:
    """A recorder of one's own is not behind what leads to the web."""
    with Recorder(settings_for(backend, database, tmp_path, health_addr=address)):
        told = run_command("status", "--url", address, cwd=tmp_path, http_proxy=f"http://{somebody_else}")
    assert told.returncode == 0, told.stderr


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://x", "is no address"),
        ("http://127.0.0.1:abc", "is no address"),
        ("http://[::1", "is no address"),
        ("http://:9477", "is no address"),
        ("http://a b", "is no address"),
        ("", "--url '' is no address"),
        (f"http://{'a' * 300}:1", "is no address"),
        ("http://me:s3cret@127.0.0.1:1", "is no address"),
        ("nonsense", "names no port"),
        ("127.0.0.1:0", "names no port"),
        ("http://127.0.0.1:1/metrics", "nothing behind the port"),
    ],
    ids=["scheme", "port", "bracket", "host", "space", "empty", "long", "login", "name", "zero", "path"],
)
def test_no_address_is_wrong_use(tmp_path: pathlib.Path, url: str, words: str) -> None:
    """Exit code 2, one line, no password in it."""
    told = run_command("status", "--url", url, cwd=tmp_path)
    assert told.returncode == 2
    (line,) = told.stderr.splitlines()
    assert words in line
    assert "s3cret" not in line


def test_a_port_that_is_taken_at_start_cannot_be_asked_for(tmp_path: pathlib.Path) -> None:
    """A health_addr with port 0 says nothing of where the recorder is, and is named."""
    told = run_command("status", cwd=tmp_path, RECORDER_HEALTH_ADDR="127.0.0.1:0")
    assert told.returncode == 2
    assert "health_addr '127.0.0.1:0' names no port" in told.stderr


def test_a_name_that_nobody_knows_is_exit_code_1(tmp_path: pathlib.Path) -> None:
    """It may be the name service that is down."""
    told = run_command("status", "--url", "no-such-host.invalid:9477", "--json", cwd=tmp_path)
    assert told.returncode == 1
    assert "(the name is not known)" in json.loads(told.stderr)["error"]


def test_watching_goes_on_until_interrupted(
    backend: Backend, database: str, tmp_path: pathlib.Path, address: str
) -> None:
    """It shows again and again, through a recorder that goes away, and ends with the code of what it saw last."""
    child: subprocess.Popen[bytes] | None = None
    out = tmp_path / "out"
    try:
        with Recorder(settings_for(backend, database, tmp_path, health_addr=address)):
            with out.open("wb") as stream:
                child = subprocess.Popen(
                    [*COMMAND, "status", "--url", address, "--watch"],
                    cwd=tmp_path, env=child_environment(), stdout=stream, stderr=stream,
                )  # fmt: skip
            wait_until(lambda: out.read_bytes().count(b"ready: recorder") >= 2, "twice shown")
        wait_until(lambda: b"no answer" in out.read_bytes(), "the end told")
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 1
    finally:
        if child is not None:
            child.kill()
            child.wait()
