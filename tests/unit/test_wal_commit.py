"""Group commit: who is written when, beside whom, and whom the threads outlive."""

from __future__ import annotations

import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from harness.wal_log import SCHEMA, append, until

from wal.commit import GroupCommit
from wal.errors import LogClosed
from wal.writer import LogWriter


class Log:
    """A log of which only its rounds are real."""

    def __init__(self, name: str, commit: GroupCommit, work: Callable[[], float | None] = lambda: None):
        self.name = name
        self.work = work
        self.rounds: list[float] = []
        self.at_once = 0
        self.closed = False
        self._commit = commit
        self._inside = 0
        commit.join(self)

    def round(self) -> float | None:
        self._inside += 1
        self.at_once = max(self.at_once, self._inside)
        self.rounds.append(time.monotonic())
        try:
            return self.work()
        finally:
            self._inside -= 1

    def close(self, timeout_s: float) -> bool:
        self.closed = True
        self._commit.leave(self)
        return True


@pytest.fixture
def commit() -> Iterator[GroupCommit]:
    commit = GroupCommit(group_ms=5, threads=2)
    yield commit
    commit.close(5)


def test_a_group_is_one_round_each_its_time_after_the_first(commit: GroupCommit) -> None:
    """Whatever is due within the time of a group is written with it, not sooner, and nobody who has nothing."""
    slow = GroupCommit(group_ms=200)
    logs = [Log(f"{n}", slow) for n in range(4)]
    begun_s = time.monotonic()
    for _ in range(50):
        for log in logs[:3]:
            slow.due(log)
    until(lambda: all(log.rounds for log in logs[:3]))
    assert slow.close(5)
    assert [len(log.rounds) for log in logs] == [1, 1, 1, 0]
    assert all(log.rounds[0] - begun_s >= 0.2 for log in logs[:3])
    assert all(log.closed for log in logs)


def test_now_does_not_wait_for_the_group() -> None:
    """Who closes a log, or nudges it, waits for nobody."""
    commit = GroupCommit(group_ms=60_000)
    log = Log("l", commit)
    commit.due(log)
    commit.due(log, now=True)
    until(lambda: bool(log.rounds))
    assert commit.close(5)
    assert len(log.rounds) == 1


def test_a_log_is_in_one_hand_at_a_time(commit: GroupCommit) -> None:
    """What becomes due during a round waits for its end, and is not forgotten."""
    began, go = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        go.wait(20)

    log = Log("l", commit, work)
    commit.due(log, now=True)
    assert began.wait(10)
    for _ in range(10):
        commit.due(log, now=True)
    go.set()
    until(lambda: len(log.rounds) >= 2)
    assert log.at_once == 1


def test_rounds_that_hang_hold_up_nobody_else(commit: GroupCommit) -> None:
    """More of them than there are threads; and afterwards there are no more threads than before."""
    go = threading.Event()
    hung = [Log(f"h{n}", commit, lambda: go.wait(60) and None) for n in range(6)]
    for log in hung:
        commit.due(log, now=True)
    flowing = Log("f", commit)
    for n in range(5):
        commit.due(flowing)
        until(lambda n=n: len(flowing.rounds) > n)  # type: ignore[misc]
    go.set()
    until(lambda: all(log.rounds for log in hung))
    until(lambda: sum(thread.name == "wal-commit-worker" for thread in threading.enumerate()) <= 2)


def test_an_error_ends_nothing(commit: GroupCommit, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, the log has its turn again, and the others theirs."""

    def work() -> None:
        if len(broken.rounds) == 1:
            raise RuntimeError("broken")

    broken, sound = Log("broken", commit, work), Log("sound", commit)
    commit.due(broken, now=True)
    until(lambda: len(broken.rounds) == 2)
    commit.due(sound)
    until(lambda: bool(sound.rounds))
    assert [record.getMessage() for record in caplog.records] == [
        "broken: unexpected error in its commit; going on in a second"
    ]


def test_a_round_that_says_when_is_called_again_then(commit: GroupCommit) -> None:
    """Though nobody appends anything."""
    log = Log("l", commit)
    log.work = lambda: time.monotonic() + 0.05 if len(log.rounds) < 3 else None
    commit.due(log)
    until(lambda: len(log.rounds) == 3)
    assert all(b - a >= 0.05 for a, b in zip(log.rounds, log.rounds[1:], strict=False))


def test_closed_it_takes_no_log_and_has_no_thread() -> None:
    """It closes the logs that are open, and again it does nothing."""
    threads = set(threading.enumerate())
    commit = GroupCommit()
    log = Log("l", commit)
    commit.due(log)
    until(lambda: bool(log.rounds))
    assert commit.close(5)
    assert commit.close(5)
    assert log.closed
    until(lambda: set(threading.enumerate()) <= threads)
    with pytest.raises(LogClosed, match="l: its GroupCommit is closed; make another one"):
        Log("l", commit)


def test_a_forked_child_has_no_commit(tmp_path: pathlib.Path) -> None:
    """It says so instead of waiting for threads that are not there, writes nothing, and does not keep the lock."""
    commit = GroupCommit(group_ms=0)
    writer = LogWriter.open(tmp_path, "t", SCHEMA, commit=commit)
    batch = append(writer, 5)
    writer.wait(batch.mark, 20)
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        said = [not writer.close(1), not commit.close(1), writer.stats().rows_appended == 5]
        for attempt in (
            lambda: append(writer, 1),
            lambda: writer.append_seal(b""),
            lambda: LogWriter.open(tmp_path / "other", "u", SCHEMA, commit=commit),
        ):
            try:
                attempt()
            except LogClosed as error:
                said.append("the process forked after" in str(error))
        os.write(writes, repr(said).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writes)
    with os.fdopen(reads) as pipe:
        assert pipe.read() == repr([True] * 6)
    writer.wait(append(writer, 5).mark, 20)
    assert commit.close(5)


def test_a_fork_does_not_keep_the_lock(tmp_path: pathlib.Path) -> None:
    """The child lives on, and the parent's log can be opened when the parent has closed it, or died."""
    commit = GroupCommit(group_ms=0)
    writer = LogWriter.open(tmp_path, "t", SCHEMA, commit=commit)
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        os.close(writes)
        os.read(reads, 1)
        os._exit(0)
    os.close(reads)
    try:
        assert writer.close(5)
        again = LogWriter.open(tmp_path, "t", SCHEMA, commit=commit)
        assert again.close(5)
    finally:
        os.close(writes)
        os.waitpid(child, 0)
    assert commit.close(5)


def test_numbers_out_of_bounds_are_refused() -> None:
    """With what they may be."""
    with pytest.raises(ValueError, match="group_ms=-1; 0 to 60,000"):
        GroupCommit(group_ms=-1)
    with pytest.raises(ValueError, match="threads=0; at least one"):
        GroupCommit(threads=0)
