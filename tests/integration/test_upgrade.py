"""Upgrades: rows that an older version logged, and an older recorder beside a newer one. Each row is there once, with
its values under the names of now; no table is held for longer than it must be.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest
from harness.alarms import standing
from harness.backends import Backend
from harness.faulty_sink import Fail
from harness.recorders import WAIT_S, faulty, rows, settings_for, wait_until

from recorder import Recorder, Settings
from recorder.sink.base import ServerInfo
from recorder.sink.errors import SinkUnavailable
from schemas.columns import Name, TimeNs, UInt32, UInt64
from schemas.core.tables import PACK as CORE
from schemas.pack import Pack
from schemas.policy import Durability, Overflow, Partition, TablePolicy
from schemas.table import Row, table

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from recorder.runtime import Runtime

AWAY = SinkUnavailable("connection refused")
POLICY = TablePolicy(
    durability=Durability.WAL,
    overflow=Overflow.SPILL,
    partition=Partition.DAY,
    order_by=("ts_local",),
    keep_days=None,
)

CREATE = """
CREATE TABLE IF NOT EXISTS {{db}}.things {{on_cluster}}
(ts_local DateTime64(9, 'UTC'), run_id LowCardinality(String), count UInt32, ticker LowCardinality(String),
 _log UInt64, _seq UInt64)
ENGINE = {{engine}} PARTITION BY {{partition}} ORDER BY ts_local {{ttl}} SETTINGS {{settings}};
"""
CHANGE = """
ALTER TABLE {{db}}.things MODIFY COLUMN count UInt64, RENAME COLUMN IF EXISTS ticker TO asset,
    ADD COLUMN IF NOT EXISTS venue LowCardinality(String) DEFAULT 'none'
"""
CHANGE_AGAIN = "ALTER TABLE {{db}}.things RENAME COLUMN IF EXISTS asset TO symbol"
EXPAND = """
-- renamed: ticker -> symbol
ALTER TABLE {{db}}.things
    ADD COLUMN IF NOT EXISTS symbol LowCardinality(String) DEFAULT ticker,
    MODIFY COLUMN ticker LowCardinality(String) DEFAULT '';
"""


class Old(Row, kw_only=True):
    """As it was."""

    ts_local: TimeNs = 0
    run_id: Name = ""
    count: UInt32
    ticker: Name


class Changed(Row, kw_only=True):
    """Widened, renamed, with a column more."""

    ts_local: TimeNs = 0
    run_id: Name = ""
    count: UInt64
    asset: Name
    venue: Name = "none"


class ChangedAgain(Row, kw_only=True):
    """Renamed once more."""

    ts_local: TimeNs = 0
    run_id: Name = ""
    count: UInt64
    symbol: Name
    venue: Name = "none"


class Beside(Row, kw_only=True):
    """With a new name beside the old one."""

    ts_local: TimeNs = 0
    run_id: Name = ""
    count: UInt32
    symbol: Name


class Fewer(Row, kw_only=True):
    """Without a column that rows on the log have."""

    ts_local: TimeNs = 0
    run_id: Name = ""
    count: UInt32


def packs(folder: pathlib.Path, row: type[Row], *texts: str) -> Sequence[Pack]:
    """The core pack, and one of `things` at the version of these migrations."""
    place = folder / row.__name__
    place.mkdir(exist_ok=True)
    for number, text in enumerate(texts, start=1):
        (place / f"{number:04}_step.sql").write_text(text)
    return CORE, Pack("mine", place, (table("things", row, POLICY),))


@pytest.fixture
def settings(backend: Backend, database: str, tmp_path: pathlib.Path) -> Settings:
    return settings_for(backend, database, tmp_path / "one", shutdown_timeout_s=3)


def put(recorder: Recorder, numbers: range, column: str) -> None:
    for n in numbers:
        assert recorder.record("things", {"count": n, column: f"t{n}"})


def leave(settings: Settings, packs: Sequence[Pack], numbers: range, column: str) -> None:
    """Have a run end with rows on its log alone: those of a batch that was sealed and tried, and others."""
    sink = faulty(settings)
    sink.always("things", Fail(AWAY))
    with Recorder(settings, sink=sink, packs=packs) as recorder:
        middle = (numbers.start + numbers.stop) // 2
        put(recorder, range(numbers.start, middle), column)
        wait_until(lambda: len(sink.attempts_of("things")) > 0, "the first attempt")
        put(recorder, range(middle, numbers.stop), column)
        recorder.sync(WAIT_S)
    assert recorder.balance()["things"].pending == len(numbers)


def there(recorder: Recorder, column: str) -> list[tuple[int, str]]:
    return [(int(n), str(t)) for n, t in rows(recorder, f"SELECT count, {column} FROM things ORDER BY count")]


def expected(*numbers: range) -> list[tuple[int, str]]:
    return [(n, f"t{n}") for some in numbers for n in some]


def test_rows_of_older_versions_go_in_as_they_are_now(
    settings: Settings, tmp_path: pathlib.Path, engine: Client
) -> None:
    """Two versions left rows; since then a column was renamed twice, one widened, one added. The third sends both:
    each row once, its value under the new name, the default where there was no column."""
    first = packs(tmp_path, Old, CREATE)
    with Recorder(settings, packs=first) as recorder:
        put(recorder, range(10), "ticker")
        recorder.flush(WAIT_S)
    leave(settings, first, range(10, 40), "ticker")
    sink = faulty(settings)
    sink.always("things", Fail(AWAY))
    with Recorder(settings, sink=sink, packs=packs(tmp_path, Changed, CREATE, CHANGE)) as recorder:
        put(recorder, range(40, 60), "asset")
        recorder.sync(WAIT_S)
        wait_until(lambda: recorder.balance()["things"].received == 50, "the rows of the version before")
    last = packs(tmp_path, ChangedAgain, CREATE, CHANGE, CHANGE_AGAIN)
    with Recorder(settings, packs=last) as recorder:
        put(recorder, range(60, 70), "symbol")
        wait_until(lambda: recorder.balance()["things"].inserted == 60, "all that earlier versions left")
        assert there(recorder, "symbol") == expected(range(70))
        assert rows(recorder, "SELECT DISTINCT venue FROM things") == [("none",)]
        assert recorder.balance()["things"].exact


def test_rows_that_are_none_now_stay_on_the_log_and_cost_no_others(
    settings: Settings, tmp_path: pathlib.Path, engine: Client
) -> None:
    """A version without one of their columns: new rows flow, an alarm says what stays and what to do, the balance has
    them as pending, over restarts. The older version, started once more, sends them."""
    create = CREATE.replace("ticker LowCardinality(String)", "ticker LowCardinality(String) DEFAULT ''")
    first, fewer = packs(tmp_path, Old, create), packs(tmp_path, Fewer, create)
    leave(settings, first, range(20), "ticker")
    alarm = "RecorderFailure", "things"
    for n in (100, 101):
        with Recorder(settings, packs=fewer) as recorder:
            recorder.record("things", {"count": n})
            recorder.flush(WAIT_S)
            # It may be raised at the first of them.
            wait_until(lambda: "leaves 20 rows on its log" in standing(recorder).get(alarm, ""), "the alarm")
            assert "recorder wal export things" in standing(recorder)[alarm]
            balance = recorder.balance()["things"]
            assert (balance.received, balance.inserted, balance.pending, balance.exact) == (21, 1, 20, True)
        assert recorder.balance()["things"].exact
    with Recorder(settings, packs=first) as recorder:
        wait_until(lambda: recorder.balance()["things"].inserted == 20)
        assert there(recorder, "ticker") == [*expected(range(20)), (100, ""), (101, "")]
    sink = faulty(settings)
    sink.server_info = ServerInfo("26.1", "11111111-1111-1111-1111-111111111111", 1)
    with Recorder(settings, sink=sink, packs=fewer) as recorder:
        recorder.flush(WAIT_S)
        assert recorder.balance()["things"].received == 0
        # The database was started anew: what was confirmed is asked for, though it cannot be sent any more.
        wait_until(lambda: recorder.earlier()["things"].done, "the look-up")
        assert recorder.earlier()["things"].kept == 0, "the table has them"


def test_rows_that_stay_on_the_log_are_counted_when_they_are_dropped(
    settings: Settings, tmp_path: pathlib.Path
) -> None:
    """They are the oldest, so the first that `drop_oldest` takes: shed, and not pending for ever."""
    create = CREATE.replace("ticker LowCardinality(String)", "ticker LowCardinality(String) DEFAULT ''")
    leave(settings, packs(tmp_path, Old, create), range(20), "ticker")
    with Recorder(settings, packs=packs(tmp_path, Fewer, create)) as recorder:
        wait_until(lambda: recorder.earlier()["things"].kept == 20)

        def drop(runtime: Runtime) -> int:
            pipeline = runtime.pipelines["things"]
            assert pipeline.wal is not None
            (place,) = pipeline.wal.reading.left
            return pipeline.drop_logged(place, "log segment 1", time.monotonic_ns())

        assert recorder._life.ask(drop) == 20
        balance = recorder.balance()["things"]
        assert (balance.received, balance.shed, balance.pending, balance.exact) == (20, 20, 0, True)
        assert recorder.earlier()["things"].kept == 0


def test_an_old_and_a_new_recorder_record_side_by_side(
    settings: Settings, backend: Backend, database: str, tmp_path: pathlib.Path
) -> None:
    """The newer one migrates by adding alone while the older one records: both go on, also when the older is started
    anew, and rows that it leaves are sent by the version that follows it. Whoever reads the new column finds all."""
    old, new = packs(tmp_path, Old, CREATE), packs(tmp_path, Beside, CREATE, EXPAND)
    other = settings_for(backend, database, tmp_path / "two", shutdown_timeout_s=3, schema_check_s=0.1)
    settings = settings.model_copy(update={"schema_check_s": 0.1})
    with Recorder(settings, packs=old) as older:
        put(older, range(100), "ticker")
        with Recorder(other, packs=new) as newer:
            put(older, range(100, 200), "ticker")
            put(newer, range(1_000, 1_100), "symbol")
            older.flush(WAIT_S)
            newer.flush(WAIT_S)
            older.close()
            with Recorder(settings, packs=old) as older_again:
                put(older_again, range(200, 250), "ticker")
                older_again.flush(WAIT_S)
                assert older_again.status()["tables"]["things"]["state"] == "flowing"
                assert older_again.balance()["things"].exact
            leave(settings, old, range(250, 300), "ticker")
            with Recorder(settings, packs=new) as upgraded:
                put(upgraded, range(300, 310), "symbol")
                wait_until(lambda: upgraded.balance()["things"].inserted == 60)
                assert there(upgraded, "symbol") == expected(range(310), range(1_000, 1_100))
            assert newer.status()["tables"]["things"]["state"] == "flowing"
            assert not [key for key in standing(newer) if key[1] == "things"]


def test_a_change_that_the_old_one_cannot_follow_holds_it_until_it_is_upgraded(
    settings: Settings, backend: Backend, database: str, tmp_path: pathlib.Path
) -> None:
    """A column is renamed under it: its table is held, its rows are durable on its log, the newer one flows. Upgraded,
    it sends them; none is lost or there twice."""
    old, new = packs(tmp_path, Old, CREATE), packs(tmp_path, Changed, CREATE, CHANGE)
    other = settings_for(backend, database, tmp_path / "two", shutdown_timeout_s=3)
    with Recorder(settings, packs=old) as older:
        put(older, range(100), "ticker")
        older.flush(WAIT_S)
        with Recorder(other, packs=new) as newer:
            put(older, range(100, 200), "ticker")
            put(newer, range(1_000, 1_050), "asset")
            older.sync(WAIT_S)
            newer.flush(WAIT_S)
            wait_until(lambda: older.status()["tables"]["things"]["state"] == "held", "the older to be held")
            older.close()
            balance = older.balance()["things"]
            assert (balance.inserted, balance.pending, balance.shed, balance.exact) == (100, 100, 0, True)
            with Recorder(settings, packs=new) as upgraded:
                put(upgraded, range(200, 210), "asset")
                wait_until(lambda: upgraded.balance()["things"].inserted == 110)
                assert there(upgraded, "asset") == expected(range(210), range(1_000, 1_050))
                assert upgraded.balance()["things"].exact
