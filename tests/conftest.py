"""What tests share: one embedded engine for the session, a fresh database for each test, the captures if present.

chDB takes one engine path a process, so every test of this process works in its own database of the same engine;
tests that need another engine (a kill, a second process) start a child process.
"""

from __future__ import annotations

import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

CAPTURES = pathlib.Path(
    os.environ.get("RECORDER_TEST_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data")
)


@pytest.fixture(scope="session")
def chdb_path(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of the session's one embedded engine."""
    return tmp_path_factory.mktemp("chdb") / "db"


@pytest.fixture(scope="session")
def engine(chdb_path: pathlib.Path) -> Iterator[Client]:
    """A client of the session's engine, for what tests ask beside the code under test."""
    import clickhouse_connect

    client = clickhouse_connect.get_client(interface="chdb", path=str(chdb_path))
    yield client
    client.close()  # an open handle at interpreter exit crashes the process


@pytest.fixture
def database(engine: Client) -> Iterator[str]:
    """A fresh database, dropped after the test."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    engine.command(f"CREATE DATABASE {name}")
    yield name
    engine.command(f"DROP DATABASE IF EXISTS {name} SYNC")


@pytest.fixture(scope="session")
def captures() -> pathlib.Path:
    """The folder of recorded market data."""
    if not CAPTURES.is_dir():
        pytest.skip(f"no recorded market data at {CAPTURES} (RECORDER_TEST_DATA names another folder)")
    return CAPTURES
