"""A table whose days are parted by symbol is recorded, archived, dropped and moved as one that is not."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from harness.backends import Backend
from harness.bars_desk import Desk
from harness.bars_plain import Said
from harness.faulty_sink import CommitPart, LoseAnswer
from harness.groups_child import EACH, GROUPED, SYMBOLS, put
from harness.killing import python
from harness.recorders import WAIT_S, faulty, rows, settings_for
from harness.retention_runs import Asked, Doing, Ended, StoppingExecutor

from recorder import Recorder
from recorder.bars.proof import BarsProof
from recorder.bars.windows import ALL_BARS
from recorder.repartition import Repartition
from recorder.retaining.run import PartsSource
from retention.archive import FolderStore, Place, partition_of, read_files
from retention.due import Kind, Limits
from retention.live_facts import server_time_ns
from retention.policy import DAY_NS, RetentionPolicy
from retention.runner import Outcome, Runner, State, Subject
from schemas.core.market import MARKET_DATA
from schemas.executor import ClientExecutor
from schemas.policy import Partition

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

FIRST_NS = 1_723_075_200_000_000_000  # 2024-08-08
POLICY = dataclasses.replace(MARKET_DATA.policy, symbol_groups=4)
PLACE = Place("market_data", "2024-08-08")
ARCHIVED = RetentionPolicy(table="market_data", partition=Partition.DAY, keep_days=7, archive_after_days=2)
TIERED = RetentionPolicy(table="market_data", partition=Partition.DAY, tier_after_days=2)


# -- recording --


@pytest.mark.parametrize("fault", [CommitPart(2 * EACH), LoseAnswer()], ids=["half of the groups", "all"])
def test_what_some_groups_have_is_completed(
    backend: Backend, database: str, tmp_path: pathlib.Path, fault: Any
) -> None:
    """An insert whose answer is lost, and which some groups or all committed: each row is in once, none is held."""
    settings = settings_for(backend, database, tmp_path, **GROUPED)
    sink = faulty(settings)
    sink.plan("market_data", fault)
    with Recorder(settings, sink=sink) as recorder:
        put(recorder)
        recorder.flush(WAIT_S)
        counts = "SELECT count(), uniqExact(_log, _seq), uniqExact(_partition_id) FROM market_data"
        ((count, unique, partitions),) = rows(recorder, counts)
        balance = recorder.balance()["market_data"]
    assert (count, unique) == (len(SYMBOLS) * EACH,) * 2
    assert partitions > 1
    assert (balance.received, balance.inserted, balance.shed, balance.pending) == (count, count, 0, 0)


@pytest.mark.parametrize("groups", [8, 1], ids=["same groups", "no groups since"])
def test_killed_when_half_of_the_groups_are_in_the_next_run_completes_it(
    embedded: None, tmp_path: pathlib.Path, groups: int
) -> None:
    """`kill -9` between the commits of two groups: the next run sends the rows of the others, and no other; also
    when the table was given one partition a day meanwhile, half of which is there then."""
    assert python("harness.groups_child", str(tmp_path), "die").returncode == -9
    if groups == 1:
        target = ("--target", f"chdb://{tmp_path / 'db'}", "--data-dir", str(tmp_path / "data"))
        moved = python("recorder", *target, "migrate", "repartition", "--yes", "--json")
        assert moved.returncode == 0, moved.stderr
        (table,) = json.loads(moved.stdout)["tables"]
        assert (table["table"], table["copied"]) == ("market_data", 2 * EACH)
    done = python("harness.groups_child", str(tmp_path), "go on")
    assert done.returncode == 0, done.stderr
    count, unique, partitions, received, inserted, shed = json.loads(done.stdout.splitlines()[-1])
    assert (count, unique, received, inserted, shed) == (*(len(SYMBOLS) * EACH,) * 4, 0)
    assert (partitions == 1) == (groups == 1)


def test_a_batch_that_was_cut_for_fewer_groups_gets_in(
    backend: Backend, database: str, tmp_path: pathlib.Path
) -> None:
    """A recorder that knows of no groups makes batches of 20 days; a table that has 32 groups takes them."""

    def settings(groups: int) -> Any:
        table = GROUPED["tables"]["market_data"] | {"symbol_groups": groups}
        return settings_for(
            backend, database, tmp_path, **GROUPED | {"tables": GROUPED["tables"] | {"market_data": table}}
        )

    with Recorder(settings(32)):
        pass
    days, symbols = 20, 40
    with Recorder(settings(1)) as recorder:
        for n in range(days * symbols):
            time_ns = FIRST_NS + n // symbols * DAY_NS
            assert recorder.record(
                "market_data", {"ts_local": time_ns, "symbol": f"S{n % symbols}", "last_price": 1.0}
            )
        recorder.flush(WAIT_S)
        ((count, unique, partitions),) = rows(
            recorder, "SELECT count(), uniqExact(_log, _seq), uniqExact(_partition_id) FROM market_data"
        )
    assert (count, unique) == (days * symbols,) * 2
    assert partitions > 100


# -- retention --


class Days:
    """Market data with groups, an archive, and runs over them."""

    def __init__(self, client: Client, database: str, root: pathlib.Path):
        self.client, self.database, self.root = client, database, root
        self.executor, self.store = ClientExecutor(client), FolderStore(root)
        self._numbers = itertools.count()
        client.command(
            f"CREATE TABLE {database}.market_data (ts_local DateTime64(9, 'UTC'), symbol LowCardinality(String), "
            "_log UInt64, _seq UInt64) ENGINE = MergeTree PARTITION BY (toYYYYMMDD(ts_local), cityHash64(symbol) % 4) "
            "ORDER BY (symbol, ts_local)"
        )
        client.command(f"SYSTEM STOP MERGES {database}.market_data")

    def insert(self, *symbols: str, day: int = 0) -> None:
        """One row of each symbol, numbered on."""
        values = ", ".join(
            f"(fromUnixTimestamp64Nano({FIRST_NS + day * DAY_NS + n}, 'UTC'), '{symbol}', 7, {n})"
            for symbol in symbols
            for n in [next(self._numbers)]
        )
        self.client.command(f"INSERT INTO {self.database}.market_data VALUES {values}")

    def seqs(self, table: str = "market_data") -> list[int]:
        found = self.client.query(f"SELECT _seq FROM {self.database}.{table} ORDER BY _seq").result_rows
        return [row[0] for row in found]

    def groups(self) -> int:
        sql = f"SELECT uniqExact(_partition_id) FROM {self.database}.market_data"
        return int(self.client.query(sql).result_rows[0][0])

    def archived(self) -> list[list[int]]:
        """Rows of each piece."""
        known = partition_of(self.store, PLACE)
        return [
            [seq for batch in read_files(piece.manifest, self.store) for seq in batch["_seq"].to_pylist()]
            for piece in known.pieces
        ]

    def run(
        self,
        policy: RetentionPolicy = ARCHIVED,
        *,
        executor: ClientExecutor | None = None,
        after_ns: int = DAY_NS,
        between: Callable[[], object] = lambda: None,
    ) -> list[Outcome]:
        runner = Runner(
            executor or self.executor,
            self.database,
            store=self.store,
            source_of=lambda place, parts: PartsSource(Asked(self.client), self.database, place, parts),
            alter_ttl=lambda table: None,
            lock=Doing(between),
            recorder_version="0",
            limits=Limits(settle_s=-3_600, merge_parts=1_000),
            now_ns=lambda: server_time_ns(self.executor) + after_ns,
        )
        return list(runner.run(Subject(policy, POLICY)))


@pytest.fixture
def days(client: Client, database: str, tmp_path: pathlib.Path) -> Days:
    return Days(client, database, tmp_path / "archive")


def _kinds(outcomes: list[Outcome]) -> list[Kind]:
    assert {outcome.state for outcome in outcomes} <= {State.DONE}, outcomes
    return [outcome.action.kind for outcome in outcomes]


def test_a_day_is_archived_once_and_its_groups_go_one_after_the_other(days: Days) -> None:
    """One piece has all groups in the table's order; no group is taken for late rows of another; all of them go."""
    days.insert(*SYMBOLS)
    days.insert(*reversed(SYMBOLS))
    groups = days.groups()
    assert groups > 1
    assert _kinds(days.run()) == [Kind.ARCHIVE, *[Kind.DROP] * groups]
    assert days.seqs() == []
    assert days.archived() == [[0, 7, 1, 6, 2, 5, 3, 4]], "by symbol, then time"
    assert days.run() == []


def test_what_is_archived_and_not_to_go_yet_is_left_alone(days: Days) -> None:
    """Until a row comes, or one group has expired, no run archives anything again; late rows make one addendum."""
    archived = dataclasses.replace(ARCHIVED, keep_days=20_000)
    days.insert(*SYMBOLS)
    assert _kinds(days.run(archived)) == [Kind.ARCHIVE]
    assert days.run(archived) == []
    days.insert("ETHUSDT", "BTCUSDT")
    assert _kinds(days.run(archived)) == [Kind.ARCHIVE]
    assert days.archived() == [[0, 1, 2, 3], [5, 4]]
    assert days.run(archived) == []
    assert len(days.seqs()) == 6


def test_a_row_that_is_twice_in_one_group_is_not_taken_for_one_of_another(days: Days) -> None:
    """The archive has as many rows as the day has identities: a group with a row too many is told, and does not go."""
    days.insert("BTCUSDT", "ETHUSDT")
    days.run(dataclasses.replace(ARCHIVED, keep_days=20_000))
    days.client.command(
        f"INSERT INTO {days.database}.market_data SETTINGS insert_deduplicate = 0 "
        f"SELECT * FROM {days.database}.market_data WHERE symbol = 'BTCUSDT'"
    )
    outcomes = days.run()
    assert any(outcome.state is State.FAILED and "twice" in outcome.told for outcome in outcomes)
    assert days.seqs() == [0, 0, 1]


def test_a_run_may_stop_before_any_statement_that_drops(days: Days) -> None:
    """Each next run drops what is left; what is archived is whole, and nothing is added to it."""
    for stop_at in range(4):
        days.insert(*SYMBOLS)
        with contextlib.suppress(Ended):
            days.run(executor=StoppingExecutor(days.client, stop_at))
        before = sum(map(len, days.archived()))
        days.run()
        assert days.seqs() == []
        rows_of = sorted(seq for piece in days.archived() for seq in piece)
        assert rows_of == list(range(4 * (stop_at + 1)))
        assert before == len(rows_of), "all groups were in the archive before the first went"


def test_groups_move_to_the_tier_and_are_read_with_it(days: Days) -> None:
    """Every partition of a day moves; the view has each row once."""
    days.insert(*SYMBOLS)
    days.insert("BTCUSDT", day=(server_time_ns(days.executor) - FIRST_NS) // DAY_NS)
    assert set(_kinds(days.run(TIERED))) == {Kind.MOVE}
    assert (days.seqs(), days.seqs("archived_market_data")) == ([4], [0, 1, 2, 3])
    assert days.seqs("market_data_all") == [0, 1, 2, 3, 4]
    days.insert("ETHUSDT")
    for table in ("market_data", "archived_market_data"):
        Repartition(days.executor, days.database, table, MARKET_DATA.policy, quiet_s=0.0).run()
    days.run(TIERED)
    assert (days.seqs(), days.seqs("market_data_all")) == ([4], [0, 1, 2, 3, 4, 5])


def test_bars_of_each_group_are_whole_before_it_goes(
    client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """Groups of two days go one after the other, and bars are those of all rows, over midnight too."""
    desk = Desk(client, database)
    client.command(f"SYSTEM STOP MERGES {database}.market_data")
    midnight, s_ns = FIRST_NS + DAY_NS, 10**9
    for symbol, px in zip(SYMBOLS, (100.0, 200.0, 300.0, 400.0), strict=True):
        feed = ("binance.spot", symbol)
        quotes = [Said(*feed, midnight - 5 * s_ns, (), quote=(px, px + 1.0))]
        trades = [Said(*feed, midnight + n * 40 * s_ns, (), trade=(px + n, 1.0)) for n in range(-2, 3)]
        desk.put([*quotes, *trades])
    for bars in ALL_BARS:
        desk.build(bars)
    expected = [desk.every_value(bars) for bars in ALL_BARS]
    assert all(expected)
    desk.empty(*(bars.stored for bars in ALL_BARS))
    Repartition(desk.executor, database, "market_data", POLICY, quiet_s=0.0).run()
    partitions = int(
        client.query(f"SELECT uniqExact(_partition_id) FROM {database}.market_data").result_rows[0][0]
    )
    assert partitions > 2
    runner = Runner(
        desk.executor,
        database,
        store=FolderStore(tmp_path / "archive"),
        source_of=lambda place, parts: pytest.fail("no archive is asked for"),
        alter_ttl=lambda table: None,
        lock=Doing(),
        recorder_version="0",
        limits=Limits(settle_s=-1e12, merge_parts=1_000),
        now_ns=lambda: midnight + 30 * DAY_NS,
        barring=BarsProof(desk.executor, database),
    )
    barred = RetentionPolicy(table="market_data", partition=Partition.DAY, keep_days=7, bars=True)
    kinds = _kinds(list(runner.run(Subject(barred, POLICY))))
    assert kinds.count(Kind.DROP) == partitions
    assert client.query(f"SELECT count() FROM {database}.market_data").result_rows == [(0,)]
    assert [desk.every_value(bars) for bars in ALL_BARS] == expected


def test_an_archived_day_comes_back_into_other_groups(days: Days) -> None:
    """What groups gave to the archive is proven of the day with other groups, or with none: nothing is added to it."""
    archived = dataclasses.replace(ARCHIVED, keep_days=20_000)
    days.insert(*SYMBOLS)
    days.run(archived)
    Repartition(days.executor, days.database, "market_data", MARKET_DATA.policy, quiet_s=0.0).run()
    assert days.groups() == 1
    assert days.run(archived) == []
    assert _kinds(days.run()) == [Kind.VERIFY_ARCHIVE, Kind.DROP]
    assert days.archived() == [[0, 1, 2, 3]]
