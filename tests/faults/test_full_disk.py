"""The disk of an embedded engine that fills up in the middle of an insert or of a merge.

The engine's own writes fail, at a moment that is chosen: a limit on the size of files (`RLIMIT_FSIZE`) is set when the
statement begins and lifted when it has ended, by when the small disk is really full. That the engine confirms such
statements, and what it then has, is seen in the tests themselves.
"""

from __future__ import annotations

import pathlib

import pytest
from harness.sink_children import answers, child

pytestmark = pytest.mark.root

FULL = """
import contextlib, resource, shutil, signal

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit fails instead
disk = pathlib.Path(sys.argv[1])
filler = disk / "filler"


def fill(leave=0):
    with filler.open("wb", buffering=0) as file:
        block = 1 << 20
        while block:
            disk_now = os.statvfs(disk)
            if disk_now.f_bavail * disk_now.f_frsize < leave + block:
                block //= 2
                continue
            try:
                file.write(bytes(block))
            except OSError:
                block //= 2


def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@contextlib.contextmanager
def filling_up(size):
    '''What the engine writes meanwhile fails beyond this size of a file; in the end the disk is full.'''
    limit(size)
    try:
        yield
    finally:
        limit(resource.RLIM_INFINITY)
        fill()


def fill_during_inserts(sink, size):
    turn = sink._in_turn
    @contextlib.contextmanager
    def in_turn():
        with turn(), filling_up(size):
            yield
    sink._in_turn = in_turn
    def end():
        del sink._in_turn
    return end


async def once(sink, table, rows):
    '''Whether the table has so many rows, all different, and all of them can be read.'''
    said = await sink.query(f"SELECT count(), uniqExact(_log, _seq), sum(v) >= 0 FROM {table}")
    return tuple(said[0]) == (rows, rows, 1)


async def parts(sink, table, active=1):
    of_table = f"database = 'd' AND table = '{table}' AND active = {active}"
    return [name for name, in await sink.query(f"SELECT name FROM system.parts WHERE {of_table} ORDER BY name")]


async def merged(sink, table, size=None):
    '''A table of five inserts, and their one part, merged while the disk filled up.'''
    await sink.command(create(table))
    await sink.command(f"SYSTEM STOP MERGES {table}")
    for n in range(5):
        await sink.insert(plain(table, 1000, first_seq=n * 1000), timeout_s=30)
    await sink.command(f"SYSTEM START MERGES {table}")
    with filling_up(size) if size is not None else contextlib.nullcontext():
        await sink.command(f"OPTIMIZE TABLE {table} FINAL")
    [part] = await parts(sink, table)
    return part


async def readable(sink, table):
    try:
        await sink.query(f"SELECT sum(v), sum(_seq) FROM {table}")
    except SinkError as error:
        return error.code
    return True
"""


def full_disk(body: str, mount: pathlib.Path, *more: pathlib.Path) -> list[str]:
    """What a child prints that can fill the mounted disk at will."""
    return answers(child(body, mount, *more, prelude=FULL))


@pytest.mark.parametrize("size", [0, 1_000, 6_000], ids=lambda size: f"{size}B")
@pytest.mark.parametrize(
    "kind", ["", ", min_bytes_for_wide_part = 0", ", fsync_after_insert = 1, fsync_part_directory = 1"]
)
def test_an_insert_that_broke_on_the_full_disk_is_not_confirmed(
    mount: pathlib.Path, size: int, kind: str
) -> None:
    """Whatever of its part is missing, it ends retryable; nothing is said of its rows until there is room; then they
    are absent, the same batch goes in, and the table has every row once. The part is kept aside."""
    lines = full_disk(
        f"""
        async def main():
            sink = ChdbSink(disk / "db", "d")
            await sink.start()
            await sink.command(create("t", settings="{kind}"))
            await sink.insert(plain("t", 1000), timeout_s=30)
            batch = plain("t", 4_000, log=8, days=2)
            end = fill_during_inserts(sink, {size})
            await attempt(sink.insert(batch, timeout_s=30))
            end()
            await attempt(sink.look_up(batch))
            await attempt(sink.insert(batch, timeout_s=30))
            filler.unlink()
            print(len(await sink.look_up(batch)), await once(sink, "t", 1000))
            await attempt(sink.insert(batch, timeout_s=30))
            print(len(await sink.look_up(batch)), await once(sink, "t", 5000))
            print(len(list(disk.glob("db/store/*/*/detached/*"))), sink._guard.disk.since_s)
            await sink.close()
        """,
        mount,
    )
    for line in lines[:3]:
        assert line.startswith("Retryable 243"), line
        assert "d.t" in line
        assert "free space on the disk of" in line
    assert lines[3:] == ["0 True", "done", "4000 True", "2 None"]


def test_an_engine_left_alone_confirms_what_it_did_not_write(mount: pathlib.Path) -> None:
    """The fault itself: when this fails, the engine notices a failing write and what guards against it can go."""
    lines = full_disk(
        """
        async def main():
            sink = ChdbSink(disk / "db", "d")
            await sink.start()
            await sink.command(create("t"))
            with filling_up(1000):
                await sink.command("INSERT INTO t SELECT now64(9), rand64(), 1, number FROM numbers(10000)")
            print(await readable(sink, "t"))
            await sink.close()
        """,
        mount,
    )
    assert lines[0] in ("33", "246")


@pytest.mark.parametrize(
    ("file", "size"),
    [
        ("data.bin", 1000),
        ("data.bin", 0),
        ("data.cmrk4", 0),
        ("checksums.txt", 0),
        ("columns.txt", 0),
        ("columns_substreams.txt", 0),
        ("count.txt", 0),
        ("default_compression_codec.txt", 0),
        ("metadata_version.txt", 0),
        ("primary.cidx", 0),
    ],
)
def test_the_part_of_one_partition_breaks_and_the_other_stays(
    mount: pathlib.Path, file: str, size: int
) -> None:
    """Only what is broken is set aside, whatever of it is missing, and only its rows are absent."""
    lines = full_disk(
        f"""
        async def main():
            sink = ChdbSink(disk / "db", "d")
            await sink.start()
            await sink.command(create("t"))
            batch = plain("t", 4_000, days=2)
            await sink.insert(batch, timeout_s=30)
            part, other = await parts(sink, "t")
            [file] = disk.glob(f"db/store/*/*/{{part}}/{file}")
            fill()
            os.truncate(file, {size})
            await attempt(sink.look_up(batch))
            filler.unlink()
            print(len(await sink.look_up(batch)), (await parts(sink, "t")) == [other])
            await sink.close()
        """,
        mount,
    )
    assert lines[0].startswith("Retryable 243")
    assert lines[1] == "2000 True"


@pytest.mark.parametrize("size", [0, 3_000])
@pytest.mark.parametrize("restarts", [False, True])
def test_a_merge_that_broke_on_the_full_disk_is_undone(
    mount: pathlib.Path, size: int, restarts: bool
) -> None:
    """The next insert into any table finds it; with room again the parts it was made of are back, each row once, by
    the sink or, where the process ended before, by the engine."""
    lines = full_disk(
        f"""
        async def main():
            sink = ChdbSink(disk / "db", "d")
            await sink.start()
            await sink.command(create("other"))
            part = await merged(sink, "t", {size})
            print(await readable(sink, "t"))
            await attempt(sink.insert(plain("other"), timeout_s=30))
            await attempt(sink.insert(plain("t"), timeout_s=30))
            filler.unlink()
            if {restarts}:
                await sink.close()
                sink = ChdbSink(disk / "db", "d")
                await sink.start()
            await attempt(sink.insert(plain("other"), timeout_s=30))
            print(await once(sink, "t", 5000), len(await parts(sink, "t")), part not in await parts(sink, "t"))
            await attempt(sink.insert(plain("t", log=9), timeout_s=30))
            aside = [folder.name for folder in disk.glob("db/store/*/*/detached/*")]
            print(aside == ["broken-on-start_" * {restarts} + part])
            await sink.close()
            sink = ChdbSink(disk / "db", "d")
            await sink.start()
            await sink.command("OPTIMIZE TABLE t FINAL")
            print(await once(sink, "t", 5010), len(await parts(sink, "t")))
            await sink.close()
        """,
        mount,
    )
    assert lines[0] in ("33", "246")
    assert lines[1].startswith("Retryable 243")
    assert lines[2].startswith("Retryable ")
    assert "d.t: parts written while the disk was full or nearly so are broken" in lines[2]
    assert lines[3:] == ["done", "True 5 True", "done", "True", "True 1"]


def test_a_broken_merge_whose_sources_are_gone_holds_its_table(mount: pathlib.Path) -> None:
    """It names what was lost and what to do; other tables go on, and done so, this one goes on too."""
    lines = full_disk(
        """
        async def main():
            sink = ChdbSink(disk / "db", "d")
            await sink.start()
            await sink.command(create("other"))
            part = await merged(sink, "t")
            for folder in disk.glob(f"db/store/*/*/*_?_?_0"):
                if folder.name.split("_")[0] == part.split("_")[0]:
                    shutil.rmtree(folder)
            [marks] = disk.glob(f"db/store/*/*/{part}/data.cmrk*")
            fill()
            os.truncate(marks, 0)
            await attempt(sink.look_up(plain("t")))
            filler.unlink()
            await attempt(sink.look_up(plain("t")))
            await attempt(sink.insert(plain("t"), timeout_s=30))
            await attempt(sink.insert(plain("other"), timeout_s=30))
            await sink.command(f"ALTER TABLE t DETACH PART '{part}'")
            await attempt(sink.insert(plain("t"), timeout_s=30))
            print(await once(sink, "t", 10), await once(sink, "other", 10))
            await sink.close()
        """,
        mount,
    )
    for line in lines[:3]:
        assert line.startswith("HoldError"), line
        assert "of 5000 rows, written while the disk was full or nearly so, is broken" in line
        assert "and the parts it was made of are gone" in line
        assert "ALTER TABLE `d`.`t` DETACH PART" in line
    assert lines[3:] == ["done", "done", "True True"]


def test_tables_that_the_process_does_not_record_into_are_left_alone(mount: pathlib.Path) -> None:
    """Their parts stay as they are, in whatever database; once one is used it is mended before it answers."""
    lines = full_disk(
        """
        async def by_hand(sink, table):
            await sink.command("INSERT INTO " + table + " SELECT now64(9), rand64(), 1, number FROM numbers(1000)")

        async def main():
            sink = ChdbSink(disk / "db", "d")
            await sink.start()
            await sink.command("CREATE DATABASE mine")
            await sink.command(create("other"))
            for table in ("t", "mine.t"):
                await sink.command(create(table))
                await sink.command(f"SYSTEM STOP MERGES {table}")
                for n in range(2):
                    await by_hand(sink, table)
                await sink.command(f"SYSTEM START MERGES {table}")
            for table in ("t", "mine.t"):
                await sink.command(f"OPTIMIZE TABLE {table} FINAL")
            for file in disk.glob("db/store/*/*/*_1_2_1/data.bin"):
                os.truncate(file, 1000)
            fill()
            await attempt(sink.look_up(plain("other")))
            filler.unlink()
            await attempt(sink.insert(plain("other"), timeout_s=30))
            print(sink._guard.disk.since_s, len(list(disk.glob("db/store/*/*/detached/*"))))
            print(len(await sink.look_up(plain("t"))))
            print(*[await readable(sink, table) is True for table in ("t", "mine.t")])
            print(*(await sink.query("SELECT database, count() FROM system.detached_parts GROUP BY 1")))
            await sink.close()
        """,
        mount,
    )
    assert lines == ["done", "done", "None 0", "0", "True False", "('d', 1)"]


@pytest.mark.parametrize("ended", ["before", "after", "in the middle", "at the end"])
def test_a_process_that_ends_while_it_undoes_a_merge_loses_and_doubles_nothing(
    tmp_path: pathlib.Path, ended: str
) -> None:
    """Whether the broken part was taken out before or not, and whichever of its sources were put back already."""
    answers(
        child(
            """
        from recorder.sink import parts as engine

        async def main():
            path, ended = pathlib.Path(sys.argv[1]), sys.argv[2]
            sink = ChdbSink(path, "d")
            await sink.start()
            part_name = await merged(sink, "t")
            client = sink._open({})
            [part] = engine.written_since(client, 0)
            assert part.name == part_name
            staged = engine.stage(client, part)
            (staged.parent / (staged.name + "2.tmp")).mkdir()
            if ended != "before":
                engine.set_aside(client, part)
                some, more = sorted(staged.iterdir())[:2]
                await sink.command("SYSTEM STOP MERGES t")
                if ended != "after":
                    engine._link(some, staged.parent / some.name)
                    await sink.command(f"ALTER TABLE t ATTACH PART '{some.name}'")
                    engine._link(more, staged.parent / more.name)
                if ended == "at the end":
                    staged.rename(path / "x")
                    engine.shutil.copytree(path / "x", staged, copy_function=os.link)
                    engine.put_back(client, part, staged)
                    (path / "x").rename(staged)
                    await sink.command("SYSTEM START MERGES t")
                    await sink.command("OPTIMIZE TABLE t FINAL")
            client.close()
            await sink.close()
        """,
            tmp_path / "db",
            ended,
            prelude=FULL.replace("pathlib.Path(sys.argv[1])", "None").replace('disk / "filler"', "None"),
        )
    )
    lines = answers(
        child(
            """
        import logging

        async def main():
            sink = ChdbSink(sys.argv[1], "d")
            await sink.start()
            logged = []
            logging.getLogger("recorder.sink.sound_parts").addFilter(lambda r: logged.append(r.getMessage()) or True)
            await attempt(sink.insert(plain("t", log=8), timeout_s=30))
            print(any("d.t: part " in told for told in logged), any(" 0 rows" in told for told in logged))
            print(*(await sink.query("SELECT count(), uniqExact(_log, _seq) FROM t"))[0])
            print([folder.name for folder in pathlib.Path(sys.argv[1]).glob("store/*/*/detached/rec*")])
            await sink.close()
        """,
            tmp_path / "db",
        )
    )
    assert lines == ["done", f"{ended in ('after', 'in the middle', 'at the end')} False", "5010 5010", "[]"]


def test_room_is_kept_on_the_disk(mount: pathlib.Path) -> None:
    """With less free than is to be kept, inserts and merges are refused with what to do; with more they go on."""
    lines = full_disk(
        """
        async def main():
            sink = ChdbSink(disk / "db", "d", keep_free_bytes=16 << 20)
            await sink.start()
            await sink.command(create("t"))
            for n in range(2):
                await sink.insert(plain("t", first_seq=n * 10), timeout_s=30)
            batch = plain("t", log=8)
            fill(leave=12 << 20)
            await attempt(sink.insert(batch, timeout_s=30))
            await sink.command("OPTIMIZE TABLE t FINAL")
            print(len(await sink.look_up(batch)), len(await parts(sink, "t")))
            filler.unlink()
            await attempt(sink.insert(batch, timeout_s=30))
            await sink.command("OPTIMIZE TABLE t FINAL")
            print(await once(sink, "t", 30), len(await parts(sink, "t")))
            await sink.close()
        """,
        mount,
    )
    assert lines[0].startswith("Retryable 243")
    assert f"t: the disk of {mount}/db has 12.0 MiB free, and the engine keeps 16.0 MiB free" in lines[0]
    assert "free space there, or lower engine_keep_free_bytes" in lines[0]
    assert lines[1:] == ["0 2", "done", "True 1"]


def test_a_small_disk_keeps_an_eighth_free(mount: pathlib.Path) -> None:
    """Unless it is said otherwise; 0 keeps nothing."""
    ask = """
        async def main():
            sink = ChdbSink(disk / sys.argv[2], keep_free_bytes=eval(sys.argv[3]))
            await sink.start()
            print(await sink.query("SELECT keep_free_space FROM system.disks WHERE name = 'default'"))
            await sink.close()
        """
    for wanted, kept in (("None", 8 << 20), ("0", 0), ("1000", 1000)):
        assert answers(child(ask, mount, f"db{wanted}", wanted, prelude=FULL)) == [f"[({kept},)]"]


def test_without_files_in_memory_a_full_disk_is_told_of_when_the_engine_opens(
    mount: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Its configuration needs a file then. Nothing is left behind, and with room it opens."""
    lines = full_disk(
        """
        from recorder.sink import engine_config

        async def main():
            engine_config.as_file.__wrapped__.__kwdefaults__["in_memory"] = False
            fill()
            sink = ChdbSink(sys.argv[2], "d", tmp_dir=disk)
            await attempt(sink.start())
            filler.unlink()
            print(list(disk.glob("engine-*")))
            await attempt(sink.start())
            print(list(disk.glob("engine-*")))
            await sink.close()
        """,
        mount,
        tmp_path / "db",
    )
    assert lines[0].startswith("SinkUnavailable 0")
    assert f"{tmp_path}/db: the engine's configuration cannot be written: No space left on device" in lines[0]
    assert f"free space on the disk of {mount}" in lines[0]
    assert lines[1:] == ["[]", "done", "[]"]
