"""Two servers that say they are replicas of one table, for tests of failover.

The engine of today's tests has no keeper, so replication itself cannot be had. What can: two dev servers in one
process on one engine, so that rows in one are rows in the other, each with hooks that answer for it what a replica
would say of itself (`serverUUID()`, `system.replicas`), note `SYSTEM SYNC REPLICA`, and hold up statements.
"""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, Self

from recorder.devserver.hooks import Answer, Statement

TESTS = pathlib.Path(__file__).parents[1]
UUIDS = ("aaaaaaaa-0000-0000-0000-000000000001", "bbbbbbbb-0000-0000-0000-000000000002")


class Replicas:
    """The process. `ports` are those of the two; table `t` is at `paths[n]` on the n-th (empty: not replicated)."""

    def __init__(self, folder: pathlib.Path, paths: Sequence[str] = ("/tables/t", "/tables/t")):
        self._folder = folder
        self._paths = list(paths)
        self.ports: list[int] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "harness.replicas", str(self._folder), json.dumps(self._paths)],
            env=os.environ | {"PYTHONPATH": str(TESTS)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.ports = self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def statements(self, replica: int) -> list[str]:
        """What came to this one, in order."""
        return list(self._ask("statements", replica))

    def wait_for_insert(self, replica: int, timeout_s: float = 30.0) -> None:
        """Return when an insert has come to this one."""
        deadline_s = time.monotonic() + timeout_s
        while not any("INSERT INTO" in sql for sql in self.statements(replica)):
            assert time.monotonic() < deadline_s, "no insert came"
            time.sleep(0.01)

    def hold(self, replica: int) -> None:
        """Inserts into this one wait before they run."""
        self._ask("hold", replica)

    def let_go(self, replica: int) -> None:
        """They go on."""
        self._ask("let_go", replica)

    def lose(self, replica: int) -> None:
        """The keeper has lost the session of this one: the other says so."""
        self._ask("lose", replica)

    def _ask(self, command: str, replica: int) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([command, replica]).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


class _Hooks:
    """One replica's word about itself."""

    made = False
    """Whether the table is there: on both at once, whichever was asked for it."""

    def __init__(self, number: int, path: str):
        self._number = number
        self._path = path
        self.statements: list[str] = []
        self.lost: set[int] = set()
        self.going = asyncio.Event()
        self.going.set()

    async def received(self, sql: str, piece_bytes: int, received_bytes: int) -> None:
        """See `Hooks`."""

    async def before(self, statement: Statement) -> None:
        """See `Hooks`."""
        sql = statement.sql
        self.statements.append(sql)
        if sql.startswith("CREATE TABLE t "):
            _Hooks.made = True
        own = f"{self._path}\treplica{self._number}\n" if self._path else ""
        if "serverUUID()" in sql:
            raise Answer(200, UUIDS[self._number] + "\n")
        if "replica_is_active" in sql:
            raise Answer(200, "0\n" if 1 - self._number in self.lost else "1\n")
        if "SELECT table, zookeeper_path" in sql:
            raise Answer(200, f"t\t{own}" if own and _Hooks.made else "")
        if "SELECT zookeeper_path" in sql:
            raise Answer(200, own)
        if "SYSTEM SYNC REPLICA" in sql:
            raise Answer(200, "")
        if statement.insert:
            await self.going.wait()

    async def after(self, statement: Statement) -> None:
        """See `Hooks`."""


async def _main() -> None:
    from recorder.devserver.server import DevServer

    folder, paths = sys.argv[1], json.loads(sys.argv[2])
    hooks = [_Hooks(number, path) for number, path in enumerate(paths)]
    servers = [DevServer(folder, addr="127.0.0.1:0", hooks=hook) for hook in hooks]
    for server in servers:
        await server.start()
    print(json.dumps([server.address.port for server in servers]), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        command, number = json.loads(line)
        answer: Any = None
        match command:
            case "statements":
                answer = hooks[number].statements
            case "hold":
                hooks[number].going.clear()
            case "let_go":
                hooks[number].going.set()
            case "lose":
                hooks[1 - number].lost.add(number)
        print(json.dumps(answer), flush=True)
    for hook in hooks:
        hook.going.set()
    for server in servers:
        await server.close()


if __name__ == "__main__":
    asyncio.run(_main())
