"""One copy into a database of a server at a time, by a lock in it: others are told, and one that lost it stops."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Iterator

import pytest
from harness.backends import Backend

from recorder.cli import copy_alone
from recorder.cli.copy_alone import LOCK_TABLE, alone
from recorder.cli.errors import Failure
from recorder.copying import CopyStopped
from recorder.settings import Settings
from recorder.sink.errors import SinkUnavailable
from schemas.errors import LockLost
from schemas.executor import ClientExecutor
from schemas.lock import MigrationLock


@pytest.fixture
def settings(backend: Backend, tmp_path: pathlib.Path) -> Iterator[Settings]:
    with backend.fresh_database() as database:
        yield Settings(target=backend.target, database=database, data_dir=tmp_path)


def until_raised(check: Callable[[], None], expected: type[Exception]) -> str:
    end_s = time.monotonic() + 20
    while time.monotonic() < end_s:
        try:
            check()
        except expected as error:
            return str(error)
        time.sleep(0.01)
    pytest.fail(f"no {expected.__name__} within 20 s")


def test_one_at_a_time_and_the_loser_is_told(backend: Backend, settings: Settings) -> None:
    """A second copy is refused and told who is at work; one whose lock was taken over hears so, with no insert of its
    own to ask; afterwards the lock is free."""
    if backend.embedded:
        with alone(settings) as check, alone(settings):
            check()  # the engine lets one process in
        return
    with alone(settings, renew_s=0.05) as check:
        check()
        with (
            pytest.raises(
                Failure, match=r"another copy into .* is running \(.+:\d+:.*wait until it has ended"
            ),
            alone(settings),
        ):
            pytest.fail("both are inside")
        successor = f"{settings.database}.{LOCK_TABLE}_{10:06}"
        backend.client.command(f"CREATE TABLE {successor} (unused UInt8) ENGINE = Null")
        assert "run the same command again" in until_raised(check, CopyStopped)
        with pytest.raises(CopyStopped, match="another one took over"):
            check()
        backend.client.command(f"DROP TABLE {successor} SYNC")
    with alone(settings) as check:
        check()


def test_the_lock_is_renewed_while_nobody_asks(backend: Backend, settings: Settings) -> None:
    """A comparison that is longer than the lease does not lose the lock."""
    if backend.embedded:
        pytest.skip("it has no lock")
    lock = MigrationLock(ClientExecutor(backend.client), settings.database, owner="me", table=LOCK_TABLE)

    def renewed() -> object:
        return backend.client.query(
            "SELECT max(metadata_modification_time) FROM system.tables "
            f"WHERE database = '{settings.database}' AND startsWith(name, '{LOCK_TABLE}')"
        ).result_rows[0][0]

    with alone(settings, renew_s=0.05):
        before, end_s = renewed(), time.monotonic() + 20
        while renewed() == before:
            assert time.monotonic() < end_s
            time.sleep(0.05)
        assert not lock.states()[-1].is_takeable
    assert lock.states()[-1].free


def test_a_lock_that_nobody_could_renew_is_asked_for_before_an_insert(
    backend: Backend, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a long silence the target is asked: without an answer no row is sent now, and one that says it was taken
    over ends the copy."""
    if backend.embedded:
        pytest.skip("it has no lock")
    answers = [OSError("away"), LockLost("taken over")]
    with alone(settings) as check:
        monkeypatch.setattr(copy_alone, "FRESH_S", 0)
        check()

        def renew(*_: object, **__: object) -> None:
            raise answers.pop(0)

        monkeypatch.setattr("schemas.lock.Lease.renew", renew)
        with pytest.raises(SinkUnavailable, match="cannot be renewed: away"):
            check()
        with pytest.raises(CopyStopped, match="another one took over"):
            check()
