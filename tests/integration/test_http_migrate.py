"""Migrations of a server from several processes at once: one works, the others wait, and a killed one bars nobody."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import clickhouse_connect
import pytest
from harness.dev_server import DevServerProcess, Fault

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}
IN_TIME_S = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServerProcess]:
    with DevServerProcess(tmp_path_factory.mktemp("server") / "db") as process:
        yield process


class Up:
    """`recorder migrate up` in a process of its own."""

    def __init__(self, server: DevServerProcess, database: str, folder: pathlib.Path, *arguments: str):
        before = ["--data-dir", str(folder), "--target", f"{server.url}/{database}"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "recorder", *before, "migrate", *(arguments or ("up", "--json"))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=ENVIRONMENT,
        )

    def applied(self) -> list[str]:
        """What it said it applied; it must have ended well."""
        out, err = self.process.communicate(timeout=IN_TIME_S)
        assert self.process.returncode == 0, err
        steps = json.loads(out)["applied"]
        return [f"{step['label']}/{step['statement']}" for step in steps]


def rows(server: DevServerProcess, sql: str) -> list[tuple[object, ...]]:
    client = clickhouse_connect.get_client(dsn=server.url, autogenerate_session_id=False)
    with contextlib.closing(client):
        return [tuple(row) for row in client.query(sql).result_rows]


def expected(server: DevServerProcess, folder: pathlib.Path) -> list[str]:
    """What a fresh database needs."""
    plan = Up(server, "fresh", folder, "plan", "--json")
    out, err = plan.process.communicate(timeout=IN_TIME_S)
    assert plan.process.returncode == 0, err
    steps = json.loads(out)
    assert rows(server, "SELECT count() FROM system.databases WHERE name = 'fresh'") == [
        (0,)
    ]  # planning makes nothing
    return [f"{s['label']}/{s['statement']}" for s in steps if s["label"] != "recorder"]


def test_of_many_at_once_one_applies_each_statement(server: DevServerProcess, tmp_path: pathlib.Path) -> None:
    """Each statement is applied by one of them, none by two, and all of them end well with nothing left to do."""
    wanted = expected(server, tmp_path)
    runs = [Up(server, "many", tmp_path) for _ in range(4)]
    applied = [run.applied() for run in runs]
    assert sorted(step for steps in applied for step in steps) == sorted(wanted)
    assert sum(bool(steps) for steps in applied) == 1
    done = rows(server, "SELECT pack, number, statement, count() FROM many.recorder_migrations GROUP BY ALL")
    assert len(done) == len(wanted)
    assert {count for *_, count in done} == {1}
    assert Up(server, "many", tmp_path).applied() == []
    assert Up(server, "many", tmp_path, "check").process.wait(IN_TIME_S) == 0


def test_the_other_waits_for_the_one_that_works(server: DevServerProcess, tmp_path: pathlib.Path) -> None:
    """While one hangs in a statement the other says whom it waits for, and then finds all done."""
    server.arm(Fault("before", "hang", table="recorder_migrations", count=1))  # after its first statement
    first = Up(server, "waited", tmp_path)
    server.wait_until(hanging=1)
    second = Up(server, "waited", tmp_path, "up")
    assert second.process.stderr is not None
    line = second.process.stderr.readline()
    assert f":{first.process.pid}:" in line, line
    assert "waiting for the migration lock" in line
    server.release()
    assert first.applied()
    _, err = second.process.communicate(timeout=IN_TIME_S)
    assert second.process.returncode == 0
    assert "nothing to do: the database is up to date" in err


def test_a_killed_one_is_taken_over_at_once(server: DevServerProcess, tmp_path: pathlib.Path) -> None:
    """SIGKILL of the holder in the middle: the one that waits goes on from there, long before the lease is over."""
    wanted = expected(server, tmp_path)
    server.arm(Fault("before", "hang", table="recorder_migrations", count=1))
    holder = Up(server, "killed", tmp_path)
    server.wait_until(hanging=1)
    waiting = Up(server, "killed", tmp_path)
    assert waiting.process.stderr is not None
    waiting.process.stderr.readline()  # it waits
    began_s = time.monotonic()
    holder.process.send_signal(signal.SIGKILL)
    holder.process.communicate()
    server.release()  # what the dead one had sent still runs: its word on the first statement
    applied = waiting.applied()
    assert time.monotonic() - began_s < 30  # the lease is 60 s
    # The first statement was run by the dead one; whether its word of it came in before the other looked is open.
    assert applied in (wanted, wanted[1:])
    assert Up(server, "killed", tmp_path, "check").process.wait(IN_TIME_S) == 0


def test_killed_again_and_again(server: DevServerProcess, tmp_path: pathlib.Path) -> None:
    """Whatever each of several got done before its SIGKILL, the last brings the database to where it should be."""
    ready = threading.Event()
    for n in range(4):
        run = Up(server, "again", tmp_path)
        deadline_s = time.monotonic() + IN_TIME_S
        while run.process.poll() is None and time.monotonic() < deadline_s:
            # Killed as soon as it has done something more: at another statement each time.
            with contextlib.suppress(Exception):
                if rows(server, "SELECT count() FROM again.recorder_migrations")[0][0] > 3 * n:  # type: ignore[operator]
                    break
            ready.wait(0.01)
        if run.process.poll() is None:
            os.kill(run.process.pid, signal.SIGKILL)
        run.process.communicate()
    Up(server, "again", tmp_path).applied()
    assert Up(server, "again", tmp_path, "check").process.wait(IN_TIME_S) == 0
    assert Up(server, "again", tmp_path).applied() == []


def test_a_lost_answer_is_one_line_and_the_next_goes_on(
    server: DevServerProcess, tmp_path: pathlib.Path
) -> None:
    """The connection is cut after a statement ran: said with what to do, nothing is sent again behind our back, and
    running it again finishes."""
    server.arm(Fault("after", "reset", table="recorder_migrations", count=1))
    run = Up(server, "cut", tmp_path, "up")
    _, err = run.process.communicate(timeout=IN_TIME_S)
    assert run.process.returncode == 1
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "the connection was cut before the answer" in last
    assert Up(server, "cut", tmp_path).applied()
    assert Up(server, "cut", tmp_path, "check").process.wait(IN_TIME_S) == 0
