"""The service as it is deployed, each part in a process of its own: a dev server, and `recorder run` fed by a bus.

Both are the real commands. A part that does not come up, or ends by itself, is an error with the end of what it wrote.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil  # type: ignore[import-untyped]

from recorder.own_rows import OWN_TABLES

START_S = 60.0
STOP_S = 60.0
ASK_S = 10.0
SAID_CHARS = 2_000


class ProcessFailed(RuntimeError):  # noqa: N818 - reads as what it is in `except ProcessFailed`
    """A part of the service did not do what it is there for."""


def cpu_of(pid: int) -> float:
    """Processor time of a process so far, in seconds."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


@dataclass
class Part:
    """One process, and where what it wrote is."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """See that it runs.

        Raises:
            ProcessFailed: it has ended.
        """
        if self.process.poll() is not None:
            raise ProcessFailed(f"{self.name} ended with {self.process.returncode}: {self.said()}")

    def said(self) -> str:
        """The end of what it wrote."""
        return self.log.read_text(errors="replace")[-SAID_CHARS:]

    def cpu_s(self) -> float:
        """Processor time so far."""
        return cpu_of(self.process.pid)

    def rss_bytes(self) -> int:
        """Memory it holds."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def stop(self) -> None:
        """End it as a supervisor does; what does not end is killed.

        Raises:
            ProcessFailed: it had to be killed, or ended with an error.
        """
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise ProcessFailed(f"{self.name} did not end within {STOP_S:g} s: {self.said()}") from None
        if code:
            raise ProcessFailed(f"{self.name} ended with {code}: {self.said()}")


@dataclass
class RecorderProcess:
    """A running `recorder run`: rows go in at `bus_url` and come out at `target`."""

    recorder: Part
    target: str
    bus_url: str
    health_url: str

    def drained(self, timeout_s: float) -> dict[str, Any]:
        """Its status once no row waits for the database, but of the recorder's own tables.

        Raises:
            ProcessFailed: it says nothing.
            TimeoutError: rows still wait.
        """
        until_s = time.monotonic() + timeout_s
        while True:
            status = self.status()
            waiting = {
                name: balance["pending"]
                for name, balance in status["balance"].items()
                if balance["pending"] and name not in OWN_TABLES
            }
            if not waiting:
                return status
            if time.monotonic() > until_s:
                raise TimeoutError(f"after {timeout_s:g} s rows still wait for the database: {waiting}")
            time.sleep(0.02)

    def status(self) -> dict[str, Any]:
        """What the recorder says of itself.

        Raises:
            ProcessFailed: it says nothing.
        """
        self.recorder.check()
        try:
            with urllib.request.urlopen(f"{self.health_url}status", timeout=ASK_S) as answer:
                found: dict[str, Any] = json.load(answer)
        except OSError as error:
            raise ProcessFailed(f"the recorder's status: {error}; {self.recorder.said()}") from error
        return found


@dataclass
class ServiceProcesses(RecorderProcess):
    """A recorder, and the dev server it records into."""

    server: Part


@contextlib.contextmanager
def running(
    folder: Path, settings: Mapping[str, str] | None = None, *, bus_url: str = ""
) -> Iterator[ServiceProcesses]:
    """Start both, ready to take rows; stop them afterwards. `settings` are environment variables of the recorder."""
    with contextlib.ExitStack() as stack:
        server, target = _server(folder)
        stack.callback(server.stop)
        recording = stack.enter_context(recorder_into(target, folder, settings, bus_url=bus_url))
        yield ServiceProcesses(**vars(recording), server=server)


@contextlib.contextmanager
def recorder_into(
    target: str, folder: Path, settings: Mapping[str, str] | None = None, *, bus_url: str = ""
) -> Iterator[RecorderProcess]:
    """Start a recorder into a server that is there, ready to take rows; stop it afterwards."""
    with contextlib.ExitStack() as stack:
        bus_url = bus_url or f"zmq://{folder / 'bus.sock'}"
        health = _free_address()
        environment = {
            "RECORDER_TARGET": target,
            "RECORDER_DATA_DIR": str(folder / "recorder"),
            "RECORDER_HEALTH_ADDR": health,
            "RECORDER_MIGRATE_ON_START": "true",
            **(settings or {}),
        }
        recorder = _start("recorder", ["run", "--bus", bus_url], folder, environment)
        stack.callback(recorder.stop)
        recording = RecorderProcess(recorder, target, bus_url, f"http://{health}/")
        _await_ready(recording)
        yield recording


def _start(name: str, arguments: list[str], folder: Path, environment: Mapping[str, str]) -> Part:
    log = folder / f"{name}.log"
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("RECORDER_")}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "recorder", *arguments],
            stdout=subprocess.PIPE if name == "server" else out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            env={**inherited, **environment},
            start_new_session=True,  # Ctrl-C is for the benchmark, which ends them in order
        )
    return Part(name, process, log)


def _server(folder: Path) -> tuple[Part, str]:
    arguments = ["--json", "devserver", "--path", str(folder / "server"), "--addr", "127.0.0.1:0"]
    part = _start("server", arguments, folder, {})
    assert part.process.stdout is not None
    line = _line_of(part.process.stdout)
    if not line:
        part.process.kill()
        part.process.wait()
        raise ProcessFailed(f"the dev server did not come up: {part.said()}")
    return part, str(json.loads(line)["url"]).rstrip("/")


def _line_of(out: IO[bytes]) -> bytes:
    ready, _, _ = select.select([out], [], [], START_S)
    return out.readline() if ready else b""


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def _await_ready(service: RecorderProcess) -> None:
    deadline_s = time.monotonic() + START_S
    why = ""
    while time.monotonic() < deadline_s:
        service.recorder.check()
        try:
            with urllib.request.urlopen(f"{service.health_url}readyz", timeout=ASK_S):
                return
        except urllib.error.HTTPError as error:
            why = error.read().decode(errors="replace")
        except OSError as error:
            why = str(error)
        time.sleep(0.05)
    raise ProcessFailed(f"the recorder is not ready after {START_S:g} s: {why} {service.recorder.said()}")
