"""One run of retention at a time on a database, whoever begins it and from wherever."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from harness.backends import Backend
from harness.recorders import settings_for, wait_until

from recorder.retaining.alone import LOCK_TABLE, RetentionBusy, alone
from schemas import lease_keeper
from schemas.executor import ClientExecutor
from schemas.lock import LEASE_S, MigrationLock

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

HOLDER = """
import sys, time
from recorder.retaining.alone import alone
from recorder.settings import Settings
with alone(Settings(target=sys.argv[1], database=sys.argv[2], data_dir=sys.argv[3])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_run_is_refused_and_a_later_one_is_not(
    backend: Backend, database: str, tmp_path: pathlib.Path
) -> None:
    """Told who is at work; on a server from another data folder too. When the first has ended, the next one works."""
    first = settings_for(backend, database, tmp_path / "one")
    second = first if backend.embedded else settings_for(backend, database, tmp_path / "two")
    for _ in range(2):
        with alone(first) as check:
            check()
            with pytest.raises(RetentionBusy, match="another run of retention"), alone(second):
                pytest.fail("two at once")


def test_a_run_that_was_killed_keeps_nobody_away(
    backend: Backend, database: str, tmp_path: pathlib.Path
) -> None:
    """SIGKILL of the process that held it: the next run on that machine begins at once."""
    settings = settings_for(backend, database, tmp_path)
    if backend.embedded:
        pytest.skip("the engine is open here; its file lock ends with the process by the system's own rule")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, backend.target, database, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(RetentionBusy), alone(settings):
            pytest.fail("two at once")
        process.kill()
    with alone(settings) as check:
        check()


def test_a_run_renews_its_lock_and_notices_that_it_was_taken_over(
    client: Client, backend: Backend, database: str, tmp_path: pathlib.Path
) -> None:
    """As when the machine was asleep for longer than the lease: it stops at its next step."""
    if backend.embedded:
        pytest.skip("an embedded database has one process")
    lock = MigrationLock(ClientExecutor(client), database, owner="other", table=LOCK_TABLE)
    with contextlib.ExitStack() as stack:
        check = stack.enter_context(alone(settings_for(backend, database, tmp_path), renew_s=0.05))
        check()
        assert lock._take(2)

        def noticed() -> bool:
            try:
                check()
            except RetentionBusy:
                return True
            return False

        wait_until(noticed, "the loss of the lock")
        with pytest.raises(RetentionBusy, match="took over"):
            check()
    assert [state.generation for state in lock.states()] == [2], "the other one still holds it"


def test_a_run_whose_machine_slept_looks_before_its_next_step(
    client: Client, backend: Backend, database: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its thread, whose waiting does not count the sleep, has not asked since."""
    if backend.embedded:
        pytest.skip("an embedded database has one process")
    lock = MigrationLock(ClientExecutor(client), database, owner="other", table=LOCK_TABLE)
    with alone(settings_for(backend, database, tmp_path), renew_s=3_600) as check:
        assert lock._take(2)
        check()
        slept_until_s = lease_keeper.awake_s() + LEASE_S + 1
        monkeypatch.setattr(lease_keeper, "awake_s", lambda: slept_until_s)
        with pytest.raises(RetentionBusy, match="took over"):
            check()


def test_a_database_that_is_not_there_needs_no_lock(
    backend: Backend, database: str, tmp_path: pathlib.Path
) -> None:
    """Nothing can be done twice in it."""
    with alone(settings_for(backend, f"{database}_none", tmp_path)) as check:
        check()
