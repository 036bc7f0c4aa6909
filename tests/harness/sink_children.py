"""Processes with an embedded engine of their own, for tests that break it."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import textwrap

TESTS = pathlib.Path(__file__).parents[1]

PRELUDE = """
import asyncio, os, pathlib, subprocess, sys
from harness.sink_tables import create, plain
from recorder.sink.chdb import ChdbSink
from recorder.sink.errors import *

async def count(sink, table):
    return (await sink.query(f"SELECT count() FROM {table}"))[0][0]

async def attempt(call):
    try:
        await call
    except SinkError as error:
        print(type(error).__name__, error.code, error)
    else:
        print("done")
"""


def child(
    body: str, *arguments: object, tmpdir: pathlib.Path | None = None, prelude: str = ""
) -> subprocess.Popen[str]:
    """A process that runs `async def main()` of `body`, with what `prelude` defines besides."""
    script = PRELUDE + prelude + textwrap.dedent(body) + "\nasyncio.run(main())\n"
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    if tmpdir is not None:
        environment["TMPDIR"] = str(tmpdir)
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def answers(process: subprocess.Popen[str]) -> list[str]:
    """The lines a child printed; it must have ended well."""
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return out.splitlines()
