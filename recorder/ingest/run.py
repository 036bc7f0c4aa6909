"""A run over files: check all of them, then record one after another, then wait until every row is queryable.

The calling thread looks after the run and a thread of its own does the work (`Feed`), so that Ctrl-C, a held table
and the progress display are answered while the worker waits for room.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import threading
import time
from collections.abc import Callable, Sequence

from recorder.balance import Balance
from recorder.errors import NotDurable
from recorder.ingest.age import OldRows, live_ttls
from recorder.ingest.errors import TableHeld
from recorder.ingest.feed import Feed
from recorder.ingest.options import IngestOptions
from recorder.ingest.result import FileResult, IngestResult, Progress
from recorder.ingest.source import Source, inspect
from recorder.normalise.order_ids import OrderIds
from recorder.normalise.order_ids_load import load_order_ids
from recorder.own_rows import DEAD_LETTERS
from recorder.queries import RecorderQueries
from recorder.recorder import Recorder

TICK_S = 0.1
"""How often the run is looked at, and progress told."""
HELD_CHECK_S = 1.0
LOAD_S = 30.0
"""How long a run waits for what the database knows of orders; without it rows stay as they come."""
STOP_GRACE_S = 5.0
"""How long a stopped run may take to hand over what it has begun."""

OnProgress = Callable[[Progress], None]


def run_ingest(
    recorder: Recorder,
    files: Sequence[pathlib.Path | str],
    options: IngestOptions | None = None,
    on_progress: OnProgress | None = None,
    *,
    stop: threading.Event | None = None,
) -> IngestResult:
    """Record files through a started recorder, in the order given; every file is checked before the first row.

    `stop`, or Ctrl-C on the calling thread, ends the run after the rows under way; they are flushed, and the result
    says `interrupted`. Running again with the same files adds nothing twice.

    Raises:
        IngestError: a file, the options or a held table is at fault.
        RecorderError: the recorder does not take rows.
    """
    return _Run(recorder, options or IngestOptions(), on_progress or (lambda progress: None), stop).over(
        files
    )


class _Run:
    """One run's state, owned by the thread that called `run_ingest`."""

    def __init__(
        self,
        recorder: Recorder,
        options: IngestOptions,
        on_progress: OnProgress,
        stop: threading.Event | None,
    ):
        self._recorder = recorder
        self._options = options
        self._on_progress = on_progress
        self._stop = stop or threading.Event()
        self._started_s = time.monotonic()
        self._phase = "checking"
        self._done_bytes = 0
        self._total_bytes = 0
        self._held_since: dict[str, float] = {}
        self._held_why = ""
        self._next_held_check_s = 0.0
        self._before = recorder.balance()
        settings = recorder.settings
        tables = recorder.tables
        resolved = {name: settings.for_table(table) for name, table in tables.items()}
        ttls = recorder.ask(
            lambda sink: live_ttls(sink, settings.database), timeout_s=settings.insert_timeout_s
        )
        self._old = OldRows(ttls, skip=options.skip_old)
        self._feed = Feed(
            recorder,
            tables,
            options,
            self._old,
            order_ids=OrderIds(settings.order_ids_max),
            load_order_ids=self._load_order_ids,
            disabled=frozenset(name for name, table in resolved.items() if not table.enabled),
            ignore_unknown=frozenset(
                name for name, table in resolved.items() if table.unknown_fields == "ignore"
            ),
        )
        # Not the thread's own word: a `Thread.join` that Ctrl-C interrupts may take a running thread for an ended one.
        self._worked = threading.Event()
        recorder.watch("ingest", self._feed.counts)

    def over(self, files: Sequence[pathlib.Path | str]) -> IngestResult:
        """Run."""
        sources = self._check([pathlib.Path(file) for file in files])
        self._phase = "recording"
        self._started_s = time.monotonic()
        failure: list[BaseException] = []
        results: list[FileResult] = []
        worker = threading.Thread(
            target=self._work, args=(sources, results, failure), name="ingest", daemon=True
        )
        worker.start()
        try:
            self._look_after()
        finally:
            self._feed.stop.set()  # also where this thread gave up and the worker waits on
        if failure:
            # What was handed over stays; the error says what to do about the rest.
            with contextlib.suppress(NotDurable):
                self._recorder.flush(timeout_s=self._recorder.settings.shutdown_timeout_s)
            raise failure[0]
        self._flush()
        return self._result(results)

    # -- checking -----------------------------------------------------------------------------------------------

    def _check(self, files: Sequence[pathlib.Path]) -> list[tuple[Source, str]]:
        """Every file as a source, with a notice where it is left out."""
        self._total_bytes = sum(file.stat().st_size for file in files if file.is_file())
        sources: list[tuple[Source, str]] = []
        named: dict[int, Source] = {}
        for file in files:
            self._feed.file = str(file)
            source = inspect(file, self._options.format, self._read)
            self._done_bytes += source.size_bytes
            notice = ""
            if source.empty:
                notice = "empty: nothing to record"
            elif (first := named.get(source.log)) is not None:
                notice = f"same content as {first.name}: recorded once"
            else:
                named[source.log] = source
                self._feed.check(source)
            sources.append((source, notice))
        self._done_bytes = 0
        self._feed.file_bytes = 0
        return sources

    def _read(self, file_bytes: int) -> None:
        self._feed.file_bytes = file_bytes
        self._tell()

    def _load_order_ids(self, ids: OrderIds) -> None:
        """On the worker's thread, as all that touches the map: the orders that the database knows already."""
        queries = RecorderQueries(self._recorder, timeout_s=LOAD_S)
        asyncio.run(load_order_ids(queries, self._recorder.settings.database, ids))

    # -- recording ----------------------------------------------------------------------------------------------

    def _work(
        self, sources: Sequence[tuple[Source, str]], results: list[FileResult], failure: list[BaseException]
    ) -> None:
        """On the worker's thread."""
        try:
            for source, notice in sources:
                if self._feed.stop.is_set() or self._feed.limited:
                    break
                if notice:
                    results.append(
                        FileResult(
                            name=source.name,
                            format=source.format,
                            log=source.log,
                            size_bytes=source.size_bytes,
                            notice=notice,
                        )
                    )
                else:
                    self._feed.run(source)
                    results.append(self._feed.files[-1])
                self._done_bytes += source.size_bytes
                self._feed.file_bytes = 0
        except BaseException as error:  # noqa: BLE001 - handed to the thread that looks after the run
            failure.append(error)
        finally:
            self._worked.set()

    def _look_after(self) -> None:
        """Until the worker is done: tell progress, pass a stop on, give up on a table that stays held."""
        deadline_s = None
        while not self._worked.is_set():
            try:
                self._worked.wait(TICK_S)
                self._tell()
                self._check_held()
            except KeyboardInterrupt:
                if self._stop.is_set():
                    raise
                self._stop.set()
            if self._stop.is_set():
                self._feed.stop.set()
                deadline_s = deadline_s or time.monotonic() + STOP_GRACE_S
                if time.monotonic() > deadline_s:
                    return

    def _flush(self) -> None:
        """Wait until all that was handed over is queryable, however long inserts are retried."""
        self._phase = "flushing"
        stopped_s = None
        while True:
            try:
                self._recorder.flush(timeout_s=0.5)
            except NotDurable:
                self._tell()
                self._check_held()
                if self._stop.is_set():
                    stopped_s = stopped_s or time.monotonic()
                    if time.monotonic() > stopped_s + self._recorder.settings.shutdown_timeout_s:
                        return
            except KeyboardInterrupt:
                if self._stop.is_set():
                    raise
                self._stop.set()
            else:
                self._tell()
                return

    def _check_held(self) -> None:
        """Note which tables are held.

        Raises:
            TableHeld: one has been for longer than patience lasts, and rows of it are waiting.
        """
        now_s = time.monotonic()
        if now_s < self._next_held_check_s:
            return
        self._next_held_check_s = now_s + HELD_CHECK_S
        tables = self._recorder.status()["tables"]
        mine = {*self._feed.rows, DEAD_LETTERS}
        held = {
            name: state["held_because"]
            for name, state in tables.items()
            if state["held_because"] and name in mine
        }
        self._held_since = {name: self._held_since.get(name, now_s) for name in held}
        self._held_why = "; ".join(f"{name} is held: {why}" for name, why in held.items())
        if any(now_s - since > self._options.held_patience_s for since in self._held_since.values()):
            raise TableHeld(
                f"{self._held_why}; mend it and run again: what is recorded is not recorded twice"
            )

    def _tell(self) -> None:
        feed = self._feed
        self._on_progress(
            Progress(
                phase=self._phase,
                file=feed.file,
                done_bytes=self._done_bytes + feed.file_bytes,
                total_bytes=self._total_bytes,
                records=feed.records,
                rows=sum(list(feed.rows.values())),
                elapsed_s=time.monotonic() - self._started_s,
                waiting_for=self._held_why,
            )
        )

    # -- the end ------------------------------------------------------------------------------------------------

    def _result(self, results: Sequence[FileResult]) -> IngestResult:
        feed = self._feed
        elapsed_s = time.monotonic() - self._started_s
        after = self._recorder.balance()
        mine = {*feed.rows, DEAD_LETTERS} if feed.bad_records else set(feed.rows)
        mine |= (
            {DEAD_LETTERS}
            if any(_less(after[name], self._before[name]).dead_lettered for name in mine)
            else set()
        )
        return IngestResult(
            files=tuple(results),
            records=feed.records,
            rows=dict(feed.rows),
            kinds=dict(feed.kinds),
            filtered=feed.all_filtered(),
            ignored=feed.ignored,
            unresolved=feed.unresolved,
            too_old=dict(self._old.skipped),
            bad_records=dict(feed.bad_records),
            clock_steps_back=feed.clock_steps_back,
            elapsed_s=elapsed_s,
            balance={name: _less(after[name], self._before[name]) for name in sorted(mine)},
            interrupted=self._stop.is_set(),
        )


def _less(after: Balance, before: Balance) -> Balance:
    """What a run added to a balance."""
    old = before.as_dict()
    return Balance(**{name: count - old[name] for name, count in after.as_dict().items()})
