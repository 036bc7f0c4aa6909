"""A dev server in a process of its own that fails when it is told to, for measuring what that does to others.

`python -m benchmarks.faulty_server FOLDER ADDR` says "ready" and obeys lines on its standard input, which name what is
wrong from then on. It answers each by how many statements were struck by what was wrong before, and ends when the input
closes.
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
    "500": "answers 500 to everything",
    "503": "answers 503 to everything",
    "hang": "inserts hang before they run",
    "reset_before": "reset before an insert runs",
    "reset_middle": "reset in the middle of an insert's data",
    "reset_after": "reset after an insert ran",
    "close": "closes early, after an insert ran",
    "stopped": "stopped by SIGSTOP",
    "gone": "killed, and gone until the end",
}
"""What goes wrong, and how a report names it."""
_CUTS = {"before": "reset_before", "middle": "reset_middle", "after": "reset_after"}
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
        self.struck: dict[str, int] = {}
        """How many statements each trouble struck; not of those that concern the whole process."""

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
        if kind == "gone":
            process.kill()
            process.wait()
        elif kind == "stopped":
            process.send_signal(signal.SIGSTOP)
        else:
            self._say(kind)
        try:
            yield
        finally:
            if kind == "gone":
                self.close()
                self.start()
            elif kind == "stopped":
                process.send_signal(signal.SIGCONT)
            else:
                self.struck[kind] = self._say(WELL)

    def _say(self, word: str) -> int:
        """What is wrong from now on; how many statements that before it struck."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


class _Faults:
    """The hooks that do what was said last. On the server's loop."""

    def __init__(self) -> None:
        self._kind = WELL
        self._struck = 0
        self._released = asyncio.Event()

    def say(self, kind: str) -> int:
        """This is wrong from now on; how many statements were struck by what was before."""
        struck, self._struck = self._struck, 0
        self._kind = kind
        self._released.set()
        self._released = asyncio.Event()
        return struck

    async def received(self, sql: str, piece_bytes: int, received_bytes: int) -> None:
        """See `Hooks`; the first piece of an insert's data is followed by others, or by its end."""
        if sql.lstrip()[:6].upper() == "INSERT":
            self._cut("middle")

    async def before(self, statement: Statement) -> None:
        """See `Hooks`."""
        if self._kind in ("500", "503"):
            self._struck += 1
            raise Answer(int(self._kind), "injected")
        if statement.insert:
            self._cut("before")
            if self._kind == "hang":
                self._struck += 1
                await self._released.wait()

    async def after(self, statement: Statement) -> None:
        """See `Hooks`."""
        if statement.insert:
            self._cut("after")
            if self._kind == "close":
                self._struck += 1
                raise Cut(reset=False)

    def _cut(self, where: str) -> None:
        if self._kind == _CUTS[where]:
            self._struck += 1
            raise Cut(reset=True)


async def _serve(folder: str, addr: str) -> None:
    from recorder.devserver.server import DevServer

    faults = _Faults()
    server = DevServer(folder, addr=addr, hooks=faults)
    await server.start()
    print("ready", flush=True)
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(faults.say(line.strip()), flush=True)
    finally:
        faults.say(WELL)
        await server.close()


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
