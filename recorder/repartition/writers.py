"""Who else writes to the table: earlier runs that still do are ended, recorders and others are only looked for.

An embedded database has one process: there nobody else can be.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from recorder.repartition.errors import CannotRepartition
from recorder.repartition.pair import Pair
from schemas.quote import quote_text

QUIET_S = 2.0
"""The table must have no new rows for so long, for nobody to write to it."""
ENDED_S = 60.0
"""Within that a statement ends that was waited for."""
_POLL_S = 0.1


class Writers:
    """Whoever else may write. `embedded`: nobody can. `sleep` waits for that many seconds."""

    def __init__(
        self,
        pair: Pair,
        *,
        embedded: bool,
        quiet_s: float = QUIET_S,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._pair, self._embedded = pair, embedded
        self._quiet_s, self._sleep = quiet_s, sleep

    def end_earlier(self) -> None:
        """End what a killed run, or one that lost the lock, still has running on the server.

        Raises:
            CannotRepartition: it does not end.
        """
        if self._embedded:
            return
        executor = self._pair.executor
        mine = f"Settings['log_comment'] = {quote_text(self._pair.log_comment)}"
        running = f"SELECT count() FROM system.processes WHERE {mine}"
        if not int(executor.query(running)[0][0]):
            return
        executor.command(f"KILL QUERY WHERE {mine} ASYNC")
        self._wait_until(
            lambda: not int(executor.query(running)[0][0]),
            "an earlier run's insert goes on; wait until it has ended and run this again",
        )

    def check_quiet(self) -> None:
        """Nobody inserts now.

        Raises:
            CannotRepartition: somebody does.
        """
        if self._embedded:
            return
        before = self._inserted()
        self._sleep(self._quiet_s)
        if self._inserting() or self._inserted() != before:
            raise CannotRepartition(
                f"{self._pair.database}.{self._pair.table}: rows are being inserted; stop its recorders and whoever "
                "else writes, and run this again. What is copied stays"
            )

    def wait_for_inserts(self) -> None:
        """Who began to insert before the names were swapped writes to the old table still: wait for its end.

        Raises:
            CannotRepartition: it does not end.
        """
        if self._embedded:
            return
        begun = self._inserting()
        self._wait_until(
            lambda: begun.isdisjoint(self._inserting()),
            f"an insert goes on that began before {self._pair.beside} was replaced; wait until it has ended and run "
            "this again",
        )

    def _wait_until(self, true: Callable[[], bool], otherwise: str) -> None:
        deadline_s = time.monotonic() + ENDED_S
        while not true():
            if time.monotonic() >= deadline_s:
                raise CannotRepartition(f"{self._pair.database}.{self._pair.table}: {otherwise}")
            self._pair.renew()
            self._sleep(_POLL_S)

    def _inserting(self) -> set[str]:
        rows = self._pair.executor.query(
            "SELECT query_id FROM system.processes WHERE query_kind = 'Insert' "
            "AND position(query, {table:String}) > 0 "
            "AND (current_database = {db:String} OR position(query, {db:String}) > 0)",
            {"db": self._pair.database, "table": self._pair.table},
        )
        return {str(row[0]) for row in rows}

    def _inserted(self) -> int:
        return self._pair.count_where(self._pair.table, "1")
