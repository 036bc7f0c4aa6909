"""The garbage collector of the recorder's own processes."""

from __future__ import annotations

import contextlib
import gc
import json
import subprocess
import sys

import pytest

from recorder.collector import YOUNG_OBJECTS, rare_collection

COMMAND = """
import asyncio, gc, json, sys
from unittest import mock
import recorder.ingest, recorder.loop
from recorder.cli import main

class Seen(BaseException):
    pass

def see(*_, **__):
    raise Seen(json.dumps(gc.get_threshold()))

try:
    with mock.patch("recorder.ingest.run_ingest", see), mock.patch("recorder.loop.new_loop", see):
        main(sys.argv[1:], standalone_mode=False)
except Seen as seen:
    print(seen)
"""


def test_it_is_as_before_afterwards() -> None:
    """Also after an error; what there is at the start is left alone meanwhile."""
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with contextlib.suppress(RuntimeError), rare_collection():
        assert gc.get_threshold()[0] == YOUNG_OBJECTS
        assert gc.get_freeze_count() > frozen
        raise RuntimeError
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_cycles_are_found_all_the_same() -> None:
    """What a plug-in or a library leaves behind does not pile up for ever."""

    class Cycle:
        living = 0

        def __init__(self) -> None:
            self.own = self
            Cycle.living += 1

        def __del__(self) -> None:
            Cycle.living -= 1

    with rare_collection():
        for _ in range(3 * YOUNG_OBJECTS):
            Cycle()
        assert Cycle.living <= 2 * YOUNG_OBJECTS
    gc.collect()


@pytest.mark.parametrize("command", ["run", "ingest"])
def test_the_commands_that_record_collect_rarely(
    command: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Their processes are the recorder's own."""
    folder = tmp_path_factory.mktemp("collector")
    (folder / "rows.ndjson").write_text("{}\n")
    arguments = {"run": ["--bus", "inproc://x"], "ingest": ["--table", "fills", "rows.ndjson"]}[command]
    options = ["--data-dir", str(folder / "data"), command, *arguments]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=60,
    )
    assert done.stdout, done.stderr
    assert json.loads(done.stdout)[0] == YOUNG_OBJECTS
