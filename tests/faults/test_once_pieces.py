"""One law for each piece that "every durable row once" hangs on, made so that no other piece can stand in for it.

`tests/mutations` takes the pieces out, one by one, and wants the law named for it to fail. So each of these says in its
assertion what went wrong, and waits for nothing that would only come with the piece in place.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from harness.backends import Backend
from harness.faulty_sink import OTHER_LOG, Fail, FaultySink, LoseAnswer, SpendToken
from harness.recorders import WAIT_S, faulty, order, rows, settings_for, wait_until

from recorder import Recorder, Settings, SourceRow
from recorder.batch import Batch
from recorder.flush_worker import WorkerState
from recorder.pipeline import TablePipeline
from recorder.sink.base import ServerInfo, Sink
from recorder.sink.errors import DataError, SinkUnavailable
from recorder.sink.open import open_sink
from recorder.table_log import TableLog
from wal.errors import LogFull
from wal.files import OsFiles
from wal.places import Range

AWAY = SinkUnavailable("connection refused")
T = TypeVar("T")


WINDOW = "non_replicated_deduplication_window"


@pytest.fixture(scope="module")
def shared_database(backend: Backend) -> Iterator[str]:
    """For all of them: making its tables takes longer than most of these tests."""
    with backend.fresh_database() as name:
        yield name


@pytest.fixture
def settings(
    backend: Backend,
    embedded: None,
    shared_database: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Settings]:
    monkeypatch.setattr("recorder.runtime.LOG_CARE_S", 0.1)
    yield settings_for(
        backend, shared_database, tmp_path, shutdown_timeout_s=0.5,
        # Rows that are recorded together are one batch, however slow the machine.
        defaults={"linger_ms": 200, "linger_max_ms": 200},
        tables={"metrics_timeseries": {"enabled": False}},
    )  # fmt: skip
    table = f"{shared_database}.orders"
    if backend.client.command(f"EXISTS TABLE {table}") == 1:
        backend.client.command(f"TRUNCATE TABLE {table}")
        backend.client.command(f"ALTER TABLE {table} MODIFY SETTING {WINDOW} = 100000")


def put(recorder: Recorder, numbers: range) -> None:
    for n in numbers:
        assert recorder.record("orders", order(n))


def pipeline(recorder: Recorder) -> TablePipeline:
    return recorder._life.running()[0].pipelines["orders"]


def wal(recorder: Recorder) -> TableLog:
    log = pipeline(recorder).wal
    assert log is not None
    return log


def on_loop(recorder: Recorder, what: Callable[[], T]) -> T:
    return recorder._life.ask(lambda _: what())


def asked(recorder: Recorder, what: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return recorder.ask(lambda _: what(), WAIT_S)


def stored(recorder: Recorder) -> list[str]:
    return [row[0] for row in rows(recorder, "SELECT client_order_id FROM orders ORDER BY qty, _log")]


def names(numbers: range) -> list[str]:
    return [f"c-{n}" for n in numbers]


def quiet(recorder: Recorder) -> None:
    """Nothing waits or is under way, of whatever rows."""
    wait_until(lambda: on_loop(recorder, lambda: pipeline(recorder).at_work() is None), "an idle worker")


def taken_up(recorder: Recorder, count: int) -> None:
    """So many rows that an earlier run left are resolved, or held."""

    def through() -> bool:
        balance = recorder.balance()["orders"]
        held = pipeline(recorder).state is WorkerState.HELD
        return balance.received == count and (not balance.pending or held)

    wait_until(through, "what an earlier run left")


def window_closed(recorder: Recorder) -> None:
    """The table remembers no token any more, as after an outage longer than its window."""
    sql = f"ALTER TABLE orders MODIFY SETTING {WINDOW} = 0"
    recorder.ask(lambda sink: sink.command(sql), WAIT_S)


class StillRuns(FaultySink):
    """The answer to the first insert of orders is lost while it still runs: it commits right before the next one."""

    def __init__(self, inner: Sink, running: Batch | None = None):
        super().__init__(inner)
        self.running = running

    async def insert(self, batch: Batch, *, timeout_s: float) -> None:
        if batch.table == "orders" and not self.attempts_of("orders") and self.running is None:
            self.attempts.append(batch)
            self.running = batch
            raise SinkUnavailable("connection reset")
        if batch.table == "orders" and self.running is not None and not self._always.get("orders"):
            running, self.running = self.running, None
            await self.inner.insert(running, timeout_s=timeout_s)
        await super().insert(batch, timeout_s=timeout_s)


@contextlib.contextmanager
def hanging(monkeypatch: pytest.MonkeyPatch, folder: pathlib.Path) -> Iterator[threading.Event]:
    """No sync of a file in a folder returns before the end; the event says that one was asked for."""
    begun, over = threading.Event(), threading.Event()
    sync = OsFiles.fdatasync

    def fdatasync(self: OsFiles, fd: int) -> None:
        if pathlib.Path(os.readlink(f"/proc/self/fd/{fd}")).parent == folder:
            begun.set()
            over.wait(WAIT_S)
        sync(self, fd)

    with monkeypatch.context() as patched:
        patched.setattr(OsFiles, "fdatasync", fdatasync)
        try:
            yield begun
        finally:
            over.set()


# -- on the log first ----------------------------------------------------------------------------------------------


def test_a_batch_goes_out_after_its_seal_is_on_disk(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the sync of its log hangs a table inserts nothing, and says of no row that it is durable."""
    sink = faulty(settings)
    with Recorder(settings, sink=sink) as recorder:
        with hanging(monkeypatch, settings.data_dir / "wal" / "orders") as begun:
            put(recorder, range(10))
            assert begun.wait(WAIT_S)
            # The same is recorded, sealed and inserted for another table meanwhile.
            for n in range(2):
                fill = {"fill_id": f"f-{n}", "symbol": "B", "side": "buy", "fill_qty": 1, "fill_price": 1}
                recorder.record("fills", fill)
                wait_until(lambda n=n: recorder.balance()["fills"].inserted == n + 1)  # type: ignore[misc]
            assert not sink.attempts_of("orders"), "sent before its seal was on disk"
            assert on_loop(recorder, lambda: pipeline(recorder).durable_upto) == 0, (
                "durable before it was synced"
            )
        recorder.flush(WAIT_S)
        assert stored(recorder) == names(range(10))


# -- the same rows under the same token ----------------------------------------------------------------------------


def test_an_insert_that_still_runs_when_it_is_sent_again_comes_once(settings: Settings) -> None:
    """The look-up finds nothing, and then it commits: only its token is left to tell that it did."""
    with Recorder(settings, sink=StillRuns(open_sink(settings))) as recorder:
        put(recorder, range(10))
        recorder.flush(WAIT_S)
        assert stored(recorder) == names(range(10)), "rows that came twice"


def test_an_insert_that_still_runs_when_the_next_run_sends_it_comes_once(settings: Settings) -> None:
    """The next run does not know what was sent; its seal does: the same rows under the same token."""
    sink = StillRuns(open_sink(settings))
    sink.always("orders", Fail(AWAY))
    sink.plan_look_up("orders", *[AWAY] * 10_000)
    with Recorder(settings, sink=sink) as recorder:
        put(recorder, range(10))
        recorder.sync(WAIT_S)
        wait_until(lambda: sink.running is not None)
    with Recorder(settings, sink=StillRuns(open_sink(settings), sink.running)) as recorder:
        taken_up(recorder, 10)
        assert stored(recorder) == names(range(10)), "rows that came twice"


def test_a_token_that_outlived_its_rows_is_not_believed(settings: Settings) -> None:
    """A server killed between the two knows the token: its yes to a second sending counts when the rows are seen."""
    sink = faulty(settings)
    sink.plan("orders", SpendToken())
    with Recorder(settings, sink=sink) as recorder:
        put(recorder, range(10))
        recorder.flush(WAIT_S)
        there = rows(recorder, f"SELECT count() FROM orders WHERE _log != {OTHER_LOG}")
        assert there == [(10,)], "rows that count as inserted are not there"


def test_each_half_of_a_refused_batch_has_a_token_of_its_own(settings: Settings) -> None:
    """Other rows under the same token would be swallowed."""
    sink = faulty(settings)
    sink.plan("orders", Fail(DataError("refused", code=469)))
    with Recorder(settings, sink=sink) as recorder:
        put(recorder, range(10))
        recorder.flush(WAIT_S)
        assert stored(recorder) == names(range(10)), "rows that count as inserted are not there"


def test_a_seal_that_was_taken_back_is_not_sent_by_the_next_run(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it is in, under a seal that the log did not take: sent as a whole, it would be partly there for ever."""
    sink = faulty(settings)
    sink.plan("orders", Fail(DataError("refused", code=469)), None)  # the batch, then its first half
    sink.always("orders", Fail(AWAY))
    with Recorder(settings, sink=sink) as recorder:
        writer, seal = wal(recorder).writer, wal(recorder).writer.append_seal
        sealed: list[bytes] = []

        def append_seal(payload: bytes) -> int:
            sealed.append(payload)
            if len(sealed) > 1:
                raise LogFull("no room")
            return seal(payload)

        monkeypatch.setattr(writer, "append_seal", append_seal)
        put(recorder, range(10))
        wait_until(lambda: len(sink.attempts_of("orders")) >= 3, "the second half")
    with Recorder(settings) as recorder:
        taken_up(recorder, 10)
        assert pipeline(recorder).state is not WorkerState.HELD, pipeline(recorder).why_held
        assert stored(recorder) == names(range(10)), "not each row once"


# -- asked before it is sent again ---------------------------------------------------------------------------------


def test_what_the_table_has_is_not_sent_again(settings: Settings) -> None:
    """The answer was lost, and the table forgot the token: the look-up alone knows that the rows are in."""
    sink = faulty(settings)
    with Recorder(settings, sink=sink) as recorder:
        window_closed(recorder)
        sink.plan("orders", LoseAnswer())
        put(recorder, range(10))
        recorder.flush(WAIT_S)
        assert stored(recorder) == names(range(10)), "rows that came twice"


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "unsealed"])
def test_what_an_earlier_run_sent_is_looked_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, sealed: bool
) -> None:
    """It is in, nobody was told, and the table forgot the token. With its seal, and without, where the log had no room
    for that."""
    sink = faulty(settings)
    sink.plan("orders", LoseAnswer())
    sink.always("orders", Fail(AWAY))
    sink.plan_look_up("orders", *[AWAY] * 10_000)
    with Recorder(settings, sink=sink) as recorder:
        window_closed(recorder)
        if not sealed:

            def append_seal(payload: bytes) -> int:
                raise LogFull("no room")

            monkeypatch.setattr(wal(recorder).writer, "append_seal", append_seal)
        put(recorder, range(10))
        recorder.sync(WAIT_S)
        wait_until(lambda: any(batch.table == "orders" for batch in sink.look_ups), "a lost answer")
    with Recorder(settings) as recorder:
        taken_up(recorder, 10)
        assert stored(recorder) == names(range(10)), "rows that came twice"


def test_what_a_source_brings_again_is_left_out(settings: Settings) -> None:
    """In another batch, with rows that are new: the table is asked row by row before the first insert."""
    entries = [SourceRow("orders", n, order(n, ts_local=1_700_000_000_000_000_000 + n)) for n in range(15)]
    with Recorder(settings) as recorder:
        assert recorder.record_source(11, entries[:10]) == 10
        recorder.flush(WAIT_S)
        assert recorder.record_source(11, entries[5:]) == 10
        recorder.flush(WAIT_S)
        assert stored(recorder) == names(range(15)), "rows that came twice"


# -- confirmed, settled, purged ------------------------------------------------------------------------------------


def test_what_a_restarted_server_lost_is_sent_again(settings: Settings) -> None:
    """It had confirmed it and knows its token still; the log, looked after meanwhile, has kept it. One row, so that it
    comes again as it came."""
    sink = faulty(settings)
    with Recorder(settings, sink=sink) as recorder:
        wait_until(lambda: bool(wal(recorder).done.server))
        put(recorder, range(1))
        recorder.flush(WAIT_S)
        logs = recorder._life.running()[0].logs
        assert logs is not None
        asked(recorder, logs.tidy)
        delete = "ALTER TABLE orders DELETE WHERE 1 SETTINGS mutations_sync = 1"
        recorder.ask(lambda it: it.command(delete), WAIT_S)
        assert not stored(recorder)
        before = wal(recorder).done.server
        sink.server_info = ServerInfo("26.1", "11111111-1111-1111-1111-111111111111", 1)
        wait_until(
            lambda: on_loop(recorder, lambda: wal(recorder).done.server != before), "a look at the server"
        )
        quiet(recorder)
        assert stored(recorder) == names(range(1)), "a row that it lost is not put back"


def test_nothing_is_confirmed_before_the_database_has_it(settings: Settings) -> None:
    """Sent and not answered: a run that begins now must take it up."""
    sink = faulty(settings)
    sink.always("orders", Fail(AWAY))
    with Recorder(settings, sink=sink) as recorder:
        wait_until(lambda: bool(wal(recorder).done.server))
        put(recorder, range(10))
        wait_until(lambda: len(sink.attempts_of("orders")) >= 2)
        done = on_loop(recorder, lambda: wal(recorder).done.checkpoint.done())
        places = sink.attempts_of("orders")[0].places
        assert places
        assert [part for place in places for part in done.missing_of(place)] == list(places), (
            "confirmed, and not in the database"
        )
        sink.always("orders", None)
        recorder.flush(WAIT_S)
        assert on_loop(recorder, lambda: wal(recorder).done.checkpoint.done()).covers(places[0])


def test_a_refused_row_is_confirmed_after_its_dead_letter_is_durable(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a kill in between would leave the row nowhere: not in the table, not as a letter, not to be replayed."""
    sink = faulty(settings)
    refused = Fail(DataError("refused", code=469))
    sink.plan("orders", refused)
    with Recorder(settings, sink=sink) as recorder:
        wait_until(lambda: bool(wal(recorder).done.server))
        with hanging(monkeypatch, settings.data_dir / "wal" / "dead_letters") as begun:
            put(recorder, range(1))
            wait_until(lambda: recorder.balance()["orders"].dead_lettered == 1)
            assert begun.wait(WAIT_S)
            quiet(recorder)
            rows(recorder, "SELECT 1")  # and whatever was to follow at once has followed
            place = Range(wal(recorder).writer.epoch, 0, 1)
            done = on_loop(recorder, lambda: wal(recorder).done.checkpoint.done())
            assert not done.covers(place), "confirmed before its dead letter was durable"
        wait_until(lambda: on_loop(recorder, lambda: wal(recorder).done.checkpoint.done()).covers(place))
