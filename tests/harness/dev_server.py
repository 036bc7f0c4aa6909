"""A dev server in a process of its own, under a test's control.

with DevServerProcess(tmp_path / "server") as server:
    client = clickhouse_connect.get_client(dsn=server.url)
    server.arm(Fault("middle", "reset", table="orders", count=3))   # the next three inserts into orders
    server.arm(Fault("before", "status", status=503, every=5))      # every fifth insert, until disarmed
    server.arm(Fault("after", "hang"))                              # hung until release(), disarm() or a kill
    server.kill(); server.restart()                                 # SIGKILL; again on the same port and folder
    with server.stopped(): ...                                      # SIGSTOP, then SIGCONT

The child obeys JSON lines over a socket and ends when that closes, so a test that dies leaves no server behind.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from .ports import free_port

TESTS = pathlib.Path(__file__).parents[1]
START_S = 60.0
ANSWER_S = 30.0


@dataclass(frozen=True, kw_only=True)
class _Options:
    table: str | None = None
    count: int | None = None
    every: int = 1
    seconds: float | None = None
    status: int = 503
    code: int = 0
    text: str = ""
    statements: Literal["insert", "all"] = "insert"


@dataclass(frozen=True)
class Fault(_Options):
    """What goes wrong with which statements.

    `where` is before a statement runs, in the middle of its body (as the first piece of it comes; an insert's alone),
    or after it ran and before its answer. `what` is a reset or an orderly close of the connection, a hang of
    `seconds` (None: until released), an answer with `status`, `code` of ClickHouse and `text`, or SIGKILL of the
    server: `seconds` later, while the statement goes on, if any are given. It holds for the next `count` matching
    statements (None: until disarmed), of these for every `every`-th, into `table` alone if one is named;
    `statements="all"` takes queries too.
    """

    where: Literal["before", "middle", "after"]
    what: Literal["reset", "close", "hang", "status", "kill"]


@dataclass(frozen=True)
class Told:
    """What the server's process has seen since it started: inserts whose request came in whole, and that ran;
    faults done, and those of them that were done to inserts; statements that hang now."""

    inserts: int
    ran: int
    faults: int
    insert_faults: int
    hanging: int


class DevServerProcess:
    """See the module. Used from one thread.

    `options` go to `DevServer` by name and must be JSON (`user`, `password`, paths of certificates as text). `scheme`
    is that of `url`. `log` is where the server's output goes; its tail is in the error of a failed start.
    """

    def __init__(
        self,
        path: pathlib.Path,
        *,
        port: int | None = None,
        scheme: str = "http",
        options: Mapping[str, Any] | None = None,
        log: pathlib.Path | None = None,
    ):
        self.path = path
        self.port = port or free_port()
        self.scheme = scheme
        self.log = log or path.with_name(path.name + ".log")
        self.starts = 0
        self._options = dict(options or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._answers: Any = None
        self._numbers = itertools.count()

    @property
    def url(self) -> str:
        """Where it listens, up or down."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process under way."""
        return self._running().pid

    @property
    def alive(self) -> bool:
        """Whether the process runs (or is stopped)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it, and return once it listens."""
        assert not self.alive, "it runs already"
        self._let_go()
        ours, theirs = socket.socketpair()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        said = {"path": str(self.path), "port": self.port, "options": self._options}
        with theirs, self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness.dev_server_child", str(theirs.fileno()), json.dumps(said)],
                env=os.environ | {"PYTHONPATH": str(TESTS)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
            )
        self._control = ours
        self._answers = ours.makefile("rb")
        ours.settimeout(START_S)
        try:
            ready = self._answer()
        except BaseException:
            self.kill()
            raise
        assert ready == {"ready": True}, ready
        self.starts += 1
        return self

    def close(self) -> None:
        """End it in order; one that does not end in time is killed. Idempotent."""
        if self._process is None:
            return
        if self.alive:
            self._process.send_signal(signal.SIGCONT)
            self._let_go()  # it ends when nobody can control it any more
            try:
                self._process.wait(ANSWER_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._let_go()
        self._process = None

    def kill(self) -> None:
        """SIGKILL; returns when it has gone."""
        process = self._running()
        process.kill()
        process.wait()
        self._let_go()

    def wait_gone(self, timeout_s: float = ANSWER_S) -> None:
        """Return when it has gone by itself, by an armed kill."""
        self._running().wait(timeout_s)
        self._let_go()

    def restart(self) -> None:
        """Start it again on the same port and folder, after ending it in order if it runs."""
        self.close()
        self.start()

    def stop(self) -> None:
        """SIGSTOP: its sockets stay open and nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self._running().send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stopped for as long as the context lasts."""
        self.stop()
        try:
            yield
        finally:
            self.go_on()

    # -- faults -------------------------------------------------------------------------------------------------

    def arm(self, *faults: Fault) -> None:
        """From the next statement on, beside those armed before; the first that matches a statement is done."""
        self._ask("arm", faults=[asdict(fault) for fault in faults])

    def disarm(self) -> None:
        """No faults any more; what hangs goes on."""
        self._ask("disarm")

    def release(self) -> None:
        """What hangs goes on; faults stay armed."""
        self._ask("release")

    def told(self) -> Told:
        """What it has seen since it started."""
        return Told(**self._ask("tell"))

    def wait_until(self, *, timeout_s: float = ANSWER_S, **least: int) -> Told:
        """Poll until it has told at least so much, such as `faults=3` or `hanging=1`."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            told = self.told()
            if all(getattr(told, name) >= count for name, count in least.items()):
                return told
            assert time.monotonic() < deadline_s, f"{least} not seen within {timeout_s:g} s, but {told}"
            time.sleep(0.01)

    # -- the control socket -------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        assert self._control is not None, "the server is down"
        number = next(self._numbers)
        self._control.settimeout(ANSWER_S)
        self._control.sendall(
            json.dumps({"command": command, "number": number, **arguments}).encode() + b"\n"
        )
        answer = self._answer()
        assert answer.pop("number") == number, answer
        return answer

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            tail = self.log.read_text(errors="replace")[-3_000:]
            raise AssertionError(f"the dev server at port {self.port} has ended:\n{tail}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _let_go(self) -> None:
        for end in (self._answers, self._control):
            if end is not None:
                end.close()
        self._answers = self._control = None
