"""Another number of symbol groups on real tables: every row stays once, whatever stops, comes late or is in the way."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from harness.backends import Backend, Place
from harness.killing import Killable
from harness.recorders import WAIT_S, wait_until
from harness.retention_runs import Ended, StoppingExecutor

from recorder.packs import packs_of
from recorder.repartition import CannotRepartition, Moved, Repartition
from recorder.settings import Settings
from schemas.core.market import MARKET_DATA
from schemas.core.tables import PACK
from schemas.errors import LockTimeout
from schemas.executor import ClientExecutor
from schemas.lease_keeper import LeaseKeeper
from schemas.live import read_tables
from schemas.manager import Manager
from schemas.policy import TablePolicy

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

SWAPPED = 6
"""Commands of a move until the names are swapped: create, three days, mark, exchange."""
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT")
BY_DAY = "toYYYYMMDD(ts_local)"
INSERT = (
    "INSERT INTO {table} (ts_local, symbol, last_price, bid_pxs, trade_id, run_id, _log, _seq) "
    "SELECT toDateTime64('2024-08-08 00:00:00', 9, 'UTC') + number * {step}, "
    "['BTCUSDT', 'ETHUSDT', 'SOLUSDT', 'XRPUSDT', 'ADAUSDT'][1 + number % 5], number / 3, [number, 1.5], "
    "if(number % 2, NULL, number), 'run', {log}, number FROM numbers({rows}) SETTINGS insert_deduplicate = 0"
)


def _key(groups: int) -> str:
    return BY_DAY if groups == 1 else f"({BY_DAY}, cityHash64(symbol) % {groups})"


def _policy(groups: int) -> TablePolicy:
    return dataclasses.replace(MARKET_DATA.policy, symbol_groups=groups)


class Desk:
    """Market data of three days."""

    def __init__(self, client: Client, database: str, like: str):
        self.client, self.database, self.executor = client, database, ClientExecutor(client)
        self.table = f"{database}.market_data"
        for name in ("market_data", "orders"):
            client.command(f"CREATE TABLE {database}.{name} AS {like}.{name}")
        self.insert(300, step=800)  # 0:00 of the first day to noon of the third
        self.rows = self.content()

    def insert(self, rows: int, *, log: int = 7, step: float = 1, table: str = "") -> None:
        self.client.command(INSERT.format(table=table or self.table, rows=rows, log=log, step=step))

    def content(self, table: str = "") -> list[Any]:
        return list(self.client.query(f"SELECT * FROM {table or self.table} ORDER BY _log, _seq").result_rows)

    def move(
        self, groups: int, *, executor: ClientExecutor | None = None, table: str = "market_data", **more: Any
    ) -> Moved:
        return self.way(groups, executor=executor, table=table, **more).run()

    def way(
        self, groups: int, *, executor: ClientExecutor | None = None, table: str = "market_data", **more: Any
    ) -> Repartition:
        options = {"quiet_s": 0.0} | more
        return Repartition(executor or self.executor, self.database, table, _policy(groups), **options)

    def key(self) -> str:
        return read_tables(self.executor, self.database)["market_data"].partition_key

    def tables(self) -> list[str]:
        return [name for name in read_tables(self.executor, self.database) if "repartition" in name]

    def comment(self) -> str:
        sql = f"SELECT comment FROM system.tables WHERE database = '{self.database}' AND name = 'market_data'"
        return str(self.client.query(sql).result_rows[0][0])


@pytest.fixture(scope="module")
def like(backend: Backend) -> Iterator[str]:
    """A database with the tables of the core pack, as others are made."""
    with backend.fresh_database() as name:
        Manager(ClientExecutor(backend.client), [PACK], name, ttl=False).up()
        yield name


@pytest.fixture
def desk(client: Client, database: str, like: str) -> Desk:
    return Desk(client, database, like)


def test_there_and_back_the_table_is_what_it_was(desk: Desk) -> None:
    """Every value of every row, columns, codecs, indices and settings stay; partitions and nothing else are others."""
    shown = f"SHOW CREATE TABLE {desk.table}"
    before = desk.client.query(shown).result_rows[0][0]
    desk.client.command(f"ALTER TABLE {desk.table} MODIFY COMMENT 'it''s mine'")
    assert desk.move(8) == Moved("market_data", 300, 0)
    assert desk.client.query(shown).result_rows[0][0].replace(_key(8), BY_DAY).split("\nCOMMENT")[0] == before
    partitions = desk.client.query(f"SELECT DISTINCT _partition_id FROM {desk.table}").result_rows
    assert all(len(one.split("-")) == 2 for (one,) in partitions)
    assert len(partitions) > 3
    assert (desk.content(), desk.tables(), desk.comment()) == (desk.rows, [], "it's mine")
    by_symbol = f"SELECT count() FROM {desk.table} WHERE symbol = 'BTCUSDT'"
    assert desk.client.query(by_symbol).result_rows == [(60,)]
    assert desk.move(8) == Moved("market_data", 0, 0)
    assert desk.move(3) == Moved("market_data", 300, 0)
    assert desk.move(1) == Moved("market_data", 300, 0)
    assert (desk.key(), desk.content(), desk.tables()) == (BY_DAY, desk.rows, [])


def test_it_may_stop_before_any_statement(desk: Desk) -> None:
    """Whatever was done before a stop, readers see each row once, and the next run completes it."""
    targets = itertools.cycle((4, 1))
    stops = 0
    for stop_at in range(40):
        groups = next(targets)
        try:
            desk.move(groups, executor=StoppingExecutor(desk.client, stop_at))
        except Ended:
            stops += 1
        else:
            break
        assert desk.content() == desk.rows
        desk.move(groups)
        assert (desk.key(), desk.content(), desk.tables()) == (_key(groups), desk.rows, [])
    assert stops >= 8, "create, three days, mark, exchange, setting, drop and comment are statements"


def test_who_wants_another_number_amid_it_gets_that(desk: Desk) -> None:
    """Stopped amid the copy or after the names were swapped, then asked for other groups, or for none again."""
    amid = 2
    for stop_at, last in ((amid, 2), (SWAPPED, 3), (SWAPPED, 1)):
        with pytest.raises(Ended):
            desk.move(6, executor=StoppingExecutor(desk.client, stop_at))
        desk.move(last)
        assert (desk.key(), desk.content(), desk.tables()) == (_key(last), desk.rows, []), (stop_at, last)
        assert desk.comment() == ""


def test_who_wants_what_there_is_again_copies_nothing(desk: Desk) -> None:
    """Stopped amid the copy, then asked for the groups that the table has: the copy goes, and that is all."""
    with pytest.raises(Ended):
        desk.move(6, executor=StoppingExecutor(desk.client, 2))
    assert desk.move(1) == Moved("market_data", 0, 0)
    assert (desk.key(), desk.content(), desk.tables(), desk.comment()) == (BY_DAY, desk.rows, [], "")


class Between(ClientExecutor):
    """Something happens right before a statement that begins so, once."""

    def __init__(self, client: Client, begins: str, happens: Callable[[], object]):
        super().__init__(client)
        self._begins, self._happens = begins, happens

    def command(self, sql: str) -> object:
        """Run a statement."""
        if sql.startswith(self._begins) and self._happens is not None:
            happens, self._happens = self._happens, lambda: None
            happens()
        return super().command(sql)


@pytest.mark.parametrize("begins", ["INSERT", "EXCHANGE"])
def test_rows_that_come_all_the_same_are_moved_too(desk: Desk, begins: str) -> None:
    """A row that is inserted while days are copied, or right before the names are swapped, is there once."""
    late = Between(desk.client, begins, lambda: desk.insert(3, log=8, step=60_000))
    moved = desk.move(5, executor=late)
    assert moved.late == (3 if begins == "EXCHANGE" else 0)
    rows = desk.content()
    assert [row for row in rows if row[-2] == 7] == desk.rows
    assert [row[-2:] for row in rows if row[-2] == 8] == [(8, 0), (8, 1), (8, 2)]
    assert (desk.key(), desk.tables()) == (_key(5), [])


def test_rows_that_the_recorder_sent_again_come_once(desk: Desk) -> None:
    """A row that got into the old table, and after the swap into the new one as well, is there once."""
    with pytest.raises(Ended):
        desk.move(5, executor=StoppingExecutor(desk.client, SWAPPED))
    assert desk.tables(), "it stopped after the names were swapped"
    desk.insert(3, log=8, table=f"{desk.table}_repartition")
    desk.insert(2, log=8)
    desk.insert(1, log=9)
    assert desk.move(5).late == 1
    assert [row[-2:] for row in desk.content() if row[-2] != 7] == [(8, 0), (8, 1), (8, 2), (9, 0)]


def test_a_day_that_went_amid_it_does_not_come_back(desk: Desk) -> None:
    """A partition that retention drops between a stop and the next run stays gone."""
    with pytest.raises(Ended):
        desk.move(5, executor=StoppingExecutor(desk.client, 4))
    desk.client.command(f"ALTER TABLE {desk.table} DROP PARTITION ID '20240808'")
    left = desk.content()
    assert 0 < len(left) < 300
    desk.move(5)
    assert desk.content() == left


def test_a_day_that_went_after_the_swap_does_not_come_back(desk: Desk) -> None:
    """Nor does one that retention drops from the new table before the old one is gone; what came late does come."""
    with pytest.raises(Ended):
        desk.move(5, executor=StoppingExecutor(desk.client, SWAPPED))
    for (partition,) in desk.client.query(
        f"SELECT DISTINCT _partition_id FROM {desk.table} WHERE toDate(ts_local) = '2024-08-08'"
    ).result_rows:
        desk.client.command(f"ALTER TABLE {desk.table} DROP PARTITION ID '{partition}'")
    left = desk.content()
    assert 0 < len(left) < 300
    desk.client.command(
        f"INSERT INTO {desk.table}_repartition (ts_local, symbol, run_id, _log, _seq) "
        "VALUES ('2024-08-09 01:00:00', 'BTCUSDT', 'run', 8, 0)"
    )
    assert desk.move(5) == Moved("market_data", 1, 1)
    assert [row for row in desk.content() if row[-2] == 7] == left
    assert len(desk.content()) == len(left) + 1


def test_a_row_that_came_twice_in_that_moment_is_told(desk: Desk) -> None:
    """A row that is sent again right when it is moved is in twice, and the move says so."""
    with pytest.raises(Ended):
        desk.move(5, executor=StoppingExecutor(desk.client, SWAPPED))
    desk.insert(3, log=8, table=f"{desk.table}_repartition")
    before = Between(desk.client, "INSERT", lambda: desk.insert(1, log=8))
    assert desk.move(5, executor=before) == Moved("market_data", 3, 3), "what came before that is not moved"
    with pytest.raises(Ended):
        desk.move(4, executor=StoppingExecutor(desk.client, SWAPPED))
    desk.insert(3, log=9, table=f"{desk.table}_repartition")

    class SendsAgain(ClientExecutor):
        """The recorder had looked up its row before the row was moved."""

        def command(self, sql: str) -> object:
            """Run a statement."""
            done = super().command(sql)
            if sql.startswith("INSERT"):
                desk.insert(1, log=9)
            return done

    assert desk.move(4, executor=SendsAgain(desk.client)) == Moved("market_data", 3, 3, doubled=1)


def test_what_a_migration_changes_amid_it_is_kept(desk: Desk) -> None:
    """Codecs, defaults, indices and settings are no columns: a copy without them goes, too, and is made anew."""
    changes = (
        "ADD INDEX more trade_id TYPE minmax GRANULARITY 1",
        "MODIFY COLUMN run_id String CODEC(ZSTD(7))",
        "MODIFY COLUMN run_id DEFAULT 'none'",
        "MODIFY SETTING merge_with_ttl_timeout = 77",
    )
    shown = f"SHOW CREATE TABLE {desk.table}"
    groups = 1
    for change in changes:
        groups += 1
        with pytest.raises(Ended):
            desk.move(groups, executor=StoppingExecutor(desk.client, 3))
        key = desk.key()
        desk.client.command(f"ALTER TABLE {desk.table} {change}")
        before = desk.client.query(shown).result_rows[0][0]
        desk.move(groups)
        assert desk.client.query(shown).result_rows[0][0] == before.replace(key, _key(groups)), change
    assert desk.content() == desk.rows


def test_what_is_changed_while_rows_are_copied_keeps_the_table(desk: Desk) -> None:
    """An ALTER by hand in the last moment is not lost: the names are not swapped, and the next run has it."""
    alter = f"ALTER TABLE {desk.table} ADD COLUMN more String DEFAULT 'x'"
    with pytest.raises(CannotRepartition, match="was altered"):
        desk.move(5, executor=Between(desk.client, "ALTER", lambda: desk.client.command(alter)))
    assert desk.key() == BY_DAY
    rows = desk.content()
    desk.move(5)
    assert (desk.content(), desk.key()) == (rows, _key(5))


def test_detached_parts_keep_the_table(desk: Desk) -> None:
    """What was detached, or broken and set aside, would go with the old table: refused, and nothing is copied."""
    desk.client.command(f"ALTER TABLE {desk.table} DETACH PARTITION ID '20240808'")
    with pytest.raises(CannotRepartition, match="detached parts, such as 20240808_"):
        desk.move(5)
    assert (desk.key(), desk.tables()) == (BY_DAY, [])
    desk.client.command(f"ALTER TABLE {desk.table} ATTACH PARTITION ID '20240808'")
    desk.move(5)
    assert desk.content() == desk.rows


def test_what_is_not_to_be_changed_is_in_nobodys_way(desk: Desk) -> None:
    """A table that is parted as it should be may have whatever would keep it from being changed."""
    desk.client.command(
        f"CREATE MATERIALIZED VIEW {desk.database}.v ENGINE = Memory AS SELECT 1 AS a FROM {desk.table}"
    )
    look = desk.way(1).look()
    assert look is not None
    assert not look.due


def test_a_key_by_the_symbol_itself_is_refused_at_once(desk: Desk) -> None:
    """Its partitions are named by a hash, and no day can be told from that."""
    name = "by_symbol"
    desk.client.command(
        f"CREATE TABLE {desk.database}.{name} (ts_local DateTime64(9, 'UTC'), symbol String, _log UInt64, _seq UInt64) "
        f"ENGINE = MergeTree PARTITION BY ({BY_DAY}, symbol) ORDER BY ts_local"
    )
    desk.client.command(f"INSERT INTO {desk.database}.{name} VALUES ('2024-08-08 00:00:00', 'BTCUSDT', 1, 1)")
    with pytest.raises(CannotRepartition, match="expected ids such as"):
        desk.move(5, table=name)
    assert desk.tables() == []


def test_a_column_that_a_migration_adds_amid_it_is_there(desk: Desk) -> None:
    """The copy of the table as it was goes, and is made anew."""
    with pytest.raises(Ended):
        desk.move(5, executor=StoppingExecutor(desk.client, 3))
    desk.client.command(f"ALTER TABLE {desk.table} ADD COLUMN more String DEFAULT 'x' AFTER symbol")
    rows = desk.content()
    desk.move(5)
    assert desk.content() == rows


def test_what_cannot_be_done_is_refused_and_nothing_changes(desk: Desk) -> None:
    """Another table of that name, a view that runs at insert, a key that is another by time."""
    desk.client.command(f"CREATE TABLE {desk.table}_repartition (a UInt8) ENGINE = MergeTree ORDER BY a")
    with pytest.raises(CannotRepartition, match="look what it is"):
        desk.move(5)
    desk.client.command(f"DROP TABLE {desk.table}_repartition SYNC")
    desk.client.command(
        f"CREATE MATERIALIZED VIEW {desk.database}.v ENGINE = Memory AS SELECT 1 AS a FROM {desk.table}"
    )
    with pytest.raises(CannotRepartition, match="go through the view v"):
        desk.move(5)
    desk.client.command(f"DROP TABLE {desk.database}.v SYNC")
    with pytest.raises(CannotRepartition, match="only these are changed"):
        Repartition(desk.executor, desk.database, "orders", _policy(5)).run()
    assert (desk.key(), desk.content(), desk.tables()) == (BY_DAY, desk.rows, [])
    assert desk.way(5, table="nothing").look() is None


def test_rows_that_are_not_shown_keep_the_table_as_it_is(desk: Desk, backend: Backend) -> None:
    """A user with a filter would copy what it sees, and drop the rest: refused before anything is copied."""
    with contextlib.closing(backend.open_client()) as narrow:
        narrow.set_client_setting("additional_table_filters", f"{{'{desk.table}': '_seq < 200'}}")
        with pytest.raises(CannotRepartition, match="is shown"):
            desk.move(5, executor=ClientExecutor(narrow))
    assert (desk.key(), desk.content()) == (BY_DAY, desk.rows)


def test_while_rows_come_it_does_not_begin(desk: Desk) -> None:
    """On a server a recorder that still writes is told, and nothing was made."""
    seqs = itertools.count(10)
    writing = desk.way(5, sleep=lambda _: desk.insert(1, log=next(seqs)))
    with pytest.raises(CannotRepartition, match="stop its recorders"):
        writing.run()
    assert desk.tables() == []


def test_who_reads_meanwhile_sees_each_row_once(desk: Desk, backend: Backend) -> None:
    """Whenever a query begins, it counts all rows, before, amid and after the swap of names."""
    counts: list[int] = []
    over = threading.Event()

    def read() -> None:
        with contextlib.closing(backend.open_client()) as other:
            while not over.is_set():
                counts.append(int(other.query(f"SELECT count(bid_pxs) FROM {desk.table}").result_rows[0][0]))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for groups in (4, 1):
            desk.move(groups)
    finally:
        over.set()
        thread.join(WAIT_S)
    assert set(counts) == {300}
    assert len(counts) > 10


def test_what_an_earlier_run_left_running_is_ended_first(desk: Desk, backend: Backend) -> None:
    """A command that was killed leaves its statement to the server: it must not bring rows after they are compared."""
    slow = (
        f"INSERT INTO {desk.table} (symbol) SETTINGS log_comment = 'repartition {desk.database}.market_data' "
        "SELECT toString(sleepEachRow(1)) FROM numbers(300) SETTINGS max_block_size = 1, "
        "function_sleep_max_microseconds_per_block = 0"
    )
    ended: list[Exception] = []

    def running() -> bool:
        sql = "SELECT count() FROM system.processes WHERE startsWith(Settings['log_comment'], 'repartition')"
        return bool(desk.client.query(sql).result_rows[0][0])

    def earlier() -> None:
        with contextlib.closing(backend.open_client()) as other:
            try:
                other.command(slow)
            except Exception as error:  # noqa: BLE001 - the test looks at it
                ended.append(error)

    thread = threading.Thread(target=earlier)
    thread.start()
    wait_until(running, "the earlier statement")
    desk.move(5)
    thread.join(WAIT_S)
    assert len(ended) == 1, "it was ended, and did not end by itself"
    assert (desk.key(), desk.content()) == (_key(5), desk.rows)


def test_the_check_says_what_to_do_and_then_nothing(desk: Desk) -> None:
    """Where the groups alone differ, the remedy is the command; afterwards nothing differs."""
    settings = Settings(packs=("core",), tables={"market_data": {"symbol_groups": 8}})
    manager = Manager(desk.executor, packs_of(settings), desk.database, ttl=False)
    (difference,) = [one for one in manager.check() if one.table == "market_data"]
    assert (difference.expected, difference.observed) == (_key(8), BY_DAY)
    assert "recorder migrate repartition market_data" in difference.remedy
    desk.move(8)
    assert [one for one in manager.check() if one.table == "market_data"] == []


def test_the_check_tells_of_one_that_was_interrupted(desk: Desk) -> None:
    """Also when the names are swapped, and the table itself is as it should be: the old one may have late rows."""
    settings = Settings(packs=("core",), tables={"market_data": {"symbol_groups": 8}})
    manager = Manager(desk.executor, packs_of(settings), desk.database, ttl=False)
    with pytest.raises(Ended):
        desk.move(8, executor=StoppingExecutor(desk.client, SWAPPED))
    (left,) = [one for one in manager.check() if one.table == "market_data" and one.kind != "setting"]
    assert (left.kind, left.what) == ("unfinished_repartition", "market_data_repartition")
    assert "recorder migrate repartition market_data --yes" in left.remedy
    desk.move(8)
    assert [one for one in manager.check() if one.table == "market_data"] == []


def test_a_statement_may_take_longer_than_the_lock_lasts(desk: Desk, backend: Backend) -> None:
    """The lock is renewed beside it, so nobody takes it over and ends the statement; a lost one is told."""
    lease_s = 2
    with contextlib.closing(backend.open_client()) as other:
        keeping = Manager(ClientExecutor(other), [PACK], desk.database, lease_s=lease_s)
        second = Manager(desk.executor, [PACK], desk.database, lease_s=lease_s, lock_timeout_s=2.5 * lease_s)
        with (
            keeping.alone() as lease,
            LeaseKeeper(lease, name="repartition-lock", renew_s=lease_s / 8) as keeper,
        ):
            with pytest.raises(LockTimeout), second.alone():
                pass
            keeper.check()
        with second.alone():
            pass


# -- the command --


def _groups(number: int) -> dict[str, str]:
    return {"RECORDER_TABLES__MARKET_DATA__SYMBOL_GROUPS": str(number)}


def test_a_killed_command_is_completed_by_the_next(place: Place, tmp_path: pathlib.Path) -> None:
    """`kill -9` before or after a statement: all rows are read once, and the next run ends as if nothing had been."""
    command = Killable(tmp_path / "data", place, _groups(8))
    command.done("simulate", "--rows", "600", **_groups(1))
    (look,) = json.loads(command.done("migrate", "repartition", "--json"))["tables"]
    rows = look["rows"]
    assert (look["table"], look["present"], look["wanted"]) == ("market_data", BY_DAY, _key(8))
    assert rows > 100
    move = ("migrate", "repartition", "market_data", "--yes")
    for step, key in (("INSERT", BY_DAY), ("EXCHANGE", _key(8)), ("DROP", _key(8))):
        command.killed(*move, step=f"after {step} of repartition")
        (found,) = command.asked(
            "SELECT toUInt32(count()) AS n, toUInt32(uniqExact(_log, _seq)) AS u, (SELECT partition_key FROM "
            "system.tables WHERE database = currentDatabase() AND name = 'market_data') AS k FROM market_data"
        )
        assert found == {"n": rows, "u": rows, "k": key}, step
    assert len(json.loads(command.done("migrate", "repartition", "--yes", "--json"))["tables"]) == 1
    done = json.loads(command.done("migrate", "repartition", "--yes", "--json"))
    assert done["tables"] == [], "the mark is gone from the comment"
    assert command.run("migrate", "check").returncode == 0, "the table has its TTL and settings"
