"""An account that trades with itself: two fills under one trade id, through the real engine and across migrations."""

from __future__ import annotations

import itertools
import json
import pathlib
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from harness.backends import Backend, Place
from harness.binance_private import futures_trade, raw, spot_trade, trade_lite
from harness.ingest_files import START_NS, run_command, write_lines

from recorder import Recorder, Settings
from recorder.ingest import IngestOptions, IngestResult, run_ingest
from schemas.core.tables import PACK

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

BUYER, SELLER = "c-buy", "c-sell"
TRADE = 77
FEES = {"BUY": "0.5", "SELL": "0.25"}
TOLD = tuple(itertools.product(("full", "lite"), ("BUY", "SELL")))
"""What a futures venue says of one trade of an account with itself."""
Ask = Callable[[str], list[tuple[Any, ...]]]

OLD_PACK = """
import dataclasses, pathlib
from schemas.core.tables import PACK as CORE
PACK = dataclasses.replace(CORE, folder=pathlib.Path(__file__).parent / "migrations")
"""


def said(kind: str, side: str, trade: int = TRADE) -> dict[str, Any]:
    """One of the four messages; each side is an order of its own."""
    order = {"S": side, "c": BUYER if side == "BUY" else SELLER, "i": 1 if side == "BUY" else 2}
    if kind == "lite":
        return trade_lite(trade, **order, m=side == "BUY")
    return futures_trade(trade, **order, m=side == "BUY", n=FEES[side])


def capture(path: pathlib.Path, messages: list[dict[str, Any]]) -> pathlib.Path:
    lines = [b"%d %s" % (START_NS + place, raw(message)) for place, message in enumerate(messages)]
    return write_lines(path, lines)


@pytest.fixture
def ingest(backend: Backend, database: str, tmp_path: pathlib.Path) -> Callable[..., IngestResult]:
    """One run, with a recorder of its own."""
    settings = Settings(
        target=backend.target, database=database, data_dir=tmp_path / "data", migrate_on_start=True, ttl=False
    )

    def run(*files: pathlib.Path) -> IngestResult:
        with Recorder(settings) as recorder:
            return run_ingest(recorder, files, IngestOptions(normaliser_options={"account_id": "main"}))

    return run


@pytest.fixture
def ask(client: Client, database: str) -> Ask:
    def rows(sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in client.query(sql.replace("{db}", database)).result_rows]

    return rows


def test_both_sides_of_a_trade_with_oneself_are_fills(
    ingest: Callable[..., IngestResult], ask: Ask, tmp_path: pathlib.Path
) -> None:
    """In every order in which the venue may tell them each side is one fill, with its own order and fee; recorded
    again nothing is added, and every row has the identity it had."""
    orders = list(itertools.permutations(TOLD))
    messages = [
        said(kind, side, TRADE + number) for number, order in enumerate(orders) for kind, side in order
    ]
    messages += [spot_trade(TRADE, S="BUY", c=BUYER, i=1), spot_trade(TRADE, S="SELL", c=SELLER, i=2)]
    file = capture(tmp_path / "private.log", messages)
    assert ingest(file).ok
    found = ask(
        "SELECT fill_id, side, client_order_id, broker_order_id, fill_qty, fees, liquidity FROM {db}.fills_unique "
        "WHERE venue = 'binance.usdm' ORDER BY toUInt64(fill_id), side"
    )
    assert found == [
        (str(TRADE + number), side.lower(), client, order, Decimal("0.040"), Decimal(FEES[side]), liquidity)
        for number in range(len(orders))
        for side, client, order, liquidity in (("BUY", BUYER, "1", "maker"), ("SELL", SELLER, "2", "taker"))
    ]
    spot = ask("SELECT fill_id, side, client_order_id FROM {db}.fills_unique WHERE venue = 'binance.spot'")
    assert sorted(spot) == [("77", "buy", BUYER), ("77", "sell", SELLER)]
    identities = ask("SELECT _log, _seq, fill_id, side, source FROM {db}.fills ORDER BY ALL")
    assert not any(ingest(file).inserted.values())
    assert ask("SELECT _log, _seq, fill_id, side, source FROM {db}.fills ORDER BY ALL") == identities


def test_a_database_from_before_the_side_was_in_the_key_is_migrated(
    place: Place, tmp_path: pathlib.Path
) -> None:
    """`migrate up` on a database at 0005 that holds fills: rows stay as they are, the view then tells the sides apart,
    `check` finds no difference, and what is recorded afterwards is beside what was there."""
    migrations = tmp_path / "old" / "migrations"
    migrations.mkdir(parents=True)
    for migration in PACK.migrations[:5]:
        name = f"{migration.number:04}_{migration.name}.sql"
        (migrations / name).write_text((PACK.folder / name).read_text())
    (tmp_path / "old" / "old_core.py").write_text(OLD_PACK)
    settings = {**place.variables, "RECORDER_DATA_DIR": str(tmp_path / "data"), "RECORDER_TTL": "false"}
    before = {**settings, "RECORDER_PACKS": "old_core:PACK", "PYTHONPATH": str(tmp_path / "old")}
    after = {**settings, "RECORDER_MIGRATE_ON_START": "false"}

    def run(*arguments: Any, environment: dict[str, str]) -> Any:
        done = run_command(*arguments, cwd=tmp_path, **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def query(sql: str, environment: dict[str, str]) -> Any:
        return run("query", "--json", sql, environment=environment)

    rows = "SELECT * FROM fills ORDER BY _log, _seq"
    fills = "SELECT fill_id, side, copies FROM fills_unique ORDER BY fill_id, side"
    messages = [said("full", "BUY"), said("full", "SELL"), said("full", "SELL")]
    run("ingest", "--json", "--account", "main", capture(tmp_path / "a.log", messages), environment=before)
    stored = query(rows, before)
    assert len(stored) == 3
    assert [(fill["fill_id"], int(fill["copies"])) for fill in query(fills, before)] == [("77", 3)]

    [core] = run("migrate", "status", "--json", environment=after)
    pending = PACK.migrations[5:]
    assert core["pending"] == len(pending)
    applied = run("migrate", "up", "--json", environment=after)["applied"]
    assert len(applied) == sum(len(migration.statements) for migration in pending)
    assert run("migrate", "check", "--json", environment=after)["differences"] == []
    assert query(rows, after) == stored
    assert [(fill["side"], int(fill["copies"])) for fill in query(fills, after)] == [("buy", 1), ("sell", 2)]

    later = capture(tmp_path / "b.log", [said("lite", "SELL", 78), said("full", "BUY", 78)])
    run("ingest", "--json", "--account", "main", later, environment=after)
    assert [(fill["fill_id"], fill["side"]) for fill in query(fills, after)] == [
        ("77", "buy"), ("77", "sell"), ("78", "buy"), ("78", "sell")]  # fmt: skip
