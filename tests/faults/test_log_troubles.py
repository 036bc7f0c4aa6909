"""A table in trouble with its log behind it: its rows wait there, also for the next run, and go in once it is mended.

What the worker does about each trouble is in test_worker_faults.py and test_recorder_faults.py; here it lasts while far
more rows come than memory has room for, and over a restart of the recorder, with nothing lost and nothing twice.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from harness.faulty_sink import Fail, FaultySink
from harness.recorders import WAIT_S, faulty, order, rows, settings_for, wait_until

from recorder import Recorder, Settings
from recorder.sink.base import ServerInfo
from recorder.sink.errors import HoldError, Retryable, SinkUnavailable

AWAY = SinkUnavailable("connection refused")
BATCH_ROWS = 200
FIRST, DURING, AFTER = range(100), range(100, 2_500), range(2_500, 2_800)
PIECE = 200

Statements = Sequence[str]


@dataclass(frozen=True)
class Trouble:
    """What makes it and what mends it, as statements, or the error of every insert; the state that the table is in."""

    state: str
    make: Statements = ()
    mend: Statements = ()
    error: HoldError | Retryable | None = None


TROUBLES = {
    "the table is away": Trouble("held", ["RENAME TABLE orders TO away"], ["RENAME TABLE away TO orders"]),
    "a column is dropped": Trouble(
        "held",
        ["ALTER TABLE orders DROP COLUMN notes"],
        ["ALTER TABLE orders ADD COLUMN notes Nullable(String) AFTER risk_decision_id"],
    ),
    "a grant is revoked": Trouble("held", error=HoldError("not enough privileges", code=497)),
    "too many partitions": Trouble(
        "held", error=HoldError("too many partitions for single INSERT block", code=252)
    ),
    "too many parts": Trouble(
        "retrying",
        ["SYSTEM STOP MERGES orders", "ALTER TABLE orders MODIFY SETTING parts_to_throw_insert = 1"],
        ["ALTER TABLE orders RESET SETTING parts_to_throw_insert", "SYSTEM START MERGES orders"],
    ),
    "memory limit": Trouble("retrying", error=Retryable("memory limit exceeded", code=241)),
}


@pytest.fixture
def settings(chdb_path: pathlib.Path, database: str, tmp_path: pathlib.Path) -> Settings:
    """Of a recorder whose memory has room for a few hundred orders."""
    small = {"queue_rows": 2 * PIECE, "batch_rows": BATCH_ROWS}
    return settings_for(
        chdb_path, database, tmp_path, tables={"orders": small}, schema_check_s=0.05, shutdown_timeout_s=2
    )


@contextlib.contextmanager
def recording(settings: Settings, error: Exception | None = None) -> Iterator[tuple[Recorder, FaultySink]]:
    """A recorder of whose inserts into `orders` each fails with an error, if one is given."""
    sink = faulty(settings)
    if error is not None:
        sink.always("orders", Fail(error))  # type: ignore[arg-type]
    with Recorder(settings, sink=sink) as recorder:
        yield recorder, sink


def say(recorder: Recorder, statements: Statements) -> None:
    for sql in statements:
        recorder.ask(lambda sink, sql=sql: sink.command(sql), WAIT_S)  # type: ignore[misc]


def put(recorder: Recorder, numbers: range, bad: Callable[[int], bool] = lambda n: False) -> None:
    """Rows that are durable when this returns."""
    for start in range(numbers.start, numbers.stop, PIECE):
        for n in range(start, min(start + PIECE, numbers.stop)):
            assert recorder.record("orders", order(n, symbol="BAD" if bad(n) else "GOOD"))
        recorder.sync(WAIT_S)


def state(recorder: Recorder) -> str:
    return str(recorder.status()["tables"]["orders"]["state"])


def rows_in_memory(recorder: Recorder) -> int:
    """Of `orders`, built: what waits for the worker and is not on the log alone."""
    pipeline = recorder._life.running()[0].pipelines["orders"]
    return sum(batch.rows for cut in list(pipeline._lane._under_way) for batch in cut.batches)


def others_flow(recorder: Recorder, name: str) -> None:
    fill = {"fill_id": name, "symbol": "B", "side": "buy", "fill_qty": 1, "fill_price": 1}
    before = recorder.balance()["fills"].inserted
    assert recorder.record("fills", fill)
    wait_until(lambda: recorder.balance()["fills"].inserted == before + 1, "a row of another table")


def stored(recorder: Recorder) -> list[int]:
    """The numbers of all rows of `orders`, each as often as it is there."""
    sql = "SELECT toUInt32(substring(client_order_id, 3)) AS n FROM orders ORDER BY n"
    return [int(n) for (n,) in rows(recorder, sql)]


def letters(recorder: Recorder) -> list[tuple[str, str]]:
    """All dead letters: reason and order, each as often as it is there."""
    sql = "SELECT reason, JSONExtractString(payload, 'client_order_id') AS o FROM dead_letters ORDER BY o"
    return [(str(reason), str(order_id)) for reason, order_id in rows(recorder, sql)]


def all_resolved(recorder: Recorder, received: int) -> None:
    """All rows of `orders`, once so many came, those of earlier runs among them; and all dead letters."""
    wait_until(lambda: recorder.balance()["orders"].received >= received, f"{received} rows")
    for table in ("orders", "dead_letters"):
        wait_until(lambda table=table: recorder.balance()[table].pending == 0, f"all of {table}")  # type: ignore[misc]
    recorder.flush(WAIT_S)


@pytest.mark.parametrize("name", list(TROUBLES))
def test_its_rows_wait_on_the_log_over_a_restart(settings: Settings, name: str) -> None:
    """It alone is in trouble; memory keeps a few batches of its rows; the next run begins with them, and when it is
    mended all are in once, what was in before included.
    """
    trouble = TROUBLES[name]
    with recording(settings) as (recorder, sink):
        put(recorder, FIRST)
        recorder.flush(WAIT_S)
        say(recorder, trouble.make)
        if trouble.error is not None:
            sink.always("orders", Fail(trouble.error))
        put(recorder, DURING)
        wait_until(lambda: state(recorder) == trouble.state, trouble.state)
        assert rows_in_memory(recorder) <= 3 * (BATCH_ROWS + PIECE)
        others_flow(recorder, "during")
        balance = recorder.balance()["orders"]
        assert (balance.inserted, balance.pending, balance.shed) == (len(FIRST), len(DURING), 0)
    balance = recorder.balance()["orders"]
    assert (balance.pending, balance.shed, balance.exact) == (len(DURING), 0, True), "the log has them"
    with recording(settings, trouble.error) as (recorder, sink):
        put(recorder, AFTER)
        wait_until(lambda: state(recorder) == trouble.state, trouble.state)
        others_flow(recorder, "after the restart")
        assert rows_in_memory(recorder) <= 3 * (BATCH_ROWS + PIECE)
        assert recorder.balance()["orders"].pending == len(DURING) + len(AFTER)
        say(recorder, trouble.mend)
        sink.always("orders", None)
        all_resolved(recorder, len(DURING) + len(AFTER))
        assert stored(recorder) == list(range(AFTER.stop))
        balance = recorder.balance()["orders"]
        assert (balance.inserted, balance.dead_lettered, balance.exact) == (len(DURING) + len(AFTER), 0, True)
        wait_until(lambda: state(recorder) == "flowing", "rows flow")


def test_a_dropped_table_is_held_until_a_new_one_is_accepted(settings: Settings) -> None:
    """A table made anew is another one, which a restart accepts; what the log has of before goes into that."""
    with recording(settings) as (recorder, _):
        put(recorder, FIRST)
        recorder.flush(WAIT_S)
        ((create,),) = rows(recorder, "SHOW CREATE TABLE orders")
        say(recorder, ["DROP TABLE orders SYNC"])
        put(recorder, DURING)
        wait_until(lambda: state(recorder) == "held", "held")
    with recording(settings) as (recorder, _):
        wait_until(lambda: state(recorder) == "held", "held")
        others_flow(recorder, "held")
        assert recorder.balance()["orders"].pending == len(DURING)
        say(recorder, [str(create)])
    with recording(settings) as (recorder, _):
        all_resolved(recorder, len(DURING))
        assert stored(recorder) == list(DURING), "those before went with the table that was dropped"


def test_rows_of_many_days_go_in_though_they_waited_together(settings: Settings) -> None:
    """Batches that were joined on the log are cut again where they would touch too many partitions."""
    month_ns = 31 * 86_400 * 10**9
    large = settings.tables["orders"].model_copy(update={"batch_rows": 1_000, "queue_rows": 2_000})
    settings = settings.model_copy(update={"tables": {"orders": large}})
    with recording(settings, AWAY) as (recorder, sink):
        for n in range(1_000):
            assert recorder.record("orders", order(n, ts_local=1_600_000_000 * 10**9 + n // 20 * month_ns))
            if n % PIECE == PIECE - 1:
                recorder.sync(WAIT_S)
        sink.always("orders", None)
        recorder.flush(WAIT_S)
        assert stored(recorder) == list(range(1_000))
        assert not recorder.status()["tables"]["orders"]["errors"].get("252")


@pytest.fixture
def only_good(settings: Settings) -> Settings:
    """The same, on tables that refuse some rows, with 10,000 rows a batch."""
    large = settings.model_copy(
        update={"tables": {"orders": settings.tables["orders"].model_copy(
            update={"batch_rows": 10_000, "queue_rows": 20_000})}}
    )  # fmt: skip
    with Recorder(settings) as recorder:
        say(recorder, ["ALTER TABLE orders ADD CONSTRAINT good CHECK symbol != 'BAD'"])
    return large


ONE_BAD = [("refused_469", "c-6789")]


def test_one_bad_row_in_10_000_from_the_log_costs_one_row(only_good: Settings) -> None:
    """Of a run whose database was away; the run after that has nothing left to do, and makes no second letter."""
    with recording(only_good, AWAY) as (recorder, _):
        put(recorder, range(10_000), bad=lambda n: n == 6_789)
    with recording(only_good) as (recorder, _):
        all_resolved(recorder, 10_000)
        assert stored(recorder) == [n for n in range(10_000) if n != 6_789]
        assert letters(recorder) == ONE_BAD
        balance = recorder.balance()["orders"]
        assert (balance.received, balance.inserted, balance.dead_lettered) == (10_000, 9_999, 1)
        assert balance.exact
    with recording(only_good) as (recorder, _):
        recorder.flush(WAIT_S)
        assert recorder.balance()["orders"].received == 0
        assert letters(recorder) == ONE_BAD


def test_a_bisection_that_a_restart_interrupts_makes_each_letter_once(only_good: Settings) -> None:
    """The bad row is found, its letter is durable, and then the database is away: the rest waits, and that row does
    not come again.
    """
    with recording(only_good, AWAY) as (recorder, _):
        put(recorder, range(10_000), bad=lambda n: n == 3)
    with recording(only_good) as (recorder, sink):
        wait_until(lambda: recorder.balance()["orders"].dead_lettered == 1, "the bad row")
        sink.always("orders", Fail(AWAY))
        wait_until(lambda: recorder.balance()["dead_letters"].pending == 0, "its letter")
    left = recorder.balance()["orders"].pending
    assert left > 1_000, "it was in the middle"
    with recording(only_good) as (recorder, _):
        all_resolved(recorder, left)
        assert stored(recorder) == [n for n in range(10_000) if n != 3]
        assert letters(recorder) == [("refused_469", "c-3")]
        assert recorder.balance()["orders"].dead_lettered == 0


def test_a_dead_letter_stays_one_when_the_database_restarts(only_good: Settings) -> None:
    """What it had confirmed is looked up again; the row that it never had is missing there, and is not sent again."""
    with recording(only_good) as (recorder, sink):
        wait_until(lambda: bool(recorder._life.running()[0].pipelines["orders"].wal.done.server))  # type: ignore[union-attr]
        put(recorder, range(1_000), bad=lambda n: n == 500)
        recorder.flush(WAIT_S)
        looked_up = len(sink.look_ups)
        sink.server_info = ServerInfo("26.1", "11111111-1111-1111-1111-111111111111", 1)
        wait_until(
            lambda: any(batch.table == "orders" for batch in sink.look_ups[looked_up:]), "orders looked up"
        )
        put(recorder, range(1_000, 1_001))
        recorder.flush(WAIT_S)  # it goes after what was being looked up
        recorder.flush(WAIT_S)  # and with the letters of that
        assert letters(recorder) == [("refused_469", "c-500")]
        assert len(stored(recorder)) == 1_000
        balance = recorder.balance()["orders"]
        assert (balance.inserted, balance.dead_lettered, balance.exact) == (1_000, 1, True)


def test_a_table_that_refuses_most_rows_is_held_over_a_restart(only_good: Settings) -> None:
    """It is the table, not the rows: they wait on the log, and all but the few letters are in when it is mended."""
    only_good = only_good.model_copy(update={"dead_letter_ratio": 0.1})
    with recording(only_good) as (recorder, _):
        put(recorder, range(80), bad=lambda n: n >= 20)
        wait_until(lambda: state(recorder) == "held", "held")
        others_flow(recorder, "beside")
        dead = recorder.balance()["orders"].dead_lettered
        assert 0 < dead < 60
    left = recorder.balance()["orders"].pending
    with recording(only_good) as (recorder, _):
        wait_until(lambda: state(recorder) == "held", "held again")
        say(recorder, ["ALTER TABLE orders DROP CONSTRAINT good"])
        all_resolved(recorder, left)
        found, told = stored(recorder), letters(recorder)
        assert len(found) == len(set(found))
        assert len(told) == len(set(told))
        assert sorted([*found, *(int(name[2:]) for _, name in told)]) == list(range(80)), (
            "in one of the two, once"
        )
