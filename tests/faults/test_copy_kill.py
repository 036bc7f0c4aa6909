"""`recorder copy` between real databases: killed anywhere and repeated, beside faults of the target, refused."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import clickhouse_connect
import pytest
from click.testing import CliRunner
from harness.dev_server import TESTS, DevServerProcess, Fault

from recorder.cli import main
from schemas.executor import ClientExecutor
from schemas.manager import Manager
from schemas.pack import load_packs

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

ROWS = 6_000
TABLES = ("market_data", "orders", "fills", "positions_intraday", "account_state", "risk_decisions")
STEPS = (
    ("before insert", 1),
    ("after insert", 4),
    ("before keep", 1),
    ("after keep", 2),
)
SEED = random.SystemRandom().randrange(1 << 32)


class World(NamedTuple):
    """An embedded database with rows, a server, and what a folder for local state is."""

    embedded: str
    server: DevServerProcess
    client: Client
    data: pathlib.Path

    def url(self, database: str) -> str:
        return f"{self.server.url}/{database}"

    def made(self, database: str) -> str:
        """The URL of a database that has its tables."""
        Manager(ClientExecutor(self.client), load_packs(("core",)), database).up()
        return self.url(database)


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RECORDER_")}
    return kept | {"PYTHONPATH": str(TESTS), "RECORDER_LOG_LEVEL": "error"} | variables


def command(data: pathlib.Path, *arguments: str, code: int = 0) -> Any:
    """What a command answers in JSON, or its error's text."""
    ended = subprocess.run(
        [sys.executable, "-m", "recorder", "--data-dir", str(data), *arguments, "--json"],
        check=False, capture_output=True, text=True, timeout=120, env=environment(),
    )  # fmt: skip
    assert ended.returncode == code, ended.stderr + ended.stdout
    if code:
        return json.loads(ended.stderr.splitlines()[-1])["error"]
    return json.loads(ended.stdout)


def child(world: World, step: str, number: int, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "harness.copy_child", step, str(number), "--data-dir", str(world.data), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip


def killed(process: subprocess.Popen[str]) -> None:
    """It was killed, and did not end by itself."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, out + err


def rows_of(world: World, target: str) -> dict[str, tuple[Any, ...]]:
    """By table: rows, identities, and an order-free hash of every value; of a URL, or of the server's database."""
    prefix = "" if "://" in target else f"{target}."
    sql = " UNION ALL ".join(
        f"SELECT '{table}' AS name, count() AS n, uniqExact(_log, _seq) AS ids, "
        f"toString(sum(cityHash64(toString(tuple(*))))) AS h FROM {prefix}{table}"
        for table in TABLES
    )
    if prefix:
        return {name: (int(n), int(ids), h) for name, n, ids, h in world.client.query(sql).result_rows}
    answer = command(world.data, "--target", target, "query", sql)
    return {row["name"]: (int(row["n"]), int(row["ids"]), row["h"]) for row in answer}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("copies")
    embedded = f"chdb://{folder / 'source'}"
    command(folder / "data", "--target", embedded, "simulate", "--rows", str(ROWS), "--minutes", "60")
    with DevServerProcess(folder / "server") as server:
        client = clickhouse_connect.get_client(dsn=server.url, autogenerate_session_id=False)
        with contextlib.closing(client):
            yield World(embedded, server, client, folder / "data")


@pytest.fixture(scope="module")
def whole(world: World) -> dict[str, tuple[Any, ...]]:
    """What the source has."""
    return rows_of(world, world.embedded)


def test_killed_at_named_steps_and_repeated_each_row_is_there_once(
    world: World, whole: dict[str, tuple[Any, ...]]
) -> None:
    """From the embedded database to a server: killed before and after inserts and verifications, and while the server
    still works on an insert, each run goes on; the last one leaves every row once."""
    target = world.made("one")
    arguments = ("copy", "--from", world.embedded, "--to", target)
    planned = command(world.data, *arguments, "--dry-run")
    assert {part["target_rows"] for part in planned["partitions"]} == {0}
    assert planned["rows"] >= ROWS * 0.9
    assert planned["bytes"] > 0
    for step, number in STEPS:
        killed(child(world, step, number, *arguments))
    world.server.arm(Fault("after", "hang", count=1))
    process = child(world, "never", 1, *arguments)
    world.server.wait_until(hanging=1)
    process.kill()
    killed(process)
    world.server.release()
    done = command(world.data, *arguments)
    assert done["faulty"] == done["extra"] == done["late"] == done["partitions_left"] == 0
    assert 0 < done["copied"] < done["rows"] == planned["rows"]
    assert rows_of(world, "one") == whole


def test_from_a_server_to_another_database_and_to_the_embedded_engine(
    world: World, tmp_path: pathlib.Path
) -> None:
    """A copy from a server, killed at any moment and repeated, in a database of a server and in a folder, is the
    source."""
    source = world.made("two")
    command(world.data, "--target", source, "simulate", "--rows", str(ROWS), "--minutes", "60", "--seed", "2")
    whole = rows_of(world, "two")
    rng = random.Random(SEED)
    folder = f"chdb://{tmp_path / 'db'}"
    command(world.data, "--target", folder, "migrate", "up")
    for target, name in ((world.made("three"), "three"), (folder, folder)):
        arguments = ("copy", "--from", source, "--to", target)
        if target == folder:
            killed(child(world, "after insert", rng.randrange(2, 9), *arguments))
        else:
            process = child(world, "never", 1, *arguments)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0.7, 1.7))
            process.kill()
            process.communicate()
        assert command(world.data, *arguments)["faulty"] == 0, f"seed {SEED}"
        assert rows_of(world, name) == whole, f"seed {SEED}"


def test_a_target_that_goes_is_told_and_the_next_run_goes_on(
    world: World, whole: dict[str, tuple[Any, ...]]
) -> None:
    """The server is killed in the middle of an insert: an error that names table and remedy. It is back: the rest gets
    in, once, although answers are lost. A second copy into a database that one is copied into is refused, under another
    spelling of its URL and with another data folder too."""
    target = world.made("four")
    arguments = ("copy", "--from", world.embedded, "--to", target)
    world.server.arm(Fault("middle", "kill", table="market_data", count=1))
    told = command(world.data, *arguments, "--patience", "0", code=1)
    assert "market_data: the target took no rows" in told
    assert "run the same command again" in told
    world.server.wait_gone()
    world.server.start()
    world.server.arm(
        Fault("before", "hang", count=1),
        Fault("after", "reset", count=2),
        Fault("middle", "reset", count=1),
        Fault("before", "status", count=2),
    )
    process = child(world, "never", 1, *arguments)
    world.server.wait_until(hanging=1)
    again = target.replace("127.0.0.1", "localhost")
    assert again != target
    assert "another copy into" in command(
        world.data / "other", "copy", "--from", world.url("one"), "--to", again, code=1
    )
    world.server.release()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert "partitions verified" in out
    assert world.server.told().insert_faults == 6
    assert rows_of(world, "four") == whole


def test_what_cannot_be_copied_is_refused_before_anything_is_opened(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One database twice, in two spellings; two embedded ones; no time between; nothing there: each is told."""
    here = world.server.url
    monkeypatch.chdir(world.data)
    for source, target, times, told in (
        (f"{here}/one", f"{here}/one", (), "the same database"),
        (world.embedded, world.embedded + "/../source", (), "the same database"),
        (world.embedded, "chdb:///other", (), "recorder devserver --path"),
        (here, f"{here}/one", ("--since", "2024-01-02", "--until", "2024-01-02"), "nothing to copy"),
        ("one", here, (), "is no target"),
    ):
        ended = CliRunner().invoke(main, ["copy", "--from", source, "--to", target, *times])
        assert ended.exit_code == 2
        assert told in ended.output
    told = command(world.data, "copy", "--from", world.embedded, "--to", f"{here}/absent", code=1)
    assert f'recorder --target "{here}/absent" migrate up' in told
