"""One statement on the engine, from its text to its outcome: what is let through, its settings, its place of output."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from recorder.devserver import readers
from recorder.devserver.body import Whole
from recorder.devserver.engine import MARK, SERVER_LIKE, Connection, Engine, Judged, Outcome
from recorder.devserver.errors import Code, StatementError
from recorder.devserver.request import Request, up_to
from recorder.devserver.running import Run, Running
from recorder.devserver.sessions import Session
from recorder.devserver.statement import Query, query_of
from schemas.quote import quote_name, quote_text

_OF_PROCESS = frozenset(("python",))
"""Table functions of chDB that read objects of this very process."""
_OF_FILES = frozenset(("file", "catboostevaluate"))
"""Functions that read files and that the engine's `readonly` lets through."""
_OF_TEXT = frozenset(("eval",))
"""Table functions that run a text which nobody here has looked at."""
_SESSION_WORDS = frozenset(("SET", "USE"))


@dataclass(frozen=True)
class Job:
    """A statement ready to run. `data` is the path of the file with an insert's data."""

    request: Request
    whole: Whole
    query: Query
    run: Run
    data: str

    @classmethod
    def of(cls, request: Request, whole: Whole, data: str) -> Job:
        """What a request wants to run."""
        return cls(request, whole, query_of(whole.text), Run(request.query_id), data)


class Executor:
    """Runs jobs on the engine; on threads.

    `settings` hold for every statement, whatever a request says; of `limits` it may have
    less, not more. `read_only` lets nothing change, whoever asks, and keeps the table functions `reaching` from being
    called.
    """

    def __init__(
        self,
        engine: Engine,
        running: Running,
        database: str,
        *,
        settings: Mapping[str, str],
        limits: Mapping[str, int],
        read_only: bool,
        reaching: frozenset[str],
    ):
        self._engine = engine
        self._running = running
        self._database = database
        self._read_only = read_only
        self._settings = dict(settings)
        self._limits = dict(limits)
        self._reaching = reaching | _OF_FILES | _OF_TEXT

    def execute(self, job: Job, session: Session | None, output: str) -> Outcome:
        """Run it, with its answer into the file `output`, where it is one that answers with rows.

        Raises:
            StatementError: it is not let through, or failed.
        """
        if session is None or self._read_only:
            with self._engine.connection() as connection:
                return self._fresh(connection, job, output)
        return self._in_session(session, job, output)

    def _fresh(self, connection: Connection, job: Job, output: str) -> Outcome:
        settings = dict(job.request.settings)
        if self._read_only:
            readers.may_set(settings)
        level = self._readonly(job.request, settings.pop("readonly", "0"))
        connection.set({**SERVER_LIKE, **settings, **self._fixed(settings), MARK: job.run.mark})
        judged = self._judge(connection, job)
        self._let_through(judged, job, readonly=level != "0")
        job.run.timezone = job.query.timezone or settings.get("session_timezone", "")
        if (database := job.request.database or self._database) != "default":
            connection.use(database)
        self._bring(connection, job)
        if level != "0":
            connection.set({"readonly": level})
        self._look_ahead(connection, job, own_tables=bool(job.whole.tables))
        return self._run(connection, job, judged, output)

    def types(self, job: Job, session: Session | None) -> list[str]:
        """The types of the columns that a statement answers with; none where that cannot be said."""
        if job.run.types is not None:
            return job.run.types
        request = job.request
        settings = {name: value for name, value in request.settings.items() if name != "readonly"}
        database = request.database or (session.database if session is not None else "") or self._database
        with contextlib.suppress(StatementError), self._engine.connection() as connection:
            connection.set({**SERVER_LIKE, **settings, **self._fixed(settings)})
            if database != "default":
                connection.use(database)
            connection.set({"readonly": "1" if self._read_only else "2"})
            return _types(connection, job)
        return []

    def _look_ahead(self, connection: Connection, job: Job, *, own_tables: bool) -> None:
        """Ask for a statement's types while its tables can be seen: other connections have not got them."""
        if own_tables and job.query.answers and "Native" in (job.query.format, job.request.default_format):
            try:
                job.run.types = _types(connection, job)
            except StatementError:  # the statement itself says why
                connection.clear()

    def _in_session(self, session: Session, job: Job, output: str) -> Outcome:
        connection = session.open(self._connect)
        asked = job.request.settings
        settings: dict[str, str] = {**asked, **self._fixed(asked), MARK: job.run.mark}
        # In a session it could not be taken back: what the engine judges the statement to be stands for it.
        level = self._readonly(job.request, settings.pop("readonly", "0"))
        failed = True
        try:
            session.prepare(settings, job.request.database)
            self._bring(connection, job)
            judged = self._judge(connection, job)
            self._let_through(judged, job, readonly=level != "0")
            job.run.timezone = job.query.timezone or settings.get("session_timezone", "") or session.timezone
            self._look_ahead(connection, job, own_tables=bool(job.whole.tables) or session.temporary)
            outcome = self._run(connection, job, judged, output)
            failed = False
            return outcome
        finally:
            for table in job.whole.tables:
                connection.run(f"DROP TEMPORARY TABLE IF EXISTS {quote_name(table.name)}".encode(), "TSV")
            session.restore(settings, job.request.database, job.whole.text, job.query.first, failed=failed)

    def _fixed(self, asked: Mapping[str, str]) -> dict[str, str]:
        """The settings that hold where these are asked for."""
        within = {
            name: str(up_to(asked.get(name, ""), most, otherwise=most)) for name, most in self._limits.items()
        }
        return {**within, **self._settings}

    def _connect(self) -> Connection:
        """A connection for a session."""
        connection = self._engine.connect()
        connection.set(SERVER_LIKE)
        return connection

    def _bring(self, connection: Connection, job: Job) -> None:
        """Make the tables that a request brings along."""
        for table in job.whole.tables:
            if self._read_only:
                raise StatementError.ours(
                    Code.READONLY, "This server only answers questions; it takes no tables along."
                )
            name = quote_name(table.name)
            connection.run(f"CREATE TEMPORARY TABLE {name} ({table.structure})".encode(), "TSV")
            source = f"INSERT INTO {name} FROM INFILE '{table.path}' FORMAT {quote_name(table.format)}"
            connection.run(source.encode(), "TSV")

    def _readonly(self, request: Request, wanted: str) -> str:
        if self._read_only:
            return "1"
        if request.readonly_method and wanted == "0":
            return "2"
        return wanted

    def _judge(self, connection: Connection, job: Job) -> Judged:
        if job.whole.insert is not None:
            return Judged("MUTATING", 1)
        return connection.judge(job.query.sql)

    def _let_through(self, judged: Judged, job: Job, *, readonly: bool) -> None:
        query = job.query
        if query.empty:
            raise StatementError.ours(
                Code.SYNTAX_ERROR, "Syntax error: failed at position 1 (end of query): Empty query."
            )
        unread = query.unread
        if unread is not None and (self._read_only or unread.text.startswith(b"$")):
            raise StatementError.ours(
                Code.SYNTAX_ERROR,
                f"Syntax error: failed at position {unread.start + 1}: what begins there is not closed.",
            )
        if judged.count > 1:
            raise StatementError.ours(Code.SYNTAX_ERROR, "Syntax error: Multi-statements are not allowed.")
        if query.outfile and not query.inserts:
            raise StatementError.ours(Code.INTO_OUTFILE_NOT_ALLOWED, "INTO OUTFILE is not allowed.")
        if called := query.calls & _OF_PROCESS:
            raise StatementError.ours(
                Code.SUPPORT_IS_DISABLED,
                f"{min(called)}() reads objects of the server's process, which is not served.",
            )
        if self._read_only:
            self._only_reads(judged, job)
        if readonly and (judged.writes or query.inserts):
            raise StatementError.ours(Code.READONLY, _readonly_message(job.request))

    def _only_reads(self, judged: Judged, job: Job) -> None:
        query = job.query
        readers.may_ask(query, job.request.parameters, _OF_FILES)
        known = judged.kind == "UNKNOWN" or judged.reads or query.first in _SESSION_WORDS
        if not known or query.calls & self._reaching:
            raise StatementError.ours(
                Code.READONLY, "Cannot execute query in readonly mode: this server only answers questions."
            )

    def _run(self, connection: Connection, job: Job, judged: Judged, output: str) -> Outcome:
        job.run.check()
        request, insert = job.request, job.whole.insert
        sql = job.query.sql
        if insert is not None:
            sql = insert.from_file(job.data)
        elif job.query.answers and judged.count == 1 and not judged.writes:
            sql = self._led_away(connection, self._with_own_ids(job.query), output)
        elif job.query.strings and job.query.first == "KILL":
            sql = self._with_own_ids(job.query).sql
        return connection.run(sql, request.default_format, request.parameters)

    def _led_away(self, connection: Connection, query: Query, output: str) -> bytes:
        """The statement with its answer into the file `output`, as the engine's parser takes it."""
        for sql in query.into_file(output):
            if connection.judge(sql).count == 1:
                return sql
        return query.sql  # its answer comes whole, in memory

    def _with_own_ids(self, query: Query) -> Query:
        """The statement with query ids of running statements as the engine calls them."""
        pieces: list[bytes] = []
        known: dict[str, str | None] = {}
        at = 0
        for token in query.strings:
            run = self._running.by_id(token.text[1:-1].decode("utf-8", "replace"))
            if run is None:
                continue
            if run.mark not in known:
                known[run.mark] = self._engine.own_query_id(run.mark)
            if (own := known[run.mark]) is not None:
                pieces += (query.sql[at : token.start], quote_text(own).encode())
                at = token.end
        return query_of(b"".join((*pieces, query.sql[at:]))) if pieces else query


def _types(connection: Connection, job: Job) -> list[str]:
    sql = b"DESCRIBE TABLE (%s\n)" % job.query.sql[: job.query.places[0]]
    told = connection.run(sql, "JSONCompactEachRow", job.request.parameters).rest.decode("utf-8", "replace")
    return [json.loads(line)[1] for line in told.split("\n") if line]


def _readonly_message(request: Request) -> str:
    if request.readonly_method:
        return (
            "Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly. "
            "You should use method POST for modifying queries."
        )
    return "Cannot execute query in readonly mode."
