"""The library: record rows from any thread, and wait for them when it matters.

    with Recorder(Settings(target="chdb:///data/db", data_dir="/data")) as rec:
        rec.record("fills", {"fill_id": "f-1", "symbol": "BTCUSDT", ...})
        rec.sync(timeout_s=5)

`record` does no I/O, waits for nothing and never raises because of load (`Intake`, where all rows come in). Everything
else happens on a thread of the recorder's own (`Lifecycle`), with an event loop (`Runtime`).
"""

from __future__ import annotations

import asyncio
import types
import uuid
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Self, TypeVar

from recorder.async_recorder import AsyncRecorder
from recorder.balance import Balance
from recorder.earlier_stats import EarlierStats
from recorder.errors import SettingsError
from recorder.flush_worker import WorkerState
from recorder.given_up import GivenUp
from recorder.intake import Intake
from recorder.lifecycle import Lifecycle, State
from recorder.loop_watch import LoopWatch
from recorder.own_rows import OWN_TABLES
from recorder.packs import packs_of
from recorder.pipeline import Load
from recorder.runtime import Runtime
from recorder.runtime_thread import RuntimeThread
from recorder.settings import Settings
from recorder.sink.base import Sink
from recorder.sink.open import open_sink
from recorder.stats import RetentionStats, SourceCounts
from recorder.waiting import blocked, not_durable, on_loop
from schemas.pack import Pack
from schemas.table import Table

T = TypeVar("T")


class Recorder(Intake):
    """See the module. One recorder may be used from many threads; a forked child needs one of its own.

    `sink` and `packs` replace what the settings name: for tests and for other backends. With `wait_for_database` a
    database that does not answer is no reason not to start: all tables are held until it does. With `logs_of` the logs
    of these tables, and of the recorder's own, are opened, and no others.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        sink: Sink | None = None,
        packs: Sequence[Pack] | None = None,
        wait_for_database: bool = False,
        logs_of: Collection[str] | None = None,
    ):
        self.settings = settings if settings is not None else Settings()
        self.packs = packs_of(self.settings, packs)
        self.run_id = self.settings.run_id
        self._sink = sink
        self._wait_for_database = wait_for_database
        self._logs_of = logs_of
        tables = {table.name: table for pack in self.packs for table in pack.tables}
        if missing := [name for name in OWN_TABLES if name not in tables]:
            raise SettingsError(
                f"packs: {', '.join(self.settings.packs)} lack the recorder's own tables {', '.join(missing)}; "
                'add "core" to packs'
            )
        super().__init__(Lifecycle(tables), tables, self.settings, recorder_run_id=uuid.uuid4().hex)

    # -- lifecycle ----------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Connect, migrate if told to, and open the doors.

        Raises:
            SinkError: the database cannot be opened; the message says why and what to do.
            SchemaError: a migration failed.
            RecorderClosed: it was started before.
        """
        self._life.start(self._new_thread)
        return self

    def _new_thread(self, ended: Callable[[], None]) -> RuntimeThread:
        """The thread that this recorder lives on, not started yet."""
        sink = self._sink if self._sink is not None else open_sink(self.settings, self._tables)
        return RuntimeThread(
            lambda: Runtime(
                self.settings,
                self.packs,
                sink,
                run_id=self.run_id,
                recorder_run_id=self.recorder_run_id,
                wait_for_database=self._wait_for_database,
                logs_of=self._logs_of,
            ),
            shutdown_timeout_s=self.settings.shutdown_timeout_s,
            switch_interval_s=self.settings.switch_interval_s,
            ended=ended,
        )

    def close(self) -> None:
        """Stop taking rows, flush within `shutdown_timeout_s`, count what is left, release everything.

        May be called again, and from another thread: each call returns when the recorder has ended, and raises an
        interrupt (Ctrl-C) then. One that nobody closed is closed when the interpreter exits.
        """
        self._life.close()

    def abort(self) -> None:
        """End a `close` that is under way in another thread now: what memory still holds is counted as shed."""
        self._life.abort()

    def change(self, settings: Settings) -> None:
        """Use other settings from now on, as far as they can change while it runs (`docs/run.md`); the rest stays.

        Raises:
            SettingsError: those of a table do not go together; nothing was changed.
            RecorderClosed, RecorderForked: there is no recorder to change.
        """
        runtime, _ = self._life.running()
        settings.check_tables(self._tables)
        changes = {table.name: settings.for_table(table) for table in self._tables.values()}
        self._life.ask(lambda _: runtime.change(changes))
        self.settings = settings

    @property
    def running(self) -> bool:
        """Whether it takes rows."""
        return self._life.state is State.RUNNING

    @property
    def in_contact(self) -> bool:
        """Whether the database has answered since the start."""
        return self._life.thread is not None and self._life.thread.runtime.contact.made

    @property
    def started(self) -> bool:
        """Whether it ever took rows."""
        return self._life.thread is not None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> AsyncRecorder:
        await asyncio.to_thread(self.start)
        return AsyncRecorder(self)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    # -- waiting ----------------------------------------------------------------------------------------------------

    def sync(self, timeout_s: float | None = None) -> None:
        """Wait until every accepted row of a critical table is durable.

        Raises:
            NotDurable: some are not yet; they are still on their way.
        """
        self._wait(lambda runtime: runtime.sync(), timeout_s, "durable")

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until every accepted row is queryable.

        Raises:
            NotDurable: some are not yet; they are still on their way.
        """
        self._wait(lambda runtime: runtime.flush(), timeout_s, "queryable")

    def _wait(
        self, what: Callable[[Runtime], Coroutine[Any, Any, None]], timeout_s: float | None, state: str
    ) -> None:
        runtime, loop = self._life.running()
        try:
            blocked(on_loop(lambda: what(runtime), loop), timeout_s)
        except TimeoutError:
            raise not_durable(runtime.pipelines, state, timeout_s) from None

    # -- what it tells ------------------------------------------------------------------------------------------------

    @property
    def tables(self) -> Mapping[str, Table]:
        """The tables of the loaded packs, by name."""
        return types.MappingProxyType(self._tables)

    def state_of(self, table: str) -> WorkerState:
        """Whether a table's inserts flow, are retried, or are held."""
        return self._life.running()[0].pipelines[table].state

    def load_of(self, table: str) -> Load:
        """How a table fares."""
        return self._life.running()[0].pipelines[table].load()

    @property
    def sink(self) -> Sink:
        """The sink in use, for questions to the database."""
        return self._life.running()[0].sink

    def ask(self, question: Callable[[Sink], Coroutine[Any, Any, T]], timeout_s: float | None = None) -> T:
        """Ask the sink from any thread: `rec.ask(lambda sink: sink.query("SELECT 1"))`."""
        runtime, loop = self._life.running()
        return asyncio.run_coroutine_threadsafe(question(runtime.sink), loop).result(timeout_s)

    def watch(self, source: str, counts: Callable[[], SourceCounts]) -> None:
        """Show in the metrics what a source left out before it made rows; `counts` is called on the recorder's loop."""
        self._life.running()[0].sources[source] = counts

    def watch_loop(self, loop: LoopWatch) -> None:
        """Raise the alarm when another event loop of the process stands still, too; once the recorder runs."""
        self._life.running()[0].board.loops.append(loop)

    def watch_retention(self, stats: Callable[[], RetentionStats]) -> None:
        """Show how runs of retention stand, and raise the alarm where something is wrong with them; `stats` is called
        on the recorder's loop. Once the recorder runs.
        """
        self._life.running()[0].board.retention = stats

    def balance(self) -> dict[str, Balance]:
        """Per table, where the rows of this run are; after `close`, where they ended."""
        return self._life.ask(lambda runtime: runtime.balance())

    def earlier(self) -> dict[str, EarlierStats]:
        """By table with a log, how far what earlier runs left on it has come; also after `close`."""
        return self._life.ask(
            lambda runtime: {
                name: stats
                for name, pipeline in runtime.pipelines.items()
                if (stats := pipeline.earlier_stats()) is not None
            }
        )

    def unready(self) -> list[str]:
        """Why rows do not reach the database, as `/readyz` says; empty when they do."""
        return self._life.ask(lambda runtime: [*runtime.health.sick(), *runtime.health.unready()])

    @property
    def stuck(self) -> bool:
        """After `close`: calls of the database would not end, and the process should end by `os._exit`."""
        return self._life.thread is not None and self._life.thread.runtime.stuck

    def given_up(self) -> dict[str, GivenUp]:
        """After `close`, by table with such rows: what memory held and did not get in."""
        return self._life.ask(lambda runtime: runtime.given_up())

    def status(self) -> dict[str, Any]:
        """State of everything, ready for JSON: what `/status` shows. Also while it closes, but not after."""
        if self._life.state is not State.CLOSING:
            self._life.running()
        return self._life.ask(lambda runtime: runtime.status())
