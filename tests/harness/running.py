"""`recorder run` in a process of its own, as a supervisor runs it.

with RunningRecorder(folder, **place.variables) as recorder:
    recorder.ready()
    recorder.status()["balance"]
    assert recorder.stop() == 0
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any, Self

from .ingest_files import COMMAND, child_environment
from .ports import free_port

START_S = 60.0
QUICK = {
    "RECORDER_DEFAULTS__LINGER_MS": "5",
    "RECORDER_DEFAULTS__LINGER_MAX_MS": "20",
    "RECORDER_RETRY_INITIAL_S": "0.02",
    "RECORDER_RETRY_MAX_S": "0.2",
    "RECORDER_HOLD_PROBE_S": "0.1",
    "RECORDER_RETENTION_SCHEDULE": "off",  # tests that run over 02:00 UTC find what they find at any other time
}


class RunningRecorder:
    """See the module. `environment` are settings; `arguments` follow `run`. Its log lines are JSON."""

    def __init__(
        self, folder: pathlib.Path, *arguments: str, bus: tuple[str, ...] | None = None, **environment: str
    ):
        self.folder = folder
        self.health = f"http://127.0.0.1:{free_port()}"
        self.bus_url = f"zmq://127.0.0.1:{free_port()}"
        self.command: Sequence[str] = COMMAND
        self.log = folder / f"run-{self.health.rpartition(':')[2]}.log"
        self._buses = (self.bus_url,) if bus is None else bus
        self._arguments = arguments
        self._environment = QUICK | environment
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it; it may not be ready yet."""
        addresses = [part for url in self._buses for part in ("--bus", url)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, "--data-dir", str(self.folder / "data"), "run", *addresses,
                 "--health-addr", self.health.removeprefix("http://"), *self._arguments],
                env=child_environment(**self._environment), cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        return self

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Its log lines, or those of one event."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()  # of the last one a part may be written
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if name is None or line["event"] == name]

    def wait_event(self, name: str, count: int = 1) -> dict[str, Any]:
        """The log line of an event, once it is there so often."""
        self._until(lambda: len(self.events(name)) >= count, f"{count} x {name!r} in the log")
        return self.events(name)[count - 1]

    def ready(self, starts: int = 1) -> Self:
        """Return once it said that it is ready."""
        self.wait_event("ready", starts)
        return self

    def started(self) -> Self:
        """Return once it said that it has started, and is not ready yet."""
        self.wait_event("started, not ready yet")
        return self

    def status(self) -> dict[str, Any]:
        """Its status; empty while its port does not answer."""
        return self._get("status")

    def reasons(self) -> list[str] | None:
        """Why it is not ready; None while its port does not answer."""
        found = self._get("readyz")
        return list(found.get("reasons", [])) if found else None

    def rows(self, table: str, outcome: str = "inserted") -> int:
        """A count of a table's balance; 0 while its port does not answer."""
        return int(self.status().get("balance", {}).get(table, {}).get(outcome, 0))

    def bus(self, url: str | None = None) -> dict[str, Any]:
        """The counts of a bus; empty while its port does not answer."""
        found: dict[str, Any] = self.status().get("buses", {}).get(url or self.bus_url, {})
        return found

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, timeout_s: float = START_S) -> int:
        """Its exit code, once it has ended."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop it as a supervisor does; its exit code."""
        self.send(number)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL."""
        self.send(signal.SIGKILL)
        self.wait()

    def _get(self, path: str) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"{self.health}/{path}", timeout=10) as answer:
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            found = json.load(error)
        except OSError:
            return {}
        return found

    def _until(self, true: Any, what: str) -> None:
        end_s = time.monotonic() + START_S
        while not true():
            assert self.process is not None
            assert self.process.poll() is None or true(), f"{what}: it ended: {self.log.read_text()[-2_000:]}"
            assert time.monotonic() < end_s, (
                f"{what} did not come within {START_S:g} s: {self.log.read_text()[-2_000:]}"
            )
            time.sleep(0.01)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(OSError):
                self.process.kill()
            self.process.wait()
