"""`recorder run` carries out retention by itself, beside recording, and tells what became of it."""

from __future__ import annotations

import pathlib
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from harness.backends import Backend, Place
from harness.publishing import PublishingProcess
from harness.recorders import wait_until
from harness.retaining import asked, record_old_rows, running
from harness.running import RunningRecorder

from recorder.archive_root import FOLDER, MEMORY
from retention.archive import FolderStore, partition_of, read_files
from retention.archive import Place as Archived
from retention.archive.marked import MarkedStore

DAY = Archived("market_data", "2024-08-08")
EVENTS = (
    "SELECT kind, component, severity, JSONExtractString(ifNull(payload, ''), 'action') AS action, "
    "JSONExtractString(ifNull(payload, ''), 'state') AS state, "
    "JSONExtractString(ifNull(payload, ''), 'outcome') AS outcome "
    "FROM system_events WHERE kind LIKE 'retention%' ORDER BY ts_local"
)


def archived(folder: pathlib.Path) -> int:
    """Rows in pieces of the archive that are verified; each identity once."""
    store = FolderStore(folder / "data" / "archive")
    known = partition_of(store, DAY)
    assert known.verified
    batches = [batch for piece in known.pieces for batch in read_files(piece.manifest, store)]
    identities = [
        tuple(row.values()) for batch in batches for row in batch.select(["_log", "_seq"]).to_pylist()
    ]
    assert len(set(identities)) == len(identities)
    return len(identities)


def retention(recorder: RunningRecorder) -> dict[str, Any]:
    found: dict[str, Any] = recorder.status().get("retention") or {}
    return found


def runs(recorder: RunningRecorder, outcome: str) -> int:
    return int(retention(recorder).get("runs", {}).get(outcome, 0))


def run_now(recorder: RunningRecorder, outcome: str, count: int = 1) -> dict[str, Any]:
    """Have it run, and wait for the end."""
    recorder.send(signal.SIGUSR1)
    wait_until(lambda: runs(recorder, outcome) == count, f"{count} x {outcome}")
    return retention(recorder)


def alarms(recorder: RunningRecorder) -> dict[str, str]:
    return {one["alarm"]: one["why"] for one in recorder.status().get("alarms", [])}


@pytest.fixture
def gate(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Where a run waits, open at the end whatever happened."""
    gate = tmp_path / "gate"
    yield gate
    pathlib.Path(f"{gate}.open").touch()


def reached(gate: pathlib.Path) -> bool:
    return pathlib.Path(f"{gate}.reached").exists()


def test_which_archive_it_is_is_seen_at_the_start(place: Place, tmp_path: pathlib.Path) -> None:
    """Others archive. A recorder that never asks remembers its archive all the same, and says so when it is away."""
    root = tmp_path / "data" / FOLDER
    MarkedStore(FolderStore(root), tmp_path / "of-another").see(writes=True)
    with running(tmp_path, place) as recorder:
        recorder.ready()
        wait_until(lambda: any((tmp_path / "data" / MEMORY).glob("*.json")), "it is remembered")
        assert recorder.stop() == 0
    root.rename(tmp_path / "away")
    with running(tmp_path, place) as recorder:
        told = recorder.wait_event("the archive cannot be seen")
        assert "is not the archive that was used here before" in told["why"]
        recorder.ready()
        assert recorder.stop() == 0


def test_what_is_due_is_archived_and_dropped_once_while_rows_arrive(
    place: Place, tmp_path: pathlib.Path
) -> None:
    """By the service itself; rows of the bus are all in; a second run finds nothing; every place tells of it."""
    record_old_rows(tmp_path, place, 1, 2, 3)
    with running(tmp_path, place) as recorder:
        recorder.ready()
        with PublishingProcess(recorder.bus_url, rows_per_s=500) as publishing:
            wait_until(lambda: recorder.rows("orders") > 0, "rows of the bus")
            told = run_now(recorder, "done")
            published = publishing.finish()
        assert {(one["kind"], one["state"]): one["count"] for one in told["actions"]} == {
            ("archive", "done"): 1, ("drop", "done"): 1,
        }  # fmt: skip
        assert told["rows"] == {"archive": 3, "drop": 3}
        assert (told["last_outcome"], told["trouble"], told["next_run_s"]) == ("done", "", 0)
        again = run_now(recorder, "done", 2)
        assert again["actions"] == told["actions"]
        wait_until(lambda: recorder.rows("orders") == published.offered, "all rows of the bus")
        assert recorder.stop() == 0
    assert archived(tmp_path) == 3
    counts = "SELECT count() AS n, uniqExact(client_order_id) AS u, (SELECT count() FROM market_data) AS o FROM orders"
    assert asked(tmp_path, place, counts) == [{"n": published.offered, "u": published.offered, "o": 0}]
    assert [tuple(row.values()) for row in asked(tmp_path, place, EVENTS)] == [
        ("retention", "market_data", "info", "archive", "done", ""),
        ("retention", "market_data", "info", "drop", "done", ""),
        ("retention_run", "", "info", "", "", "done"),
        ("retention_run", "", "info", "", "", "done"),
    ]


def test_a_service_that_was_killed_amid_a_run_completes_it_later(
    place: Place, backend: Backend, tmp_path: pathlib.Path, gate: pathlib.Path
) -> None:
    """SIGKILL behind the archive, before the drop: its process ends too, and the next run drops what was proven."""
    record_old_rows(tmp_path, place, 1, 2)
    with running(tmp_path, place, RETAINING_GATE=str(gate)) as recorder:
        recorder.ready().send(signal.SIGUSR1)
        wait_until(lambda: reached(gate), "the archive")
        assert recorder.process is not None
        children = psutil.Process(recorder.process.pid).children()
        assert len(children) == (not backend.embedded)
        recorder.kill()
        psutil.wait_procs(children, timeout=30)
        assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    assert asked(tmp_path, place, "SELECT count() AS n FROM market_data") == [{"n": 2}]
    with running(tmp_path, place) as recorder:
        run_now(recorder.ready(), "done")
        assert recorder.stop() == 0
    assert archived(tmp_path) == 2
    assert asked(tmp_path, place, "SELECT count() AS n FROM market_data") == [{"n": 0}]


def test_a_service_that_stops_does_not_wait_for_its_run(
    place: Place, tmp_path: pathlib.Path, gate: pathlib.Path
) -> None:
    """SIGTERM amid a run: it ends in time with code 0, and says what became of the run."""
    record_old_rows(tmp_path, place, 1)
    with running(tmp_path, place, RETAINING_GATE=str(gate), RECORDER_SHUTDOWN_TIMEOUT_S="5") as recorder:
        recorder.ready().send(signal.SIGUSR1)
        wait_until(lambda: reached(gate), "the archive")
        recorder.send(signal.SIGTERM)
        assert recorder.wait(20) == 0
        recorder.wait_event("stopped")
    assert asked(tmp_path, place, "SELECT count() AS n FROM market_data") == [{"n": 1}]


def test_of_two_services_on_one_database_one_runs(
    place: Place, backend: Backend, tmp_path: pathlib.Path, gate: pathlib.Path
) -> None:
    """The other one leaves it, which is no failure; each action is done once, and both know that it succeeded."""
    if backend.embedded:
        pytest.skip("an embedded database has one process")
    record_old_rows(tmp_path, place, 1)
    (tmp_path / "other").mkdir()
    with (
        running(tmp_path, place, RETAINING_GATE=str(gate)) as one,
        running(tmp_path / "other", place) as other,
    ):
        one.ready().send(signal.SIGUSR1)
        wait_until(lambda: reached(gate), "the archive")
        left = run_now(other.ready(), "left")
        assert "another run of retention is at work" in left["last_why"]
        assert (left["actions"], left["trouble"]) == ([], "")
        pathlib.Path(f"{gate}.open").touch()
        wait_until(lambda: runs(one, "done") == 1, "the run of the first")
        assert run_now(other, "done")["actions"] == []
        assert (one.stop(), other.stop()) == (0, 0)
    assert archived(tmp_path) == 1


def test_a_run_that_fails_is_an_alarm_until_one_succeeds_and_recording_goes_on(
    place: Place, backend: Backend, tmp_path: pathlib.Path
) -> None:
    """An archive that cannot be written: told in each place, also by the next service; then mended, and cleared."""
    if backend.embedded:
        pytest.skip("a thread tells it as a process does, but for the pipe")
    record_old_rows(tmp_path, place, 1)
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "archive").write_text("no folder")
    with running(tmp_path, place) as recorder:
        recorder.ready()
        with PublishingProcess(recorder.bus_url, rows_per_s=200) as publishing:
            told = run_now(recorder, "failed")
            wait_until(lambda: "RecorderRetention" in alarms(recorder), "the alarm")
            published = publishing.finish()
        assert "market_data" in told["last_why"]
        assert told["last_why"] in alarms(recorder)["RecorderRetention"]
        wait_until(lambda: recorder.rows("orders") == published.offered, "all rows of the bus")
        assert recorder.reasons() == []
        assert recorder.stop() == 0
    with running(tmp_path, place, RECORDER_RETENTION_SCHEDULE="0 2 29 2 *") as recorder:
        recorder.ready()
        wait_until(lambda: "RecorderRetention" in alarms(recorder), "the alarm of the run before the start")
        (tmp_path / "data" / "archive").unlink()
        run_now(recorder, "done")
        wait_until(lambda: alarms(recorder) == {}, "the end of the alarm")
        assert recorder.stop() == 0
    assert archived(tmp_path) == 1


def test_a_run_whose_process_is_killed_is_told_and_another_one_works(
    place: Place, backend: Backend, tmp_path: pathlib.Path, gate: pathlib.Path
) -> None:
    """By whoever: the service has an alarm, and records."""
    if backend.embedded:
        pytest.skip("a run on an embedded database has no process of its own")
    record_old_rows(tmp_path, place, 1)
    with running(tmp_path, place, RETAINING_GATE=str(gate)) as recorder:
        recorder.ready().send(signal.SIGUSR1)
        wait_until(lambda: reached(gate), "the archive")
        assert recorder.process is not None
        (child,) = psutil.Process(recorder.process.pid).children()
        assert child.nice() == 10
        scores = (pathlib.Path(f"/proc/{pid}/oom_score_adj") for pid in (recorder.process.pid, child.pid))
        mine, its = (int(score.read_text()) for score in scores)
        assert its > mine, "where memory runs out, the run goes first"
        assert not any("RECORDER" in word or "http" in word for word in child.cmdline())
        child.kill()
        wait_until(lambda: runs(recorder, "failed") == 1, "the end of the run")
        assert "SIGKILL" in retention(recorder)["last_why"]
        wait_until(lambda: "RecorderRetention" in alarms(recorder), "the alarm")
        pathlib.Path(f"{gate}.open").touch()
        run_now(recorder, "done")
        wait_until(lambda: alarms(recorder) == {}, "the end of the alarm")
        assert recorder.stop() == 0
    assert archived(tmp_path) == 1


def test_the_schedule_is_read_again(place: Place, embedded: None, tmp_path: pathlib.Path) -> None:
    """SIGHUP: another schedule counts from now on, a wrong one changes nothing."""
    config = tmp_path / "recorder.toml"
    config.write_text('retention_schedule = "0 2 * * *"')
    recorder = running(tmp_path, place)
    recorder._environment.pop("RECORDER_RETENTION_SCHEDULE")
    with recorder:
        wait_until(lambda: retention(recorder).get("schedule") == "0 2 * * *", "the schedule")
        config.write_text('retention_schedule = "0 4 * * *"')
        recorder.ready().send(signal.SIGHUP)
        wait_until(lambda: retention(recorder).get("schedule") == "0 4 * * *", "the other schedule")
        assert retention(recorder)["next_run_s"] % 86_400 == 4 * 3_600
        config.write_text('retention_schedule = "at four"')
        recorder.send(signal.SIGHUP)
        assert 'such as "0 2 * * *"' in str(
            recorder.wait_event("settings were read again and are wrong; the old ones stay")
        )
        assert retention(recorder)["schedule"] == "0 4 * * *"
        assert recorder.stop() == 0
