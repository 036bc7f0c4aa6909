"""Recorded sessions through the recorder into ClickHouse, to the last row."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

import pytest
from harness.backends import Backend

from recorder import Recorder, Settings
from recorder.ingest import IngestOptions, IngestResult, run_ingest
from schemas.core.flags import MarketFlag as F

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

pytestmark = pytest.mark.captures
FOLDER = "binance-captures"
USDM = "usdm_btcusdt_20240808.gz"
SPOT = ("spot_btcusdt_20240808.gz", "spot_btcusdt_20240809.gz")


def ingest(
    backend: Backend,
    database: str,
    data_dir: pathlib.Path,
    *files: pathlib.Path,
    book_deltas: bool = False,
) -> IngestResult:
    settings = Settings(
        target=backend.target, database=database, data_dir=data_dir, base={"ttl": False, "migrate_on_start": True},
        tables={"book_deltas": {"enabled": book_deltas}},
    )  # fmt: skip
    options = IngestOptions(normaliser_options={"book_deltas": book_deltas})
    with Recorder(settings) as recorder:
        return run_ingest(recorder, files, options)


@pytest.mark.long
def test_a_futures_session_to_the_last_row(
    captures: pathlib.Path, backend: Backend, client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """Every trade, quote, book update and snapshot of the capture is there, once, also after a second run."""
    path = captures / FOLDER / USDM
    for run in range(2):
        result = ingest(backend, database, tmp_path, path, book_deltas=True)
        assert result.ok
        assert result.records == 93_954
        assert result.rows == {"market_data": 87_402, "book_deltas": 6_552}
        assert result.kinds == {"trade": 21_313, "quote": 66_089, "book_delta": 6_552}
        assert result.dead_letters == 0
        assert result.inserted == (result.rows if run == 0 else {"market_data": 0, "book_deltas": 0})
        assert result.already_there == (result.rows if run == 1 else {"market_data": 0, "book_deltas": 0})
        trades = client.query(
            "SELECT count(), uniqExact(trade_id), min(trade_id), max(trade_id), round(sum(last_price * last_qty), 4) "
            f"FROM {database}.market_data WHERE bitTest(flags, 0)"
        ).result_rows[0]
        assert trades == (21_313, 21_313, 5_266_583_935, 5_266_605_247, 149_845_680.8898)
        quotes = client.query(
            f"SELECT count() FROM {database}.market_data WHERE bitTest(flags, 1)"
        ).result_rows[0]
        assert quotes == (66_089,)
        deltas = client.query(
            "SELECT is_snapshot, count(), sum(length(bid_pxs) + length(ask_pxs)) "
            f"FROM {database}.book_deltas GROUP BY is_snapshot ORDER BY is_snapshot"
        ).result_rows
        assert [row[:2] for row in deltas] == [(False, 6_551), (True, 1)]
        assert deltas[0][2] == 443_521


def test_two_spot_files_meet_at_midnight(
    captures: pathlib.Path, backend: Backend, client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """Rows lie in the partition of their local day, and quotes without the venue's time say so."""
    result = ingest(backend, database, tmp_path, *(captures / FOLDER / name for name in SPOT))
    assert result.ok
    assert result.rows == {"market_data": 93_078}
    by_part = client.query(
        "SELECT partition, sum(rows) FROM system.parts "
        f"WHERE active AND database = '{database}' AND table = 'market_data' GROUP BY partition ORDER BY partition"
    ).result_rows
    by_day = client.query(
        f"SELECT toString(toYYYYMMDD(ts_local)) AS day, count() FROM {database}.market_data GROUP BY day ORDER BY day"
    ).result_rows
    assert by_part == by_day
    assert [day for day, _ in by_day] == ["20240808", "20240809"]
    other_day = client.query(
        f"SELECT countIf(toDate(ts_exchange) != toDate(ts_local)) FROM {database}.market_data"
    ).result_rows[0][0]
    assert other_day > 0
    unmarked = F.EXCHANGE_TIME_MISSING.bit_length() - 1
    counts = client.query(
        f"SELECT bitTest(flags, 1) AS quote, ts_exchange IS NULL, bitTest(flags, {unmarked}), count() "
        f"FROM {database}.market_data GROUP BY ALL ORDER BY quote"
    ).result_rows
    assert counts == [(0, 0, 0, 19_904), (1, 1, 1, 73_174)]
