"""`recorder devserver` as a person starts it, in a process of its own, for one test or a module of them.

A module whose tests share one takes the fixtures: `server, client = module_server, module_client`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import clickhouse_connect
import pytest
import requests
from clickhouse_connect.driver.client import Client

from .backends import WITH_PARENT

START_S = 60.0


@dataclass(frozen=True)
class Started:
    """A server that has said it is ready."""

    process: subprocess.Popen[bytes]
    url: str
    log: pathlib.Path
    ready: Mapping[str, object]

    def ask(self, sql: str | bytes, **parameters: object) -> requests.Response:
        """A statement by POST, on a connection of its own."""
        text = sql.encode() if isinstance(sql, str) else sql
        return requests.post(self.url, params=parameters, data=text, timeout=60)  # type: ignore[arg-type]

    def text(self, sql: str | bytes, **parameters: object) -> str:
        """The answer to a statement that succeeds."""
        answer = self.ask(sql, **parameters)
        assert answer.status_code == 200, answer.text
        return answer.text

    def wait_for(self, sql: str, text: str, *, timeout_s: float = 30.0) -> None:
        """Ask until the answer is this one."""
        deadline_s = time.monotonic() + timeout_s
        while (got := self.text(sql)) != text:
            assert time.monotonic() < deadline_s, f"{sql} still answers {got!r}"
            time.sleep(0.02)


@contextlib.contextmanager
def dev_server(
    folder: pathlib.Path, *options: str, env: Mapping[str, str] | None = None
) -> Iterator[Started]:
    """Started on the folder `db` in `folder`, on a free port unless the options say otherwise; ended by SIGTERM."""
    process, log = launch(folder, *options, env=env)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"it did not start: {log.read_text(errors='replace')[-3_000:]}"
        ready = json.loads(line)
        yield Started(process, ready["url"], log, ready)
    finally:
        end(process)


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """A server for all tests of a module, which calls it `server`."""
    with dev_server(tmp_path_factory.mktemp("devserver")) as started:
        yield started


@pytest.fixture
def module_client(server: Started) -> Iterator[Client]:
    """clickhouse-connect on the module's `server`, unchanged."""
    with clickhouse_connect.get_client(dsn=server.url) as opened:
        yield opened


def launch(
    folder: pathlib.Path, *options: str, env: Mapping[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], pathlib.Path]:
    """The process, and where its standard error goes; nobody waits for it to be ready."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "devserver.log"
    given = list(options)
    for option, value in (("--path", str(folder / "db")), ("--addr", "127.0.0.1:0")):
        if option not in given:
            given += [option, value]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RECORDER_")}
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", WITH_PARENT, sys.executable, "-m", "recorder", "devserver", "--json", *given],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=out, cwd=folder, env={**kept, **(env or {})},
        )  # fmt: skip
    return process, log


def end(process: subprocess.Popen[bytes]) -> int:
    """End it by SIGTERM; its exit code. One that does not end is killed."""
    if process.poll() is None:
        process.terminate()
    try:
        code = process.wait(START_S)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
        raise AssertionError("it did not end on SIGTERM") from None
    finally:
        if process.stdout is not None:
            process.stdout.close()
    return code
