"""One run of retention over a database, whoever starts it: the command, a process of its own, or a recorder's thread.

Here are its parts: the runner on what is open, what is asked of each table, and what keeps a second run away. It does
not say when to run, and tells nobody what became of the actions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from recorder.errors import SettingsError
from recorder.log import get_logger
from recorder.redact import redacted
from recorder.retaining.alone import RetentionBusy, alone
from recorder.retaining.book import End, Ended, Told
from recorder.retaining.export import exporter_of, wanted
from recorder.retaining.source import TableSource

if TYPE_CHECKING:
    import pyarrow as pa

    from recorder.retaining.source import Answers
    from recorder.settings import Settings
    from retention.archive import Place, Store
    from retention.archive.server_export import Exporter
    from retention.runner import Outcome, Runner, Subject
    from schemas.executor import SqlExecutor
    from schemas.pack import Pack
    from schemas.table import Table

T = TypeVar("T")
log = get_logger("recorder.retention")

WHY_CHARS = 4_000


@contextlib.contextmanager
def runner_of(
    settings: Settings,
    packs: Sequence[Pack],
    root: str | None = None,
    *,
    writes: bool,
    at_ns: int | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[tuple[Runner, bool]]:
    """A runner on the database of the settings, opened for it, and whether tables of that database carry a TTL; `at_ns`
    as if it were this time. An embedded database must not be open: it is opened without merges.

    Raises:
        Failure, SinkError, StoreError: database or archive cannot be opened; the message says why and what to do.
    """
    from recorder.archive_root import archive_store
    from recorder.reading.reader import open_reader
    from recorder.retaining.policies import quiet

    store = archive_store(settings, root)
    with quiet(settings, writes=writes) as executor, contextlib.closing(open_reader(settings)) as reader:
        yield runner_on(
            executor,
            reader,
            settings,
            packs,
            store,
            merges=not settings.target.embedded,
            at_ns=at_ns,
            on_wait=on_wait,
        )


@contextlib.contextmanager
def runner_beside(
    settings: Settings, packs: Sequence[Pack], check: Callable[[], None]
) -> Iterator[tuple[Runner, bool]]:
    """The same on the embedded engine that this process has open and records into: other handles of it, merges and all.
    `check` is called as rows are read, and what it raises ends the reading.

    Raises:
        Failure, SinkError, StoreError: as `runner_of`.
    """
    from recorder.archive_root import archive_store
    from recorder.reading.database import connect_beside, folder_of
    from recorder.reading.reader import EmbeddedReader
    from recorder.sink import engine_config
    from recorder.sink.engine import open_engine
    from schemas.executor import ClientExecutor

    path = folder_of(settings).resolve()
    store = archive_store(settings)
    with contextlib.ExitStack() as stack:
        client = open_engine(
            path,
            keep_free_bytes=engine_config.keep_free_on(path, settings.engine_keep_free_bytes),
            tmp_dir=settings.data_dir / "tmp",
        )
        stack.callback(client.close)
        reader = stack.enter_context(contextlib.closing(EmbeddedReader(settings, connect=connect_beside)))
        answers = _Checked(reader, check)
        yield runner_on(ClientExecutor(client), answers, settings, packs, store, merges=True)


def carry_out(
    settings: Settings,
    packs: Sequence[Pack],
    opened: contextlib.AbstractContextManager[tuple[Runner, bool]],
    check: Callable[[], None] = lambda: None,
) -> Iterator[Outcome]:
    """Do what is due for all tables on a runner that is opened for it, alone on its database; `check` is called between
    actions.

    Raises:
        RetentionBusy: another run is at work.
        SettingsError: the settings keep all rows, and the database does not.
        Failure, SinkError, StoreError, RetentionForbidden: it cannot begin; the message says why and what to do.
    """
    with alone(settings) as still_alone, opened as (runner, ttl):
        if ttl and settings.ttl is False:
            # The plan goes by what the database remembers. Nobody looks at it here before rows go.
            raise SettingsError(
                f"ttl: is false, so that rows stay, but database {settings.database} is one whose rows expire; nothing "
                'was done: run "recorder migrate up --no-ttl" once, or take the setting away'
            )
        tables = [table for pack in packs for table in pack.tables]
        for subject in subjects_of(settings, tables, ttl=ttl):
            still_alone()
            for outcome in runner.run(subject):
                yield outcome
                still_alone()
                check()
            check()


def said(
    settings: Settings,
    packs: Sequence[Pack],
    opened: contextlib.AbstractContextManager[tuple[Runner, bool]],
    check: Callable[[], None] = lambda: None,
) -> Iterator[Told | End]:
    """`carry_out` for whoever is elsewhere: what it does, and how it ends. Raises nothing."""
    try:
        for outcome in carry_out(settings, packs, opened, check):
            yield Told.of(outcome)
    except GeneratorExit:
        raise
    except RetentionBusy as error:
        yield End(how=Ended.LEFT, why=redacted(str(error)))
    except SystemExit:
        yield End(how=Ended.STOPPED)
    except BaseException as error:
        log.debug("a run of retention ended", exc_info=True)
        text = " ".join(str(getattr(error, "message", "") or error).split())
        yield End(how=Ended.FAILED, why=redacted(text or type(error).__name__)[:WHY_CHARS])
    else:
        yield End(how=Ended.DONE)


def runner_on(
    executor: SqlExecutor,
    answers: Answers,
    settings: Settings,
    packs: Sequence[Pack],
    store: Store,
    *,
    merges: bool,
    at_ns: int | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> tuple[Runner, bool]:
    """A runner on what is open, and whether tables of that database carry a TTL; `merges`: the engine merges now."""
    from recorder.archive_room import see_room, written_to
    from recorder.bars.proof import BarsProof
    from recorder.retaining.rows_on_logs import RowsOnLogs
    from recorder.schema_start import manager_of
    from recorder.version import version
    from retention.runner import Runner

    def exporter(place: Place, parts: Sequence[str]) -> Exporter:
        source = PartsSource(answers, settings.database, place, parts)
        return exporter_of(executor, source, settings, on_wait or log.info)

    folder = written_to(settings, store)
    archived = _Checked(answers, lambda: see_room(folder))
    manager = manager_of(executor, settings, packs, on_wait)
    # In the process of a recorder nobody could end what the engine writes.
    exports = not settings.target.embedded and wanted(settings, store)
    runner = Runner(
        executor,
        settings.database,
        store=store,
        source_of=lambda place, parts: PartsSource(archived, settings.database, place, parts),
        exporter_of=exporter if exports else None,
        alter_ttl=lambda table: manager.apply_ttl([table]),
        lock=manager.alone,
        recorder_version=version(),
        merges=merges,
        barring=BarsProof(executor, settings.database),
        now_ns=None if at_ns is None else lambda: at_ns,
        pending_oldest_ns=RowsOnLogs(settings.log_folders).oldest_ns,
    )
    return runner, manager.ttl_enabled()


def subjects_of(settings: Settings, wanted: Sequence[Table], *, ttl: bool) -> list[Subject]:
    """What the settings ask of these tables.

    Raises:
        SettingsError: they contradict themselves.
    """
    from recorder.retaining.policies import policy_of
    from retention.runner import Subject

    policies = [(policy_of(settings, table, ttl=ttl), table.policy) for table in wanted]
    # A table before the one that its partitions move to, so that what has moved is looked at in the same run.
    return [
        Subject(each, kept)
        for policy, kept in policies
        for each in (policy, policy.of_tier())
        if each is not None
    ]


class _Checked:
    """Answers that end where a check raises."""

    def __init__(self, answers: Answers, check: Callable[[], None]):
        self._answers, self._check = answers, check

    def arrow(self, sql: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The rows of a statement, batch by batch."""
        schema, batches = self._answers.arrow(sql)
        return schema, self._each(batches)

    def stream(self, sql: str, clickhouse_format: str) -> Iterator[bytes]:
        """The answer in the given format, piece by piece."""
        return self._each(self._answers.stream(sql, clickhouse_format))

    def _each(self, pieces: Iterator[T]) -> Iterator[T]:
        for piece in pieces:
            self._check()
            yield piece


class PartsSource(TableSource):
    """The rows of some parts of a partition, for the archive."""

    def __init__(self, answers: Answers, database: str, place: Place, parts: Sequence[str]):
        from retention.live_parts import parts_filter
        from schemas.quote import quote_name

        super().__init__(answers, database, place)
        self._from = f"FROM {quote_name(database)}.{quote_name(place.table)} WHERE {parts_filter(parts)}"
