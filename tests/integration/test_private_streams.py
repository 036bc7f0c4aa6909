"""Private messages and own order rows, through ingest, into the real engine: what a reader then finds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from harness.backends import Backend
from harness.binance_private import NS, account_update, raw
from harness.ingest_files import run_command
from harness.private_session import ACCOUNT, Session, make_session
from harness.waiting import until

from recorder import Recorder, Settings
from recorder.backoff import Backoff
from recorder.bus.base import Encoding, Subscription
from recorder.bus.inprocess import InProcessBus
from recorder.bus.options import BusOptions
from recorder.ingest import IngestOptions, IngestResult, run_ingest
from recorder.ingest.normalisers import open_normaliser
from recorder.normalise.order_ids import OrderIds
from recorder.normalise.order_ids_load import load_order_ids
from recorder.service.consumer import Consumer
from recorder.service.rows import MessageRows
from recorder.service.topics import TopicMap
from recorder.sink.errors import SinkUnavailable
from schemas.core.tables import PACK
from schemas.executor import ClientExecutor
from schemas.manager import Manager

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

ORDERS = 90
OPTIONS = IngestOptions(normaliser_options={"account_id": ACCOUNT})
Ingest = Callable[..., IngestResult]
Ask = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture
def settings(backend: Backend, database: str, tmp_path: pathlib.Path) -> Settings:
    return Settings(
        target=backend.target, database=database, data_dir=tmp_path / "data", migrate_on_start=True, ttl=False
    )


@pytest.fixture
def ingest(settings: Settings) -> Ingest:
    """One run, with a recorder of its own."""

    def run(*files: pathlib.Path) -> IngestResult:
        with Recorder(settings) as recorder:
            return run_ingest(recorder, files, OPTIONS)

    return run


@pytest.fixture
def ask(client: Client, database: str) -> Ask:
    def rows(sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in client.query(sql.replace("{db}", database)).result_rows]

    return rows


@pytest.fixture(scope="module")
def session() -> Session:
    return make_session(ORDERS)


def check(session: Session, ask: Ask) -> None:
    """What every reader is to find, whichever way the rows came."""
    fills = ask(
        "SELECT venue, symbol, fill_id, client_order_id, fill_qty, fill_price, fees, strategy FROM {db}.fills_unique"
    )
    assert {
        (venue, symbol, fill_id): (client, qty, price, fee)
        for venue, symbol, fill_id, client, qty, price, fee, _ in fills
    } == session.fills
    assert len(fills) == len(session.fills), "one row a fill"
    for *_, client, _, _, _, strategy in fills:
        assert strategy == session.strategies.get(client), client
    statuses = dict(ask("SELECT client_order_id, status FROM {db}.orders_current WHERE strategy IS NOT NULL"))
    assert statuses == session.statuses
    latencies = ask(
        "SELECT client_order_id, submit_latency_ns FROM {db}.orders_current WHERE submit_latency_ns IS NOT NULL"
    )
    assert dict(latencies) == session.latencies
    assert ask("SELECT count() FROM {db}.orders_current WHERE conflicting_finals > 0") == [(0,)]


def test_a_session_becomes_orders_and_fills_with_their_strategy(
    ingest: Ingest, ask: Ask, session: Session, tmp_path: pathlib.Path
) -> None:
    """Own rows first, as they are sent: final statuses, latencies, one row a fill with its fee; again adds nothing."""
    own, private = session.write(tmp_path)
    result = ingest(own, private)
    assert result.ok
    assert not result.bad_records
    assert result.unresolved == {"orders": 1, "fills": 1}, "the liquidation is nobody's here"
    check(session, ask)
    assert ask("SELECT count() FROM {db}.fills")[0][0] > len(session.fills), "the venue told some twice"
    [flat] = ask("SELECT venue, symbol, position_qty, avg_price FROM {db}.positions_intraday_current")
    assert flat == ("binance.usdm", "ETHUSDT", Decimal(0), None)
    [wallet] = ask("SELECT account_id, venue, currency, cash FROM {db}.account_state_current")
    assert wallet == (ACCOUNT, "binance.usdm", "USDT", Decimal("122624.12345678"))
    [(intent, approved, decision, correlation)] = ask(
        "SELECT intent_id, approved_id, decision_id, correlation_id FROM {db}.orders "
        "WHERE client_order_id = 'c-1' AND broker_order_id IS NOT NULL ORDER BY ts_local LIMIT 1"
    )
    assert (intent, approved, decision, correlation) == ("i-c-1", "a-c-1", "d-c-1", "k-c-1")
    again = ingest(own, private)
    assert not any(again.inserted.values())
    check(session, ask)


def test_a_recorder_that_starts_knows_the_orders_from_before(
    ingest: Ingest, ask: Ask, session: Session, tmp_path: pathlib.Path
) -> None:
    """The map is filled from the database: the same tables, though the venue's messages come to another process."""
    own, private = session.write(tmp_path)
    ingest(own)
    result = ingest(private)
    assert result.unresolved == {"orders": 1, "fills": 1}
    check(session, ask)


def test_venue_rows_that_come_first_stay_null_and_are_counted(
    ingest: Ingest, ask: Ask, session: Session, tmp_path: pathlib.Path
) -> None:
    """Fills are one a fill all the same, and orders have their strategy from their own row."""
    own, private = session.write(tmp_path)
    result = ingest(private, own)
    told = ask("SELECT count() FROM {db}.fills")[0][0]
    assert result.unresolved["fills"] == told
    assert ask("SELECT count(), countIf(strategy IS NULL) FROM {db}.fills_unique") == [
        (len(session.fills),) * 2
    ]
    statuses = dict(ask("SELECT client_order_id, status FROM {db}.orders_current WHERE strategy IS NOT NULL"))
    assert statuses == session.statuses


def test_the_map_is_loaded_with_the_venues_numbers(
    ingest: Ingest,
    backend: Backend,
    database: str,
    settings: Settings,
    session: Session,
    tmp_path: pathlib.Path,
) -> None:
    """A row with the venue's number alone finds its order; the query gives the newest, at most what the map holds."""
    ingest(*session.write(tmp_path))
    with Recorder(settings) as recorder:
        ids, few = OrderIds(1_000), OrderIds(10)
        assert recorder.ask(lambda sink: load_order_ids(sink, database, ids), 60) == ORDERS
        assert recorder.ask(lambda sink: load_order_ids(sink, database, few), 60) == len(few) == 10
        assert recorder.ask(lambda sink: load_order_ids(sink, database, OrderIds(0)), 60) == 0
    fill = {"account_id": ACCOUNT, "venue": "binance.usdm", "symbol": "BTCUSDT", "broker_order_id": "500"}
    taken = ids.take("fills", fill)
    assert (taken["client_order_id"], taken["strategy"]) == ("c-1", session.strategies["c-1"])
    spot = ids.take("fills", fill | {"venue": "binance.spot"})
    assert (spot["client_order_id"], spot["strategy"]) == ("c-0", session.strategies["c-0"])
    assert len(ids) == ORDERS
    order = ids.take("orders", {"account_id": ACCOUNT, "client_order_id": "c-2", "symbol": "ETHUSDT"})
    own = session.own[2]
    assert {name: order[name] for name in ("ts_send", "ts_intent", "decision_id")} == {
        name: own[name] for name in ("ts_send", "ts_intent", "decision_id")
    }
    newest = [f"c-{number}" for number in range(ORDERS - 5, ORDERS)]
    assert all(
        few.take("fills", {"account_id": ACCOUNT, "client_order_id": one}).get("strategy") for one in newest
    )


def test_old_orders_are_not_read(client: Client, database: str, settings: Settings) -> None:
    """Only those of the last days before the newest row, however old the table; a row of a clock gone wild is none."""
    Manager(ClientExecutor(client), [PACK], database, ttl=False).up()
    day = 86_400_000_000_000
    for number, at in enumerate((10, 17, 18, 6_000)):
        client.insert(
            "orders",
            [["main", f"c-{number}", "mm", "S", "Open", 20_000 * day + at * day, 1, number]],
            column_names=[
                "account_id",
                "client_order_id",
                "strategy",
                "symbol",
                "status",
                "ts_local",
                "_log",
                "_seq",
            ],
            database=database,
            settings={"async_insert": 0},
        )
    with Recorder(settings) as recorder:
        ids = OrderIds()
        assert recorder.ask(lambda sink: load_order_ids(sink, database, ids), 60) == 2
        assert recorder.ask(lambda sink: load_order_ids(sink, database, ids), 60) == 0
        assert recorder.ask(lambda sink: load_order_ids(sink, database, ids, days=30), 60) == 1


def test_without_a_table_or_a_database_rows_go_on_as_they_are(
    client: Client, database: str, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """A missing table and a database that is down cost the strategy of rows, not the rows: one line in the log."""
    ids = OrderIds()
    with Recorder(settings) as recorder:
        client.command(f"DROP TABLE {database}.orders SYNC")
        assert recorder.ask(lambda sink: load_order_ids(sink, database, ids), 60) is None

    class Down:
        async def query(self, sql: str, parameters: Any = None) -> Any:
            raise SinkUnavailable("nobody answers at db:8123")

    assert asyncio.run(load_order_ids(Down(), database, ids)) is None
    assert len(ids) == 0
    said = [record for record in caplog.records if "not known" in record.getMessage()]
    assert len(said) == 2


@pytest.mark.parametrize(("arguments", "found"), [(("--account", "other"), "other"), ((), ACCOUNT)])
def test_the_command_takes_the_account(
    arguments: tuple[str, ...], found: str, session: Session, tmp_path: pathlib.Path
) -> None:
    """By its option; without it rows have the account of the order they lead to."""
    own, private = session.write(tmp_path)
    at = {"RECORDER_DATA_DIR": str(tmp_path / "data")}
    done = run_command("ingest", "--json", *arguments, own, private, cwd=tmp_path, **at)
    assert done.returncode == 0, done.stderr
    sql = "SELECT account_id FROM fills WHERE client_order_id = 'c-2' LIMIT 1"
    asked = run_command("query", "--json", sql, cwd=tmp_path, **at)
    assert json.loads(asked.stdout) == [{"account_id": found}], asked.stderr


# -- over a bus -----------------------------------------------------------------------------------------------------


class Deaf:
    """A subscription whose acknowledgements get lost."""

    def __init__(self, subscription: Subscription):
        self._subscription = subscription

    def __getattr__(self, name: str) -> Any:
        return getattr(self._subscription, name)

    async def ack(self, messages: Any) -> None:
        """To nobody."""


@contextlib.asynccontextmanager
async def consuming(
    recorder: Recorder,
    bus: InProcessBus,
    ids: OrderIds,
    wrap: Callable[[Subscription], Any] = lambda found: found,
) -> AsyncIterator[Consumer]:
    """As the service does it: a normaliser of its own, and the map of orders."""
    options = {"account_id": ACCOUNT, "snapshot_interval_s": 1}
    rows = MessageRows(
        recorder.tables, "inproc://", recorder.recorder_run_id,
        open_normaliser=lambda name: open_normaliser(name, options), order_ids=ids,
    )  # fmt: skip
    window = BusOptions()
    consumer = Consumer(
        recorder, wrap(bus.subscribe(window)), lambda: bus.subscribe(window), rows,
        TopicMap({"user.*": "normaliser:binance"}),
        window=(window.window_messages, window.window_bytes), backoff=Backoff(0.01, 0.05),
    )  # fmt: skip
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.close()


def publish(bus: InProcessBus, session: Session) -> int:
    """Both sides as they happen; how many messages that is."""
    told = [(row["ts_local"], "orders", raw(row)) for row in session.own]
    told += [(at, "user.main", raw(message)) for at, message in session.venue]
    for at, topic, payload in sorted(told):
        assert bus.publish(topic, payload, Encoding.JSON, ts_ns=at)
    return len(told)


async def test_a_session_over_a_bus_survives_a_takeover(
    settings: Settings, ask: Ask, session: Session, database: str
) -> None:
    """Both sides by turns; all of it comes again, to another normaliser and an empty map filled from the database:
    what was recorded first stands, and nothing is there twice."""
    bus = InProcessBus()
    with Recorder(settings) as recorder:
        messages = publish(bus, session)
        async with consuming(recorder, bus, OrderIds(), Deaf) as first:
            await until(lambda: _taken(first) == messages and not first.pending, "every row durable")
            await asyncio.to_thread(recorder.flush, 60)
        told = ask("SELECT count(), uniqExact(_log, _seq) FROM {db}.fills")[0]
        ids = OrderIds()
        assert await asyncio.to_thread(recorder.ask, lambda sink: load_order_ids(sink, database, ids), 60)
        async with consuming(recorder, bus, ids):
            await until(lambda: bus.waiting == 0, "acknowledgement")
        assert ask("SELECT count(), uniqExact(_log, _seq) FROM {db}.fills")[0] == told
        assert told[0] == told[1]
        assert ask("SELECT count() - uniqExact(_log, _seq) FROM {db}.orders") == [(0,)]
    check(session, ask)


async def test_positions_and_wallets_are_recorded_again_by_the_clock(settings: Settings, ask: Ask) -> None:
    """While nothing comes; as the recorder's own rows, with the venue's time of the state."""
    bus = InProcessBus()
    with Recorder(settings) as recorder:
        async with consuming(recorder, bus, OrderIds()):
            assert bus.publish("user.main", raw(account_update()), Encoding.JSON, ts_ns=NS)
            sql = "SELECT count() FROM {db}.account_state WHERE ts_local > ts + 1000"
            deadline = asyncio.get_running_loop().time() + 60
            while ask(sql) < [(2,)]:
                assert asyncio.get_running_loop().time() < deadline, "no snapshots came"
                await asyncio.sleep(0.1)
        assert ask("SELECT uniqExact(_log), uniqExact(ts), uniqExact(cash) FROM {db}.account_state") == [
            (2, 1, 1)
        ]
        held = ask("SELECT DISTINCT position_qty, avg_price, account_id FROM {db}.positions_intraday")
        assert held == [(Decimal("-0.040"), Decimal("64089.2"), ACCOUNT)]


def _taken(consumer: Consumer) -> int:
    counts = consumer.counts().bus
    return counts.messages if counts is not None else 0


# -- the tables -----------------------------------------------------------------------------------------------------


def test_wallets_and_hedged_positions_have_states_of_their_own(
    client: Client, database: str, ask: Ask
) -> None:
    """By venue and currency, and by venue and side; a repeated state with the venue's time gives way to newer news."""
    Manager(ClientExecutor(client), [PACK], database, ttl=False).up()
    now = 1_723_161_255_000_000_000

    def add(table: str, seq: int, at: int, **values: Any) -> None:
        row = {"ts_local": now + at, "account_id": "a", "_log": 1, "_seq": seq, **values}
        client.insert(
            table,
            [list(row.values())],
            column_names=list(row),
            database=database,
            settings={"async_insert": 0},
        )

    for seq, (venue, currency, cash) in enumerate(
        [("v", "BTC", 1), ("v", "USDT", 2), ("w", "BTC", 3), (None, None, 4)]
    ):
        add("account_state", seq, seq, venue=venue, currency=currency, cash=Decimal(cash))
    add("account_state", 9, 9, venue="v", currency="BTC", cash=Decimal(9))
    states = ask("SELECT venue, currency, cash FROM {db}.account_state_current ORDER BY cash")
    assert states == [("v", "USDT", 2), ("w", "BTC", 3), (None, None, 4), ("v", "BTC", 9)]
    held = {"symbol": "S", "venue": "v"}
    add("positions_intraday", 1, 0, ts=now, position_side="long", position_qty=Decimal(5), **held)
    add("positions_intraday", 2, 0, ts=now, position_side="short", position_qty=Decimal(-5), **held)
    add(
        "positions_intraday", 3, 90, ts=now, position_side="long", position_qty=Decimal(5), **held
    )  # by the timer
    add("positions_intraday", 4, 95, ts=now + 80, position_side="long", position_qty=Decimal(7), **held)
    found = ask(
        "SELECT position_side, position_qty FROM {db}.positions_intraday_current ORDER BY position_side"
    )
    assert found == [("long", 7), ("short", -5)]
