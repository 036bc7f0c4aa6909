"""`recorder run` as a process, in trouble around it: one clear line each, with the right exit code, and in time."""

from __future__ import annotations

import contextlib
import pathlib
import signal
import socket
from collections.abc import Iterator

import pytest
from harness.backends import Place
from harness.recorders import wait_until
from harness.running import RunningRecorder


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a server that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(50)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def plain_lines(recorder: RunningRecorder) -> list[str]:
    """What it said that is no line of the log."""
    return [line for line in recorder.log.read_text().splitlines() if not line.startswith("{")]


@pytest.mark.parametrize("timeout_s", ["0.5", "600"], ids=["its time is over", "a second signal"])
def test_a_start_that_does_not_end_is_given_up(silent: str, tmp_path: pathlib.Path, timeout_s: str) -> None:
    """Told to stop while the first question to the server is out, it ends in its time, or at once if told again."""
    settings = Place(silent, "trading").variables | {"RECORDER_SHUTDOWN_TIMEOUT_S": timeout_s}
    with RunningRecorder(tmp_path, **settings) as recorder:
        recorder.wait_event("disk")
        recorder.send(signal.SIGTERM)
        recorder.wait_event("told to stop")
        if timeout_s == "600":
            recorder.send(signal.SIGTERM)
        assert recorder.wait(9.0) == (143 if timeout_s == "600" else 0), "less than the question may take"
        assert recorder.events(
            "the start did not end when it was told to; the process ends without waiting for it"
        )
        assert not recorder.events("subscribed")
        assert plain_lines(recorder) == []


def test_a_folder_of_another_one_is_one_line_and_exit_code_1(tmp_path: pathlib.Path) -> None:
    """The second of two on one folder says who has it; the first goes on."""
    with RunningRecorder(tmp_path) as first:
        first.ready()
        with RunningRecorder(tmp_path) as second:
            assert second.wait() == 1
        (line,) = plain_lines(second)
        assert first.process is not None
        assert f"process {first.process.pid} (" in line
        assert "one recorder a data_dir" in line
        assert first.reasons() == []
        assert first.stop() == 0


@pytest.mark.root
def test_a_full_disk_is_one_line_and_exit_code_1(mount: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The embedded database cannot be made: which disk, how much is free, and what to do."""
    for size in (65 << 20, 1 << 20, 1 << 12):
        with contextlib.suppress(OSError):  # it is full
            (mount / f"filler-{size}").write_bytes(bytes(size))
    target = {"RECORDER_TARGET": f"chdb://{mount}/db", "RECORDER_MIGRATE_ON_START": "true"}
    with RunningRecorder(tmp_path, **target) as recorder:
        assert recorder.wait() == 1
        (line,) = plain_lines(recorder)
        assert line.startswith("error: ")
        assert str(mount) in line
        assert "free space" in line


def test_a_storm_of_sighup_is_a_few_lines(tmp_path: pathlib.Path) -> None:
    """And it is as it was afterwards."""
    with RunningRecorder(tmp_path) as recorder:
        recorder.ready()
        for _ in range(500):
            recorder.send(signal.SIGHUP)
        recorder.wait_event("settings read again")
        wait_until(lambda: recorder.reasons() == [], "readiness")
        assert recorder.stop() == 0
        assert len(recorder.events("settings read again")) < 50
