"""Kills at any moment: the command repeated ends with the rows of an undisturbed run."""

from __future__ import annotations

import pathlib
import random
import signal
import subprocess
import sys
import time

import orjson
import pytest
from harness.backends import Backend, Place
from harness.ingest_files import COMMAND, capture_lines, child_environment, run_command, write_lines

ROUNDS = 2
LINES = 20_000
ENGINE_LOCK = "status"
READER = """
import asyncio
from recorder import Settings
from recorder.sink.open import open_sink

async def main():
    sink = open_sink(Settings())
    for table in ("market_data", "book_deltas", "system_events"):
        columns = [row[0] for row in await sink.query(
            "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {t:String} "
            "AND name != 'run_id'", {"t": table})]
        where = "" if table != "system_events" else " WHERE kind = 'feed_gap'"
        # As text of a tuple: a NULL among the arguments of a hash would make it NULL, and the row would not count.
        rows = await sink.query(
            "SELECT count(), uniqExact(_log, _seq), sum(hash), groupBitXor(hash) FROM "
            f"(SELECT _log, _seq, cityHash64(toString(tuple({', '.join(columns)}))) AS hash FROM {table}{where})")
        print(table, *rows[0])
    await sink.close()

asyncio.run(main())
"""


def captured(place: Place, data_dir: pathlib.Path) -> str:
    """Count, identities and two hashes over all columns of what files made, run ids apart."""
    done = subprocess.run(
        [sys.executable, "-c", READER], capture_output=True, text=True, timeout=120, check=False,
        env=child_environment(**place.variables, RECORDER_DATA_DIR=str(data_dir)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def killed_and_repeated(
    files: list[pathlib.Path],
    place: Place,
    data_dir: pathlib.Path,
    tmp_path: pathlib.Path,
    rng: random.Random,
    whole_s: float,
) -> None:
    """The command, killed some times at random moments, then left alone. No data is left where temporary files are."""
    arguments = ["--data-dir", str(data_dir), "ingest", "--book-deltas", "--json", *map(str, files)]
    # chDB has an empty engine there for as long as it takes to import it, which a kill just then leaves.
    temporary = tmp_path / "temporary"
    temporary.mkdir(exist_ok=True)
    for _ in range(rng.randrange(1, 4)):
        child = subprocess.Popen(
            [*COMMAND, *arguments], cwd=tmp_path,
            env=child_environment(**place.variables, TMPDIR=str(temporary)),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            child.wait(rng.uniform(0.3, 1.1) * whole_s)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
        child.wait()
    assert {file.name for file in temporary.rglob("*") if file.is_file()} <= {ENGINE_LOCK}
    done = run_command(*arguments, cwd=tmp_path, **place.variables)
    assert done.returncode == 0, done.stderr
    result = orjson.loads(done.stdout)
    assert result["ok"]
    for table, rows in result["rows"].items():
        assert result["inserted"][table] + result["already_there"][table] == rows


def undisturbed(
    files: list[pathlib.Path], place: Place, data_dir: pathlib.Path, tmp_path: pathlib.Path
) -> tuple[dict[str, int], float, str]:
    """The command left alone: rows by table, how long it took, and what is in the database."""
    arguments = ["--data-dir", str(data_dir), "ingest", "--book-deltas", "--json", *map(str, files)]
    started = time.monotonic()
    done = run_command(*arguments, cwd=tmp_path, **place.variables)
    whole_s = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    return orjson.loads(done.stdout)["rows"], whole_s, captured(place, data_dir)


@pytest.mark.slow
def test_sigkill_at_random_moments_and_again(backend: Backend, tmp_path: pathlib.Path) -> None:
    """Whatever a kill left, a repeat completes: every captured row once, with the same content."""
    lines = capture_lines(LINES)
    middle = LINES // 2
    # A hole in the trade ids between the files, so that rows of system_events are among those compared.
    files = [
        write_lines(tmp_path / "one.gz", lines[:middle], pack=True),
        write_lines(tmp_path / "two", lines[middle + 10 :]),
    ]
    with backend.place(tmp_path / "undisturbed") as place:
        rows, whole_s, expected = undisturbed(files, place, tmp_path / "undisturbed", tmp_path)
    assert rows == {"market_data": LINES - 10, "system_events": 1}
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    for number in range(ROUNDS):
        data_dir = tmp_path / f"round{number}"
        with backend.place(data_dir) as place:
            killed_and_repeated(files, place, data_dir, tmp_path, rng, whole_s)
            assert captured(place, data_dir) == expected, f"seed {seed}, round {number}"


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.captures
def test_sigkill_on_a_recorded_session(
    captures: pathlib.Path, backend: Backend, tmp_path: pathlib.Path
) -> None:
    """The same on real input, book deltas and all."""
    files = [captures / "binance-captures" / "usdm_btcusdt_20240808.gz"]
    with backend.place(tmp_path / "whole") as place:
        _, whole_s, expected = undisturbed(files, place, tmp_path / "whole", tmp_path)
    seed = random.SystemRandom().randrange(2**32)
    with backend.place(tmp_path / "killed") as place:
        killed_and_repeated(files, place, tmp_path / "killed", tmp_path, random.Random(seed), whole_s)
        assert captured(place, tmp_path / "killed") == expected, f"seed {seed}"


@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_a_signal_stops_cleanly_and_says_how_to_go_on(
    place: Place, tmp_path: pathlib.Path, signal_number: int, code: int
) -> None:
    """Ctrl-C ends a replay with its totals and the exit code of an interrupted command; a repeat adds the rest."""
    path = write_lines(tmp_path / "f", capture_lines(600, step_ns=100_000_000))
    arguments = ["--data-dir", str(tmp_path / "data"), "ingest"]
    child = subprocess.Popen(
        [*COMMAND, *arguments, "--speed", "2", str(path)], cwd=tmp_path, env=child_environment(**place.variables),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stderr is not None
    try:
        for line in child.stderr:  # the plain lines of progress
            if line.startswith("recording"):
                break
        child.send_signal(signal_number)
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == code, err
    assert "stopped" in err
    assert "run the same command again" in err
    assert "balance exact" in out
    done = run_command(*arguments, "--json", path, cwd=tmp_path, **place.variables)
    result = orjson.loads(done.stdout)
    assert result["ok"]
    assert 0 < result["already_there"]["market_data"] < 600
    assert result["inserted"]["market_data"] + result["already_there"]["market_data"] == 600
