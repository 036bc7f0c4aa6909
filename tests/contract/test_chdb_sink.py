"""What is special about the sink on the engine in this process, beside the contract of all sinks: chDB alone."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from harness.sink_tables import create, plain
from sink_contract import SLOW, count

from recorder.batch import Batch
from recorder.sink import carrier
from recorder.sink.chdb import ChdbSink
from recorder.sink.errors import DataError, HoldError, Retryable, SinkError, SinkUnavailable

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


async def test_memory_limit_is_retryable(chdb_path: pathlib.Path, engine: Client, database: str) -> None:
    """A server short of memory is no fault of the rows."""
    sink = ChdbSink(chdb_path, database, settings={"max_memory_usage": 1_000_000})
    await sink.start()
    await sink.command(create("t"))
    with pytest.raises(Retryable) as caught:
        await sink.insert(plain("t", 500_000), timeout_s=30)
    assert caught.value.code == 241
    await sink.close()


async def test_a_profile_changes_nothing(chdb_path: pathlib.Path, engine: Client, database: str) -> None:
    """Whatever the session's settings say, a batch is one block under its token, and NULL is not 0."""
    profile = {
        "async_insert": 1,
        "insert_deduplicate": 0,
        "deduplicate_insert": "disable",
        "max_insert_block_size": 100,
        "use_strict_insert_block_limits": 1,
        "input_format_null_as_default": 1,
    }
    sink = ChdbSink(chdb_path, database, settings=profile)
    await sink.start()
    await sink.command(create("t"))
    await sink.command("SYSTEM STOP MERGES t")
    batch = plain("t", 1_000)
    await sink.insert(batch, timeout_s=30)
    await sink.insert(batch, timeout_s=30)
    parts = await sink.query(
        f"SELECT rows FROM system.parts WHERE database = '{database}' AND table = 't' AND active"
    )
    assert [part[0] for part in parts] == [1_000]
    nulls = plain("t", 2).data.set_column(1, "v", pa.array([1, None], pa.int64()))
    with pytest.raises(DataError):
        await sink.insert(Batch("t", nulls, 0), timeout_s=30)
    await sink.close()


async def test_two_sinks_share_an_engine_and_close_alone(
    chdb_path: pathlib.Path, engine: Client, database: str
) -> None:
    """Closing one takes nothing from the other; closing twice is closing once; a closed one says so."""
    one, two = ChdbSink(chdb_path, database), ChdbSink(chdb_path, database)
    await one.start()
    await two.start()
    await one.command(create("t"))
    await one.close()
    await one.close()
    await two.insert(plain("t"), timeout_s=30)
    assert await count(two, "t") == 10
    with pytest.raises(SinkUnavailable, match="closed"):
        await one.insert(plain("t"), timeout_s=30)
    await two.close()


async def test_another_path_in_one_process_is_refused(
    chdb_path: pathlib.Path, engine: Client, tmp_path: pathlib.Path
) -> None:
    """The error names the path that is open and what to do."""
    sink = ChdbSink(tmp_path / "other")
    with pytest.raises(SinkUnavailable, match="a process can have one") as caught:
        await sink.start()
    assert str(chdb_path) in str(caught.value)
    await sink.close()


async def test_a_database_that_must_be_there(chdb_path: pathlib.Path, engine: Client) -> None:
    """Where it may not be created, its absence is said at the start, with the remedy."""
    sink = ChdbSink(chdb_path, "absent", create_database=False)
    with pytest.raises(SinkUnavailable, match="recorder migrate up"):
        await sink.start()
    await sink.close()


async def test_handles_are_bounded(chdb_path: pathlib.Path, engine: Client, database: str) -> None:
    """With all handles in hung inserts, another insert gives up in time, and was not sent."""
    sink = ChdbSink(chdb_path, database, handles=1)
    await sink.start()
    await sink.command(create("slow", extra=", z UInt8 MATERIALIZED sleep(3)"))
    await sink.command(create("t"))
    hanging = asyncio.create_task(sink.insert(plain("slow", 1), timeout_s=30))
    await asyncio.sleep(0.2)
    with pytest.raises(Retryable, match="no free handle"):
        await sink.insert(plain("t"), timeout_s=0.2)
    await hanging
    assert await sink.look_up(plain("t")) == set()
    await sink.close()


async def test_closing_kills_what_does_not_end(
    chdb_path: pathlib.Path, engine: Client, database: str
) -> None:
    """A hung insert does not keep the sink open for longer than it may, and its waiter learns that it was cut."""
    sink = ChdbSink(chdb_path, database, close_wait_s=1.5)
    await sink.start()
    await sink.command(create("slow", extra=SLOW))
    hanging = asyncio.create_task(sink.insert(plain("slow", 1), timeout_s=60))
    await asyncio.sleep(0.3)
    await asyncio.wait_for(sink.close(), timeout=6)
    with pytest.raises(Retryable) as caught:
        await hanging
    assert caught.value.code == 394
    assert engine.command(f"SELECT count() FROM {database}.slow") == 0


async def test_a_forked_child_is_refused(chdb_path: pathlib.Path, engine: Client, database: str) -> None:
    """The engine's threads stay in the parent; in the child every call says so at once."""
    sink = ChdbSink(chdb_path, database)
    await sink.start()
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        answer = "nothing raised"
        try:
            sink.insert(plain("t"), timeout_s=1).send(None)
        except SinkUnavailable as error:
            answer = str(error)
        finally:
            sink.close_now()
            os.write(write, answer.encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert "was forked" in pipe.read()
    os.waitpid(child, 0)  # noqa: ASYNC222 - it has answered and ends
    assert await sink.query("SELECT 1")
    await sink.close()


async def test_without_anonymous_files_a_batch_travels_on_disk(
    chdb_path: pathlib.Path,
    engine: Client,
    database: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The file is gone after the insert, and what a killed process left is swept at the start."""
    monkeypatch.setattr(carrier.as_file.__wrapped__, "__kwdefaults__", {"in_memory": False})
    (tmp_path / "insert-1-left.raw").write_bytes(b"rows")
    sink = ChdbSink(chdb_path, database, tmp_dir=tmp_path)
    await sink.start()
    assert os.listdir(tmp_path) == []
    await sink.command(create("t"))
    await sink.insert(plain("t"), timeout_s=30)
    assert await count(sink, "t") == 10
    assert os.listdir(tmp_path) == []
    await sink.close()


PRIORITIES = """
import asyncio, json, os, pathlib, sys, threading
from recorder.sink.chdb import ChdbSink
from harness.sink_tables import create, plain

def nice_values():
    found = {}
    for task in pathlib.Path("/proc/self/task").iterdir():
        text = (task / "stat").read_text()
        # As root the engine gives its watch over memory a priority by itself.
        if "(MemoryWorker)" not in text:
            found[int(task.name)] = int(text[text.rindex(")") + 2 :].split()[16])
    return found

async def main():
    before = nice_values()
    sink = ChdbSink(sys.argv[1], engine_nice=int(sys.argv[2]))
    await sink.start()
    await sink.command(create("t"))
    await sink.insert(plain("t", 50_000), timeout_s=30)
    await sink.query("SELECT sum(sipHash64(number)) FROM numbers_mt(20_000_000) SETTINGS max_threads = 4")
    after = nice_values()
    print(json.dumps({
        "host": [after[task] for task in before if task in after],
        "engine": [nice for task, nice in after.items() if task not in before],
    }))
    await sink.close()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a thread's own priority is Linux's")
@pytest.mark.parametrize("nice", [0, 19])
def test_the_engine_gives_way_to_its_host(tmp_path: pathlib.Path, nice: int) -> None:
    """The engine's threads, and those that call it, have the nice value asked for; the host's keep theirs."""
    run = subprocess.run(
        [sys.executable, "-c", PRIORITIES, str(tmp_path / "db"), str(nice)],
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = json.loads(run.stdout)
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert set(found["host"]) == {ours}
    assert len(found["engine"]) > 5
    assert set(found["engine"]) == {max(nice, ours)}


@pytest.mark.parametrize(
    ("limits", "days", "expected", "text"),
    [
        ("parts_to_throw_insert = 1, parts_to_delay_insert = 0", 1, Retryable, "Too many parts ("),
        ("max_parts_in_total = 1", 1, Retryable, "in all partitions in total"),
        ("parts_to_throw_insert = 1000", 641, HoldError, "Too many partitions for single INSERT block"),
    ],
)
async def test_too_many_parts_pass_and_too_many_partitions_do_not(
    chdb_path: pathlib.Path,
    engine: Client,
    database: str,
    limits: str,
    days: int,
    expected: type[SinkError],
    text: str,
) -> None:
    """The engine says one code for all: merges mend its parts, and nothing mends the batch."""
    sink = ChdbSink(chdb_path, database)
    await sink.start()
    await sink.command(create("t", settings=f", {limits}"))
    await sink.command("SYSTEM STOP MERGES t")
    with pytest.raises(expected, match=re.escape(text)) as caught:  # noqa: PT012 - which of them is the engine's
        for n in range(4):
            await sink.insert(plain("t", days, first_seq=1_000 * n, days=days), timeout_s=30)
    assert type(caught.value) is expected
    assert caught.value.code == 252
    await sink.close()
