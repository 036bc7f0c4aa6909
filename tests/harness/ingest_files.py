"""Files to ingest: small captures in the venue's wire format, and a child process that runs the command."""

from __future__ import annotations

import gzip
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

START_NS = 1_723_161_255_030_314_667
COMMAND = [sys.executable, "-c", "from recorder.cli import main; main()"]


def capture_lines(
    count: int, *, first_ns: int = START_NS, step_ns: int = 1_000_000, first_id: int = 1
) -> list[bytes]:
    """`count` lines, by turns a quote and a trade, whose ids count up; every quote differs from the one before."""
    lines = []
    for number in range(count):
        ts_local = first_ns + number * step_ns
        ms = ts_local // 1_000_000 + 1_000
        if number % 2:
            stream, data = "trade", {
                "e": "trade", "E": ms, "T": ms, "s": "BTCUSDT", "t": first_id + number // 2,
                "p": f"{61_800 + number % 50}.10", "q": "0.010", "X": "MARKET", "m": bool(number % 4 == 1),
            }  # fmt: skip
        else:
            stream, data = "bookTicker", {
                "e": "bookTicker", "u": 1_000 + 2 * first_id + number, "s": "BTCUSDT", "T": ms, "E": ms,
                "b": "61800.20", "B": f"{1 + number}.500", "a": "61800.30", "A": "2.510",
            }  # fmt: skip
        message = json.dumps({"stream": f"btcusdt@{stream}", "data": data}, separators=(",", ":"))
        lines.append(f"{ts_local} {message}".encode())
    return lines


def write_lines(path: pathlib.Path, lines: list[bytes], *, pack: bool = False) -> pathlib.Path:
    """A file of lines, each with its end."""
    content = b"".join(line + b"\n" for line in lines)
    path.write_bytes(gzip.compress(content, mtime=0) if pack else content)
    return path


def write_rows(path: pathlib.Path, rows: list[Any]) -> pathlib.Path:
    """A file of JSON values, one a line; bytes are written as they are."""
    return write_lines(path, [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows])


def child_environment(**extra: str) -> dict[str, str]:
    """This process's environment without settings of its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RECORDER_")} | extra


def run_command(
    *arguments: str | pathlib.Path, cwd: pathlib.Path, timeout_s: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`recorder` with these arguments, in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=child_environment(**environment),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
