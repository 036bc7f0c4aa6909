"""What left its table while a recorder did not know that it was in does not come back: replay resurrects nothing.

Recorders and runs of retention are processes of their own, one after the other, on a real database.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import pytest
from harness.backends import Place
from harness.gone_child import LONG_AGO_NS
from harness.ingest_files import write_rows
from harness.recorders import order

ENVIRONMENT = {
    "HOME": "/nonexistent",
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    "RECORDER_HEALTH_ADDR": "off",
    "RECORDER_RETRY_INITIAL_S": "0.01",
    "RECORDER_RETRY_MAX_S": "0.05",
    "RECORDER_WAL_GRACE_S": "0.1",
    "RECORDER_DEFAULTS__LINGER_MS": "5",
    "RECORDER_DEFAULTS__LINGER_MAX_MS": "20",
    "RECORDER_TABLES__ORDERS__KEEP_DAYS": "30",
    "RECORDER_TABLES__METRICS_TIMESERIES__ENABLED": "false",
}
TESTS = pathlib.Path(__file__).parents[1]
ARCHIVE = {"RECORDER_TABLES__ORDERS__ARCHIVE_AFTER_DAYS": "5"}
TIER = {"RECORDER_TABLES__ORDERS__TIER_AFTER_DAYS": "5", "RECORDER_TABLES__ORDERS__KEEP_DAYS": "forever"}
AWAY = {
    "RECORDER_ARCHIVE": "s3://nowhere/archive",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_REGION": "us-east-1",
}


class Desk:
    """A database, a data folder, and processes that use them."""

    def __init__(self, folder: pathlib.Path, place: Place, policy: dict[str, str]):
        self.folder, self.place, self.policy = folder, place, policy

    def run(self, *arguments: str, code: int = 0, **variables: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=TESTS,
            env=ENVIRONMENT
            | self.policy
            | self.place.variables
            | {"RECORDER_DATA_DIR": str(self.folder), "RECORDER_ARCHIVE": str(self.folder / "archive")}
            | {"PYTHONPATH": os.pathsep.join(sys.path)}
            | variables,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done.stdout

    def record(self, inserted: int, unsent: int = 0, **variables: str) -> None:
        """Rows that were inserted and rows that were not, of a recorder that was killed and wrote down neither."""
        self.run(
            "harness.gone_child", "record", str(inserted), str(unsent), code=-signal.SIGKILL, **variables
        )

    def resume(self, live: int = 0, **variables: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.run("harness.gone_child", "resume", str(live), **variables))
        assert told["exact"], told
        assert told["shed"] == told["dead_lettered"] == 0, told
        return told

    def retain(self) -> list[tuple[str, str]]:
        """Carry retention out on another machine, which sees no log; what was done, and how it went."""
        words = ("retention", "apply", "orders", "--yes", "--json")
        elsewhere = {"RECORDER_DATA_DIR": str(self.folder.with_name("elsewhere"))}
        told = json.loads(self.run("harness.killed_recorder", "never", "1", *words, **elsewhere))
        return [(one["kind"], one["state"]) for one in told["outcomes"]]

    def archive(self) -> dict[str, bytes]:
        """Every file of it."""
        root = self.folder / "archive"
        return {
            str(path.relative_to(root)): path.read_bytes() for path in root.rglob("[!.]*") if path.is_file()
        }

    def archived(self) -> int:
        """Rows in pieces with a receipt."""
        found = [json.loads(data) for name, data in self.archive().items() if "/receipt-" in name]
        return sum(one["rows"] for one in found)


ARCHIVED = [("archive", "done"), ("drop", "done")]


def test_what_was_archived_and_dropped_stays_gone(place: Place, tmp_path: pathlib.Path) -> None:
    """A recorder is killed after an insert, and before another; what was inserted is archived and dropped. Its rows
    never come back: while the archive is damaged they wait on the log, then they count as there. Those that neither
    has go in late, and into an addendum with the next run, after which retention has nothing to do.
    """
    desk = Desk(tmp_path / "data", place, ARCHIVE)
    desk.record(60, 40)
    assert desk.retain() == ARCHIVED
    before = desk.archive()
    (manifest,) = (tmp_path / "data" / "archive").rglob("manifest-*.json")
    manifest.write_bytes(b"{}")
    told = desk.resume(live=10)
    assert (told["kept"], told["pending"], told["earlier"]) == (100, 100, [0, 0, 0])
    assert (told["inserted"], told["rows"]) == (10, [10, 0])
    assert "the archive at" in told["why"], told["why"]
    assert "start the recorder again" in told["why"], told["why"]
    manifest.write_bytes(before[str(manifest.relative_to(tmp_path / "data" / "archive"))])
    told = desk.resume()
    assert (told["received"], told["pending"], told["kept"]) == (100, 0, 0)
    assert (told["earlier"], told["rows"]) == ([40, 60, 0], [50, 0])
    assert desk.archive() == before, "the archive was written"
    assert desk.retain() == ARCHIVED
    assert desk.archived() == 100
    assert desk.retain() == []


def test_what_moved_stays_where_it_is(place: Place, tmp_path: pathlib.Path) -> None:
    """Rows that moved to the table of older ones count as there; those that it has not go in."""
    desk = Desk(tmp_path / "data", place, TIER)
    desk.record(60, 40)
    assert desk.retain() == [("move", "done")]
    told = desk.resume()
    assert (told["earlier"], told["rows"]) == ([40, 60, 0], [40, 60])


@pytest.mark.usefixtures("embedded")
def test_rows_of_now_do_not_wait_for_the_archive(place: Place, tmp_path: pathlib.Path) -> None:
    """While nobody answers for the archive, what needs it waits on the log, and rows of now get in before it is given
    up; at a start with the archive the others do, or, where no archive has them, are inserted, and nothing is asked
    when all is settled. Until then their partition waits for them.
    """
    desk = Desk(tmp_path / "data", place, ARCHIVE)
    desk.record(60, 40)
    (waits,) = json.loads(desk.run("recorder", "retention", "plan", "orders", "--json"))["actions"]
    assert (waits["kind"], waits["why"]) == ("wait", "rows for it may wait in a log; they go in first")
    told = desk.resume(live=10, GONE_PATIENCE_S="5", GONE_BESIDE="1", **AWAY)
    assert not told["given_up_first"], "rows of now waited for the archive"
    # What the table has is there, whatever the archive.
    assert (told["kept"], told["pending"], told["earlier"], told["rows"]) == (40, 40, [0, 60, 0], [70, 0])
    assert "the archive at s3://nowhere/archive cannot be read" in told["why"], told["why"]
    told = desk.resume()
    assert (told["earlier"], told["rows"], told["kept"]) == ([40, 0, 0], [110, 0], 0)
    told = desk.resume()
    assert (told["received"], told["earlier"], told["parquet"]) == (0, [0, 0, 0], False)


@pytest.mark.usefixtures("embedded")
def test_what_the_ttl_takes_counts_as_expired(place: Place, tmp_path: pathlib.Path) -> None:
    """Rows older than the TTL that the table has now are not put back: they count as expired. While a hold keeps the
    table from having a TTL, they are.
    """
    desk = Desk(tmp_path / "data", place, {})
    desk.record(0, 50)
    told = desk.resume(live=5)
    assert (told["expired"], told["earlier"], told["pending"], told["rows"]) == (50, [0, 0, 50], 0, [5, 0])
    held = Desk(tmp_path / "other", place, {})
    held.record(0, 50)
    held.run("recorder", "retention", "hold", "case", "--reason", "a test", "--table", "orders")
    told = held.resume()
    assert (told["earlier"], told["rows"]) == ([50, 0, 0], [55, 0])


@pytest.mark.usefixtures("embedded")
def test_a_capture_that_is_ingested_again_stays_archived(place: Place, tmp_path: pathlib.Path) -> None:
    """What comes again from a source is looked for in the archive, too: all of it counts as duplicates. While nobody
    answers for the archive it is inserted; the next run of retention finds it archived, and drops it.
    """
    desk = Desk(tmp_path / "data", place, ARCHIVE)
    rows = [order(n, ts_local=LONG_AGO_NS + n) for n in range(50)]
    file = write_rows(tmp_path / "orders.ndjson", rows)
    ingest = ("recorder", "ingest", "--table", "orders", "--json", str(file))
    desk.run("recorder", "migrate", "up")
    for inserted, again, done in ((50, 0, ARCHIVED), (0, 50, [])):
        told = json.loads(desk.run(*ingest))
        assert (told["inserted"], told["already_there"]) == ({"orders": inserted}, {"orders": again})
        assert desk.retain() == done
    before = desk.archive()
    told = json.loads(desk.run(*ingest, **AWAY))
    assert told["inserted"] == {"orders": 50}, "who comes again waits for an archive that nobody answers for"
    assert desk.retain() == [("verify_archive", "done"), ("drop", "done")]
    assert desk.archive() == before, "the archive was written"
