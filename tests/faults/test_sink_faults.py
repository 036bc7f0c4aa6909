"""The embedded engine under real faults: failpoints, disks that are full or read-only, other processes, kills.

What needs an engine of its own runs in a child process, because a process has one engine.
"""

from __future__ import annotations

import pathlib
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
from harness.sink_children import answers, child
from harness.sink_tables import create, plain

from recorder.sink.chdb import ChdbSink
from recorder.sink.errors import InsertStillRunning, Retryable

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


@pytest.fixture
async def sink(chdb_path: pathlib.Path, engine: Client, database: str) -> AsyncIterator[ChdbSink]:
    sink = ChdbSink(chdb_path, database)
    await sink.start()
    yield sink
    await sink.close()


@pytest.mark.parametrize(
    ("failpoint", "settings"),
    [
        ("compact_part_writer_fail_in_add_streams", ""),
        ("wide_part_writer_fail_in_add_streams", ", min_bytes_for_wide_part = 0"),
        ("attach_to_group_failure", ""),
    ],
)
async def test_an_engine_that_fails_keeps_nothing_and_recovers(
    sink: ChdbSink, failpoint: str, settings: str
) -> None:
    """While the engine fails, an insert is retryable and leaves no row; afterwards the same batch goes in once."""
    await sink.command(create("t", settings=settings))
    batch = plain("t", 100, days=2)
    await sink.command(f"SYSTEM ENABLE FAILPOINT {failpoint}")
    try:
        with pytest.raises(Retryable) as caught:
            await sink.insert(batch, timeout_s=30)
    finally:
        await sink.command(f"SYSTEM DISABLE FAILPOINT {failpoint}")
    assert caught.value.code == 710
    assert await sink.look_up(batch) == set()
    await sink.insert(batch, timeout_s=30)
    assert len(await sink.look_up(batch)) == 100


async def test_a_live_table_can_be_made_to_hang_and_mended(sink: ChdbSink) -> None:
    """The engine's own brake on inserts hangs a real one; after it is released the table takes rows again."""
    await sink.command(create("t"))
    await sink.insert(plain("t"), timeout_s=30)
    await sink.command(
        "ALTER TABLE t MODIFY SETTING parts_to_delay_insert = 1, min_delay_to_insert_ms = 4000, max_delay_to_insert = 4"
    )
    late = ChdbSink(sink._path, sink.database, kill_wait_s=0.1)
    batch = plain("t", 10, log=8)
    started_s = time.monotonic()
    with pytest.raises(InsertStillRunning):
        await late.insert(batch, timeout_s=0.3)
    assert time.monotonic() - started_s < 2
    await sink.command(
        "ALTER TABLE t RESET SETTING parts_to_delay_insert, min_delay_to_insert_ms, max_delay_to_insert"
    )
    await late.close()
    found = await sink.look_up(batch)
    assert found in (set(), set(batch.identities()))  # ended, one way or the other
    if not found:
        await sink.insert(batch, timeout_s=30)
    assert (await sink.query("SELECT count() FROM t"))[0][0] == 20


@pytest.mark.root
def test_a_full_disk_is_retryable_and_keeps_no_half(mount: pathlib.Path) -> None:
    """With the disk full an insert fails truly and leaves no row; with space again the same batch goes in."""
    lines = answers(
        child(
            """
        async def main():
            disk = pathlib.Path(sys.argv[1])
            sink = ChdbSink(disk / "db", "d")
            await sink.start()
            await sink.command(create("t"))
            await attempt(sink.insert(plain("t", 1000), timeout_s=30))
            filler = (disk / "filler").open("wb", buffering=0)
            block = 1 << 20
            while block:
                try:
                    filler.write(b"x" * block)
                except OSError:
                    block //= 2
            batch = plain("t", 200_000, log=8)
            await attempt(sink.insert(batch, timeout_s=30))
            print(len(await sink.look_up(batch)), await count(sink, "t"))
            filler.truncate(0)
            await attempt(sink.insert(batch, timeout_s=30))
            print(len(await sink.look_up(batch)), await count(sink, "t"))
            await sink.close()
        """,
            mount,
        )
    )
    assert lines[0] == "done"
    assert lines[1].startswith("Retryable "), lines[1]
    assert lines[2:] == ["0 1000", "done", "200000 201000"]


@pytest.mark.root
def test_a_disk_that_turns_read_only_is_retryable(mount: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Mounted read-only under a running engine, then writable again: nothing is lost and nothing is there twice."""
    lines = answers(
        child(
            """
        async def main():
            disk = pathlib.Path(sys.argv[1])
            sink = ChdbSink(disk / "db", "d")
            await sink.start()
            await sink.command(create("t"))
            batch = plain("t", 1000)
            # The disk has files open for writing; a bind mount over it can be read-only all the same. It is made
            # read-only beside and then laid over: what the engine opens in between would keep it writable.
            view = pathlib.Path(sys.argv[2])
            subprocess.run(["mount", "--bind", disk, view], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", view], check=True)
            subprocess.run(["mount", "--bind", view, disk], check=True)
            subprocess.run(["umount", view], check=True)
            await attempt(sink.insert(batch, timeout_s=30))
            subprocess.run(["umount", disk], check=True)
            print(len(await sink.look_up(batch)))
            await attempt(sink.insert(batch, timeout_s=30))
            print(len(await sink.look_up(batch)))
            await sink.close()
        """,
            mount,
            tmp_path,
        )
    )
    assert lines[0].startswith("Retryable "), lines[0]
    assert lines[1:] == ["0", "done", "1000"]


@pytest.mark.root
def test_a_read_only_folder_is_said_at_start(mount: pathlib.Path) -> None:
    """One line: what, where, and what to do."""
    subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
    lines = answers(
        child(
            """
        async def main():
            sink = ChdbSink(sys.argv[1] + "/db")
            await attempt(sink.start())
            await sink.close()
        """,
            mount,
        )
    )
    assert lines[0].startswith("SinkUnavailable")
    assert "Read-only file system; mount it writable" in lines[0]


def test_a_second_process_is_told_who_has_the_database(tmp_path: pathlib.Path) -> None:
    """It fails at once and names the holder; the first one goes on; after its end the folder is free."""
    holder = child(
        """
        async def main():
            sink = ChdbSink(sys.argv[1], "d")
            await sink.start()
            print("open", flush=True)
            sys.stdin.readline()
            print(await count(sink, "system.one"))
            await sink.close()
        """,
        tmp_path / "db",
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    opening = """
        async def main():
            sink = ChdbSink(sys.argv[1], "d")
            await attempt(sink.start())
            await sink.close()
        """
    [line] = answers(child(opening, tmp_path / "db"))
    assert line.startswith("SinkUnavailable 76")
    assert f"process {holder.pid} has it open" in line
    out, _ = holder.communicate("\n", timeout=60)
    assert out.strip() == "1"
    assert answers(child(opening, tmp_path / "db")) == ["done"]


@pytest.mark.parametrize("where", ["file", "file/db"])
def test_a_file_in_the_way_is_said(tmp_path: pathlib.Path, where: str) -> None:
    """A path that is no folder, or lies in one that is none."""
    (tmp_path / "file").write_text("")
    [line] = answers(
        child("async def main():\n    await attempt(ChdbSink(sys.argv[1]).start())", tmp_path / where)
    )
    assert line.startswith("SinkUnavailable")
    assert "is a file, not a folder" in line or "Not a directory" in line


def test_a_corrupt_folder_is_said_and_left_alone(tmp_path: pathlib.Path) -> None:
    """The engine refuses damaged metadata; the error says what to do, and nothing was deleted."""
    answers(
        child(
            """
        async def main():
            sink = ChdbSink(sys.argv[1], "d")
            await sink.start()
            await sink.command(create("t"))
            await sink.insert(plain("t"), timeout_s=30)
            await sink.close()
        """,
            tmp_path / "db",
        )
    )
    [metadata] = (tmp_path / "db" / "store").glob("*/*/t.sql")
    metadata.write_text("garbage")
    [line] = answers(
        child("async def main():\n    await attempt(ChdbSink(sys.argv[1]).start())", tmp_path / "db")
    )
    assert line.startswith("SinkUnavailable 36")
    assert "cannot load it" in line
    assert metadata.read_text() == "garbage"


def test_a_sink_nobody_closed_does_not_crash_the_exit(tmp_path: pathlib.Path) -> None:
    """The interpreter ends with 0 though its handles were open."""
    process = child(
        """
        async def main():
            global sink
            sink = ChdbSink(sys.argv[1], "d")
            await sink.start()
            await sink.command(create("t"))
            await sink.insert(plain("t"), timeout_s=30)
            print("left open")
        """,
        tmp_path / "db",
    )
    assert answers(process) == ["left open"]


def test_killed_in_the_middle_of_inserts_it_leaves_whole_batches_and_no_files(tmp_path: pathlib.Path) -> None:
    """SIGKILL at any moment: every confirmed batch is there whole, the last one whole or not at all, and no row data
    lies in a temporary folder."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    writer = child(
        """
        async def main():
            sink = ChdbSink(sys.argv[1], "d")
            await sink.start()
            await sink.command("DROP TABLE IF EXISTS t SYNC")
            await sink.command(create("t"))
            for n in range(100_000):
                await sink.insert(plain("t", 5_000, first_seq=n * 5_000), timeout_s=30)
                print(n, flush=True)
        """,
        tmp_path / "db",
        tmpdir=temporary,
    )
    assert writer.stdout is not None
    confirmed = -1
    while confirmed < 20:
        confirmed = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    rest, _ = writer.communicate(timeout=60)
    confirmed = int(([str(confirmed), *rest.split()])[-1])
    assert list(temporary.iterdir()) == []
    lines = answers(
        child(
            """
        async def main():
            sink = ChdbSink(sys.argv[1], "d")
            await sink.start()
            confirmed = int(sys.argv[2])
            for n in range(confirmed + 1):
                assert len(await sink.look_up(plain("t", 5_000, first_seq=n * 5_000))) == 5_000, n
            last = plain("t", 5_000, first_seq=(confirmed + 1) * 5_000)
            print(len(await sink.look_up(last)))
            print(await count(sink, "t"))
            await sink.close()
        """,
            tmp_path / "db",
            confirmed,
            tmpdir=temporary,
        )
    )
    last, total = map(int, lines)
    assert last in (0, 5_000)
    assert total == (confirmed + 1) * 5_000 + last
    assert list(temporary.iterdir()) == []
