"""A handle's answer is to its own question, also after a statement that failed in the middle of its answer.

About the engine inside the process: a server's client gets each answer over HTTP, with its own status.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from harness.sink_tables import create, plain

from recorder.sink.chdb import ChdbSink
from recorder.sink.clean_client import CleanClient
from recorder.sink.errors import SinkError, SinkUnavailable

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

FAILS_LATE = "SELECT number, throwIf(number = 2999999) FROM numbers(3000000) SETTINGS max_block_size = 1000"
FAILS_AT_ONCE = "SELECT nobody"


@pytest.mark.parametrize("failing", [FAILS_LATE, FAILS_AT_ONCE])
async def test_a_query_that_failed_leaves_nothing_to_the_next(
    chdb_path: pathlib.Path, engine: Client, database: str, failing: str
) -> None:
    """In any form: rows after Arrow, Arrow after rows, and a look-up."""
    sink = ChdbSink(chdb_path, database, query_handles=1, look_up_handles=1)
    await sink.start()
    try:
        for fail in (sink.query, sink.query_arrow):
            with pytest.raises(SinkError):
                await fail(failing)
            assert await sink.query("SELECT 1, 'a'") == [(1, "a")]
            with pytest.raises(SinkError):
                await fail(failing)
            assert (await sink.query_arrow("SELECT 2 AS x"))["x"].to_pylist() == [2]
    finally:
        await sink.close()


async def test_a_look_up_after_one_that_was_cut_finds_its_rows(
    chdb_path: pathlib.Path, engine: Client, database: str
) -> None:
    """What the one before had found by its time limit is not taken for what is there."""
    sink = ChdbSink(chdb_path, database, look_up_handles=1, settings={"max_block_size": 100})
    await sink.start()
    try:
        slow = "v Int64 ALIAS 1, _log UInt64 ALIAS 7, _seq UInt64 ALIAS throwIf(n = 900, 'stop') + n"
        await sink.command(create("breaks", f"ts_local DateTime64(9, 'UTC'), n UInt64, {slow}"))
        await sink.command(
            "INSERT INTO breaks (ts_local, n) SELECT '2026-01-05 12:00:00', number FROM numbers(1000)"
        )
        await sink.command(create("t"))
        batch = plain("t", 500)
        await sink.insert(batch, timeout_s=30)
        with pytest.raises(SinkError):
            await sink.look_up(plain("breaks", 1000))
        assert len(await sink.look_up(batch)) == 500
    finally:
        await sink.close()


def test_an_engine_that_leaves_its_answers_to_others_needs_clearing(engine: Client) -> None:
    """The fault itself: when this fails, the engine clears up after itself and the clean client can go."""
    with pytest.raises(Exception, match="throwIf"):
        engine.raw_query(FAILS_LATE, fmt="TabSeparated")
    assert engine.raw_query("SELECT 1", fmt="TabSeparated") != b"1\n"
    assert engine.raw_query("SELECT 1", fmt="TabSeparated") == b"1\n"


@pytest.mark.parametrize("failing", [FAILS_LATE, FAILS_AT_ONCE])
def test_what_retention_asks_is_answered_after_a_statement_that_failed(
    tmp_path: pathlib.Path, failing: str
) -> None:
    """By a process of its own: what is dropped next hangs on the answer being to its own question."""
    code = """
import sys, chdb
from recorder.retaining.policies import quiet
from recorder.settings import Settings
folder, failing = sys.argv[1:]
made = chdb.connect(f"{folder}/db")
made.query("CREATE DATABASE recorder")
made.close()
with quiet(Settings(target=f"chdb://{folder}/db", data_dir=f"{folder}/data")) as executor:
    for ask in (executor.query, executor.command):
        try:
            ask(failing)
        except Exception:
            print(executor.query("SELECT 1, 'a'"))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), failing],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.splitlines() == ["[[1, 'a']]"] * 2, done.stderr


class _Stuck:
    """A client that gives an old answer again and again."""

    def raw_query(self, sql: str, fmt: str = "") -> bytes:
        if sql == "fails":
            raise pa.ArrowInvalid("no")
        return b"old\n"


def test_what_cannot_be_cleared_is_not_asked() -> None:
    """The handle says that nobody answers instead of giving another's answer."""
    client = CleanClient(_Stuck())  # type: ignore[arg-type]
    assert client.raw_query("SELECT 1") == b"old\n"
    with pytest.raises(pa.ArrowInvalid):
        client.raw_query("fails")
    for _ in range(2):
        with pytest.raises(SinkUnavailable, match="nothing was asked"):
            client.raw_query("SELECT 1")
