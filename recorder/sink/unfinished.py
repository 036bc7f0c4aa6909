"""Inserts until they are known to have ended, and how one that hangs is cut.

1. After its time an insert, found by its token in `log_comment`, is killed from another handle.
2. `InsertTimeout` is raised only when the call has ended *and* the server runs nothing under that token. Then
   the next look-up is final: no late commit follows it.
3. If that does not come true within `kill_wait_s`, `InsertStillRunning` is raised. Until the old insert has
   ended, both `insert` and `look_up` of that batch raise it too, so that a look-up which answers is always
   final, and a token never runs twice.
4. An insert that was given up in any other way (cancelled, connection lost) is killed, or seen to be gone,
   before its batch is looked up or sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future

from clickhouse_connect.driver.client import Client

from recorder.batch import Batch
from recorder.sink.errors import InsertStillRunning, SinkError, SinkUnavailable
from recorder.sink.handles import Handles, ended

log = logging.getLogger(__name__)


class UnfinishedInserts:
    """See the module. The inserts of one sink, by token; `kills` are the handles that ask about them.

    `kill` asks what runs under a token to stop, and `runs` whether it does, wherever it was sent; `resolved` is told of
    a token under which nothing can commit any more; `told` says what an error of a call means.
    """

    def __init__(
        self,
        kills: Handles,
        *,
        kill: Callable[[Client, str], None],
        runs: Callable[[Client, str], bool],
        resolved: Callable[[str], None],
        told: Callable[[BaseException, str], SinkError],
        kill_wait_s: float,
    ):
        self._kills = kills
        self._kill = kill
        self._runs = runs
        self._resolved = resolved
        self._told = told
        self._kill_wait_s = kill_wait_s
        self._running: dict[str, Future[None]] = {}  # token -> its call has not returned
        self._doubtful: set[str] = set()  # tokens whose call ended without the server's word

    def began(self, token: str, call: Future[None]) -> None:
        """An insert is under way."""
        self._running[token] = call
        call.add_done_callback(lambda _: self._running.pop(token, None))

    def doubt(self, token: str) -> None:
        """Its call ended, or nobody waits for it any more, and the server did not say what became of it."""
        self._doubtful.add(token)

    async def see_ended(self, batch: Batch) -> None:
        """Return when no insert of this batch can commit any more; else raise `InsertStillRunning`."""
        if batch.token in self._running:
            raise _still_running(batch, "is still running")
        if batch.token in self._doubtful:
            self.ask_to_stop(batch.token)
            if why := await self._why_doubtful(batch.token):
                raise _still_running(batch, f"may still be running ({why})")
            self._resolve(batch.token)

    async def cut(self, batch: Batch, call: Future[None], timeout_s: float) -> None:
        """Kill an insert that passed its limit; return once it has ended here and on the server.

        Raises:
            InsertStillRunning: it has not within `kill_wait_s`.
        """
        self.doubt(batch.token)
        self.ask_to_stop(batch.token)
        deadline_s = time.monotonic() + self._kill_wait_s
        if await ended(call, self._kill_wait_s):
            while True:
                if not await self._why_doubtful(batch.token):
                    self._resolve(batch.token)
                    return
                if time.monotonic() > deadline_s:
                    break
                await asyncio.sleep(0.05)
        how = f"passed its limit of {timeout_s:g} s and could not be killed within {self._kill_wait_s:g} s"
        raise _still_running(batch, how)

    def ask_to_stop(self, token: str) -> None:
        """Ask the server to kill it, and wait for nothing."""

        def kill(client: Client) -> None:
            try:
                self._kill(client, token)
            except Exception as error:  # noqa: BLE001 - whether it runs is asked next, and decides
                log.debug("%s", self._told(error, f"killing the insert under token {token}"))

        with contextlib.suppress(SinkUnavailable):  # closed meanwhile
            self._kills.submit(kill)

    def ask_all_to_stop(self) -> None:
        """The same of all whose calls have not returned."""
        for token in list(self._running):
            self.ask_to_stop(token)

    async def _why_doubtful(self, token: str) -> str:
        """Why an insert under this token may yet commit; empty where the server runs none."""
        answer = self._kills.submit(lambda client: self._runs(client, token))
        if not await ended(answer, self._kill_wait_s):
            answer.cancel()
            return f"the server did not say within {self._kill_wait_s:g} s"
        if error := answer.exception():
            return str(self._told(error, "asking the server"))
        return "the server runs it" if answer.result() else ""

    def _resolve(self, token: str) -> None:
        self._doubtful.discard(token)
        self._resolved(token)


def _still_running(batch: Batch, how: str) -> InsertStillRunning:
    return InsertStillRunning(
        f"{batch.table}: insert of {batch.rows} rows under token {batch.token} {how}; "
        "neither looked up nor sent again before it has ended"
    )
