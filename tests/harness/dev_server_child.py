"""The process of `DevServerProcess`: a dev server with hooks that do the faults it is told over a socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
import threading
from dataclasses import asdict
from typing import Any

from recorder.devserver.hooks import Answer, Cut, Statement

from .dev_server import Fault, Told

_INTO = re.compile(r"\s*INSERT\s+INTO\s+(?:TABLE\s+)?((?:`[^`]+`|\w+)(?:\.(?:`[^`]+`|\w+))?)", re.IGNORECASE)


def table_of(sql: str) -> str | None:
    """The table an insert is for, without its database; None for another statement."""
    found = _INTO.match(sql)
    return found[1].rpartition(".")[2].strip("`") if found else None


class Armed:
    """A fault with what is left of it."""

    def __init__(self, fault: Fault):
        self.fault = fault
        self.left = fault.count
        self.seen = 0

    def strikes(self, where: str, sql: str) -> bool:
        """Whether it is this statement's turn; counts it."""
        fault, table = self.fault, table_of(sql)
        if fault.where != where or self.left == 0:
            return False
        if (table is None and fault.statements == "insert") or fault.table not in (None, table):
            return False
        if self.left is not None:
            self.left -= 1
        self.seen += 1
        return self.seen % fault.every == 0


class FaultHooks:
    """The hooks of the server: does what is armed. On the server's loop."""

    def __init__(self) -> None:
        self.armed: list[Armed] = []
        self.inserts = self.ran = self.faults = self.insert_faults = self.hanging = 0
        self._released = asyncio.Event()

    def told(self) -> Told:
        """See `Told`."""
        return Told(self.inserts, self.ran, self.faults, self.insert_faults, self.hanging)

    def release(self) -> None:
        """Let everything that hangs go on."""
        self._released.set()
        self._released = asyncio.Event()

    async def received(self, sql: str, piece_bytes: int, received_bytes: int) -> None:
        """See `Hooks`; strikes once a body, at its first piece."""
        if piece_bytes == received_bytes and table_of(sql) is not None:
            await self._strike("middle", sql)

    async def before(self, statement: Statement) -> None:
        """See `Hooks`."""
        self.inserts += table_of(statement.sql) is not None
        await self._strike("before", statement.sql)

    async def after(self, statement: Statement) -> None:
        """See `Hooks`."""
        self.ran += table_of(statement.sql) is not None
        await self._strike("after", statement.sql)

    async def _strike(self, where: str, sql: str) -> None:
        for armed in self.armed:
            if armed.strikes(where, sql):
                self.faults += 1
                self.insert_faults += table_of(sql) is not None
                await self._do(armed.fault)
                return

    async def _do(self, fault: Fault) -> None:
        match fault.what:
            case "kill" if fault.seconds:
                # A thread: the loop may be busy until the statement has run.
                threading.Timer(fault.seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "status":
                raise Answer(fault.status, fault.text or f"injected {fault.status}", code=fault.code)
            case "reset" | "close":
                raise Cut(reset=fault.what == "reset")
            case "hang":
                self.hanging += 1
                try:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._released.wait(), fault.seconds)
                finally:
                    self.hanging -= 1


async def obey(hooks: FaultHooks, control: socket.socket) -> None:
    """Do what comes over the socket until it closes."""
    reader, writer = await asyncio.open_connection(sock=control)
    writer.write(b'{"ready": true}\n')
    while line := await reader.readline():
        asked: dict[str, Any] = json.loads(line)
        answer: dict[str, Any] = {}
        match asked["command"]:
            case "arm":
                hooks.armed += [Armed(Fault(**fault)) for fault in asked["faults"]]
            case "disarm":
                hooks.armed.clear()
                hooks.release()
            case "release":
                hooks.release()
            case "tell":
                answer = asdict(hooks.told())
        writer.write(json.dumps(answer | {"number": asked["number"]}).encode() + b"\n")


async def main() -> None:
    """Serve until the control socket closes."""
    from recorder.devserver.server import DevServer

    said = json.loads(sys.argv[2])
    hooks = FaultHooks()
    server = DevServer(said["path"], addr=f"127.0.0.1:{said['port']}", hooks=hooks, **said["options"])
    await server.start()
    try:
        await obey(hooks, socket.socket(fileno=int(sys.argv[1])))
    finally:
        hooks.armed.clear()
        hooks.release()
        await server.close()


if __name__ == "__main__":
    asyncio.run(main())
