"""`recorder run` starts and records with a broken log, a full disk or one that is read-only, and says what is wrong.

Without a database: `test_run_process`. A second one on the same folder: `test_run_troubles`.
"""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from harness.backends import Place
from harness.dev_server import DevServerProcess
from harness.ingest_files import run_command
from harness.recorders import order, wait_until
from harness.running import RunningRecorder

from recorder import Publisher
from recorder.log_disk_care import RESERVE_FILE

ALARM = "RecorderWalDisk"


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[DevServerProcess]:
    """A database that has a disk of its own; not started."""
    found = DevServerProcess(tmp_path / "server")
    yield found
    found.close()


@pytest.fixture
def place(server: DevServerProcess) -> Place:
    return Place(server.url, "trading")


def publish(publisher: Publisher, first: int, stop: int) -> None:
    """Orders of these numbers; returns when all of them are acknowledged."""
    for n in range(first, stop):
        assert publisher.publish("orders", order(n))
    assert publisher.flush(60)


def left_on_the_log(recorder: RunningRecorder, pieces: int) -> None:
    """Leave pieces of 50 rows on its log, and none in a database."""
    recorder.started()
    with Publisher(recorder.bus_url) as publisher:
        for piece in range(pieces):
            publish(publisher, piece * 50, piece * 50 + 50)
    recorder.kill()


def numbers(folder: pathlib.Path, place: Place) -> list[int]:
    """The numbers of all rows of `orders`, in order, each as often as it is there."""
    found = run_command(
        "--data-dir", folder / "elsewhere", "query", "--format", "jsonl",
        "SELECT client_order_id FROM orders", cwd=folder, **place.variables,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return sorted(int(line.partition("c-")[2].rstrip('"}')) for line in found.stdout.splitlines())


def of_orders(recorder: RunningRecorder, event: str) -> list[dict[str, Any]]:
    """Log lines of an event about `orders`."""
    return [line for line in recorder.events(event) if line.get("table") == "orders"]


def fill(disk: pathlib.Path) -> None:
    for size in (64 << 20, 1 << 20, 1 << 12):
        with contextlib.suppress(OSError):  # it is full
            (disk / f"filler-{size}").write_bytes(bytes(size))


def test_it_starts_with_a_corrupt_log(server: DevServerProcess, place: Place, tmp_path: pathlib.Path) -> None:
    """A bit is flipped in the middle, the checkpoint is torn, and a file among the segments is none: a line for each
    says where and what, one what is lost; all else of the log goes in, and new rows do."""
    with RunningRecorder(tmp_path, **place.variables) as recorder:
        left_on_the_log(recorder, 4)
        log = tmp_path / "data" / "wal" / "orders"
        (segment,) = log.glob("*.wal")
        data = bytearray(segment.read_bytes())
        data[data.index(b"c-60")] ^= 1
        segment.write_bytes(data)
        (log / "checkpoint").write_bytes(b"wal checkpoint 1\nsettled")
        (log / segment.name.replace("1", "2")).write_bytes(b"no segment")
        server.start()
        recorder.start().ready()
        with Publisher(recorder.bus_url) as publisher:
            publish(publisher, 200, 250)
        wait_until(lambda: recorder.rows("orders") == 200, "all that can be read")
        damage = sorted(line["damage"] for line in of_orders(recorder, "the log was found damaged"))
        (lost,) = [
            line for line in recorder.events() if line.get("rows") == 50 and line["level"] == "critical"
        ]
        assert lost["table"] == "orders"
        assert len(damage) == 3, damage
        assert f"{segment.name} at " in damage[0]
        assert "50 rows: a frame whose payload is not what was written" in damage[0]
        assert "no segment of this log; left alone" in damage[1]
        assert damage[2].startswith("checkpoint at 0, 24 bytes: ")
        assert recorder.stop() == 0
    assert numbers(tmp_path, place) == [*range(50), *range(100, 250)]


@pytest.mark.root
def test_it_starts_with_a_full_disk(
    server: DevServerProcess, place: Place, mount: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """What the log has goes in, and so do new rows, which are acknowledged once they are in; the alarm says how full
    the disk is. It ends by itself when there is room."""
    (tmp_path / "data").symlink_to(mount)
    with RunningRecorder(tmp_path, RECORDER_ALARM_CLEAR_S="0.2", **place.variables) as recorder:
        left_on_the_log(recorder, 2)
        (mount / "wal" / RESERVE_FILE).unlink()  # as if an earlier run had used it up
        fill(mount)
        server.start()
        recorder.start().ready()
        with Publisher(recorder.bus_url) as publisher:
            publish(publisher, 100, 200)
        wait_until(lambda: recorder.rows("orders") == 200, "all rows")
        wait_until(lambda: any(line["alarm"] == ALARM for line in recorder.events("alarm raised")))
        raised = next(line for line in recorder.events("alarm raised") if line["alarm"] == ALARM)
        assert str(tmp_path / "data" / "wal") in raised["why"]
        assert len(of_orders(recorder, "the checkpoint cannot be written")) <= 1
        for filler in mount.glob("filler-*"):
            filler.unlink()
        wait_until(lambda: any(line["alarm"] == ALARM for line in recorder.events("alarm cleared")))
        assert recorder.stop() == 0
    assert numbers(tmp_path, place) == list(range(200))


@pytest.mark.root
def test_it_starts_on_a_disk_that_is_read_only(
    server: DevServerProcess, place: Place, mount: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A line a table says that it has no log, and why; rows are acknowledged once they are in. What the log has stays
    there for the start after the disk was mended."""
    (tmp_path / "data").symlink_to(mount)
    with RunningRecorder(tmp_path, **place.variables) as recorder:
        left_on_the_log(recorder, 2)
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        server.start()
        recorder.start().ready()
        (line,) = of_orders(recorder, "a table has no log: what memory holds is lost with the process")
        assert "Read-only file system" in line["error"]
        with Publisher(recorder.bus_url) as publisher:
            publish(publisher, 100, 200)
        assert recorder.rows("orders") == 100
        assert recorder.stop() == 0
        subprocess.run(["mount", "-o", "remount,rw", mount], check=True)
        recorder.start().ready(2)
        wait_until(lambda: recorder.rows("orders") == 100, "the rows of the first run")
        assert recorder.stop() == 0
    assert numbers(tmp_path, place) == list(range(200))
