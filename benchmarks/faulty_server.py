"""A dev server in a process of its own that fails when it is told to, for measuring what that does to others.

`python -m benchmarks.faulty_server FOLDER ADDR` says "ready" and obeys lines on its standard input, which name what is
wrong from then on; it ends when that closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from benchmarks.service_processes import ProcessFailed
from recorder.devserver.hooks import Answer, Cut, Statement

WELL = "well"
TROUBLES = {
    "503": "answers 503 to everything",
    "hang": "inserts hang before they run",
    "reset": "connections are reset after an insert ran",
    "stopped": "the process is stopped",
    "killed": "the process is killed, and started again at the end",
}
END_S = 30.0


class FaultyServer:
    """Its process, seen from another one. `url` is the same after a kill."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._log = folder / "server.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._addr = f"127.0.0.1:{probe.getsockname()[1]}"
        self.url = f"http://{self._addr}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and return when it answers.

        Raises:
            ProcessFailed: it does not come up.
        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.faulty_server", str(self._folder / "server"), self._addr],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise ProcessFailed(
                f"the server did not come up: {self._log.read_text(errors='replace')[-2_000:]}"
            )

    def close(self) -> None:
        """End it. Idempotent."""
        if self._process is None:
            return
        with self._process as process:
            process.send_signal(signal.SIGCONT)
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def trouble(self, kind: str) -> Iterator[None]:
        """One of `TROUBLES` for as long as the context lasts."""
        process = self._process
        assert process is not None
        if kind == "killed":
            process.kill()
            process.wait()
        elif kind == "stopped":
            process.send_signal(signal.SIGSTOP)
        else:
            self._say(kind)
        try:
            yield
        finally:
            if kind == "killed":
                self.close()
                self.start()
            elif kind == "stopped":
                process.send_signal(signal.SIGCONT)
            else:
                self._say(WELL)

    def _say(self, word: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()


class _Faults:
    """The hooks that do what was said last. On the server's loop."""

    def __init__(self) -> None:
        self._kind = WELL
        self._released = asyncio.Event()

    def say(self, kind: str) -> None:
        """This is wrong from now on."""
        self._kind = kind
        self._released.set()
        self._released = asyncio.Event()

    async def received(self, sql: str, piece_bytes: int, received_bytes: int) -> None:
        """Nothing is wrong with bodies."""

    async def before(self, statement: Statement) -> None:
        """See `Hooks`."""
        if self._kind == "503":
            raise Answer(503, "injected")
        if self._kind == "hang" and statement.insert:
            await self._released.wait()

    async def after(self, statement: Statement) -> None:
        """See `Hooks`."""
        if self._kind == "reset" and statement.insert:
            raise Cut(reset=True)


async def _serve(folder: str, addr: str) -> None:
    from recorder.devserver.server import DevServer

    faults = _Faults()
    server = DevServer(folder, addr=addr, hooks=faults)
    await server.start()
    print("ready", flush=True)
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            faults.say(line.strip())
    finally:
        faults.say(WELL)
        await server.close()


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
