"""A session's connection, on the engine itself."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

import chdb
import pytest

from recorder.devserver.engine import Connection
from recorder.devserver.errors import StatementError
from recorder.devserver.sessions import Session

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

LATE = b"SELECT number, throwIf(number = 299999, 'half') FROM numbers(300000) SETTINGS max_block_size = 1000"


def test_what_a_failed_statement_left_is_heard_before_the_next_one(
    chdb_path: pathlib.Path, engine: Client
) -> None:
    """chDB gives the rows that were out when a statement failed to the next one of the connection."""
    session = Session("s")
    connection = session.open(lambda: Connection(chdb.connect(str(chdb_path))))
    try:
        for failed in (False, True):
            session.prepare({}, "")
            with pytest.raises(StatementError, match="half"):
                connection.run(LATE, "TSV")
            session.restore({}, "", LATE, "SELECT", failed=failed)
            if failed:
                session.prepare({}, "")
            heard = connection.ask("SELECT 'mine'")
            assert (heard == [["mine"]]) is failed, "the engine has changed: it no longer needs this"
            while connection.ask("SELECT 'clean'") != [["clean"]]:
                pass
    finally:
        session.close()
