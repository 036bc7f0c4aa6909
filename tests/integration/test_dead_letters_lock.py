"""Laws of the lock of retries, on real databases."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from harness.backends import Backend

from recorder.dead_letters.one_at_a_time import LOCK_TABLE, RetryBusy, RetryForbidden, one_at_a_time
from schemas.executor import ClientExecutor

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


@pytest.fixture
def second(backend: Backend) -> Iterator[Client]:
    """Another client of the same database."""
    client = backend.open_client()
    yield client
    client.close()


async def test_the_second_waits_for_the_first_and_knows_who_it_is(
    client: Client, second: Client, database: str
) -> None:
    """Never both: it begins when the first has ended."""
    waits = asyncio.Event()
    inside: list[str] = []

    async def other() -> None:
        async with one_at_a_time(
            ClientExecutor(second), database, wait_s=60, on_wait=lambda who: waits.set()
        ):
            inside.append("second")

    async def first() -> asyncio.Task[None]:
        async with one_at_a_time(ClientExecutor(client), database, wait_s=0):
            task = asyncio.create_task(other())
            await waits.wait()
            inside.append("first")
            return task

    await (await first())
    assert inside == ["first", "second"]


async def test_who_does_not_want_to_wait_is_told(client: Client, second: Client, database: str) -> None:
    """With the holder's name, and what to do."""
    async with one_at_a_time(ClientExecutor(client), database, wait_s=0):
        with pytest.raises(RetryBusy, match=r"another retry of dead letters is at work \(.+\).*run again"):
            async with one_at_a_time(ClientExecutor(second), database, wait_s=0):
                pytest.fail("both are inside")


async def test_a_retry_that_lost_its_lock_ends(client: Client, second: Client, database: str) -> None:
    """It was silent for so long that another took over: what it is at is cancelled, and it says so."""

    async def retry() -> None:
        async with one_at_a_time(ClientExecutor(client), database, wait_s=0, renew_s=0.01):
            second.command(f"CREATE TABLE {database}.{LOCK_TABLE}_000002 (unused UInt8) ENGINE = Null")
            await asyncio.sleep(60)

    with pytest.raises(RetryBusy, match="another took over"):
        await retry()


async def test_a_user_without_the_right_is_told_which() -> None:
    """There are no users to take it from in the embedded engine: the answer is made up."""

    class Forbidden:
        def command(self, sql: str) -> object:
            raise RuntimeError("Code: 497. DB::Exception: Not enough privileges")

        def query(self, sql: str, parameters: Any = None) -> list[Any]:
            return [] if "system.tables" in sql else [[0]]

    with pytest.raises(RetryForbidden, match="GRANT CREATE TABLE"):
        async with one_at_a_time(Forbidden(), "db", wait_s=0):
            pytest.fail("it has no lock")
