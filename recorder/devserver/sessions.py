"""Sessions: a connection that outlives its request, with its temporary tables and what SET and USE said.

A request's own settings hold for it alone, in a session too: what they change is put back behind it.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping

from recorder.devserver.engine import Connection
from recorder.devserver.errors import Code, StatementError
from schemas.quote import quote_text

MAX_SESSIONS = 1_000
"""Each has a connection of about 100 kB."""
_WORDS = re.compile(rb"\w+")


class Session:
    """One session, used by one request at a time. Its methods but `expired` block, and follow `open`."""

    def __init__(self, name: str):
        self.name = name
        self.connection: Connection
        self.busy = True
        self._open = False
        self.until_s = 0.0
        self.temporary = False  # whether it may have tables of its own
        self._changed: dict[str, str] | None = None
        self._database: str | None = None
        self._dirty = False

    def expired(self, now_s: float) -> bool:
        """Whether nobody has used it for its timeout."""
        return not self.busy and now_s >= self.until_s

    def open(self, connect: Callable[[], Connection]) -> Connection:
        """Its connection, opened by its first request."""
        if not self._open:
            self.connection = connect()
            self._open = True
        return self.connection

    @property
    def database(self) -> str:
        """What `USE` said in it; empty for nothing."""
        return self._database or ""

    @property
    def timezone(self) -> str:
        """What `SET session_timezone` said in it; empty for nothing."""
        return (self._changed or {}).get("session_timezone", "")

    def close(self) -> None:
        """Close its connection."""
        if self._open:
            self._open = False
            self.connection.close()

    def prepare(self, settings: Mapping[str, str], database: str) -> None:
        """Set what a request wants.

        Raises:
            StatementError: it cannot be had.
        """
        if self._dirty:
            self._clear()
        if self._changed is None or self._database is None:
            rows = self.connection.ask("SELECT name, value FROM system.settings WHERE changed")
            self._changed = {row[0]: row[1] for row in rows if len(row) == 2}
            self._database = self.connection.ask("SELECT currentDatabase()")[0][0]
        self.connection.set(settings)
        if database and database != self._database:
            self.connection.use(database)

    def restore(
        self, settings: Mapping[str, str], database: str, sql: bytes, first: str, *, failed: bool
    ) -> None:
        """Put back what `prepare` changed, unless the statement set it for good."""
        self._dirty = self._dirty or failed
        said = set(_WORDS.findall(sql)) if first == "SET" else set()
        before = self._changed or {}
        for name in settings:
            if name.encode() not in said:
                value = quote_text(before[name]) if name in before else "DEFAULT"
                with contextlib.suppress(StatementError):  # no such setting: the statement failed for it
                    self.connection.run(f"SET {name} = {value}".encode(), "TSV")
        if database and self._database and first != "USE" and database != self._database:
            with contextlib.suppress(StatementError):  # it has been dropped meanwhile
                self.connection.use(self._database)
        if first == "SET":
            self._changed = None
        if first == "CREATE" and b"TEMPORARY" in sql.upper():
            self.temporary = True
        if first in ("USE", "DROP"):
            self._database = None

    def _clear(self) -> None:
        """Hear what a failed statement left."""
        self.connection.clear()
        self._dirty = False


class Sessions:
    """The sessions of a server, by name. On its loop; connections are opened and closed by the callers' threads.

    There are at most `limit`: for one more, the one that would end first ends now.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, limit: int = MAX_SESSIONS):
        self._clock = clock
        self._limit = limit
        self._sessions: dict[str, Session] = {}
        self._gone: list[Session] = []

    def take(self, name: str, *, must_exist: bool) -> Session:
        """The session, busy from now on; a new one where there is none.

        Raises:
            StatementError: another request has it, or it is not there and must be.
        """
        found = self._sessions.get(name)
        if found is not None and found.expired(self._clock()):
            self._gone.append(self._sessions.pop(name))
            found = None
        if found is None:
            if must_exist:
                raise StatementError.ours(Code.SESSION_NOT_FOUND, "Session not found.")
            self._make_room()
            found = self._sessions[name] = Session(name)
            return found
        if found.busy:
            raise StatementError.ours(
                Code.SESSION_IS_LOCKED, f"Session {name} is locked by a concurrent client."
            )
        found.busy = True
        return found

    def _make_room(self) -> None:
        if len(self._sessions) < self._limit:
            return
        idle = [session for session in self._sessions.values() if not session.busy]
        if not idle:
            raise StatementError.ours(
                Code.TOO_MANY_SIMULTANEOUS_QUERIES, f"Too many sessions in use. Maximum: {self._limit}."
            )
        first = min(idle, key=lambda session: session.until_s)
        self._gone.append(self._sessions.pop(first.name))

    def give_back(self, session: Session, timeout_s: float) -> None:
        """The request is done with it; it lives for so long unused."""
        session.busy = False
        session.until_s = self._clock() + timeout_s

    def expired(self) -> list[Session]:
        """Take out those that nobody used in time."""
        late = [session for session in self._sessions.values() if session.expired(self._clock())]
        for session in late:
            del self._sessions[session.name]
        gone, self._gone = self._gone + late, []
        return gone

    def all(self) -> list[Session]:
        """Take all of them out."""
        gone, self._gone = self._gone + list(self._sessions.values()), []
        self._sessions.clear()
        return gone
