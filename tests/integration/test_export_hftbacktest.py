"""Laws of `recorder export hftbacktest`: what was recorded is what hftbacktest's own converter would have made."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from harness.backends import Backend
from harness.exporting import Exporting
from harness.ingest_files import START_NS, capture_lines, write_lines

from recorder.cli.export_hftbacktest import hftbacktest as command
from schemas.core.trading import ORDERS

hftbacktest = pytest.importorskip("hftbacktest")
from hftbacktest import (  # noqa: E402
    BUY_EVENT,
    GTX,
    LIMIT,
    BacktestAsset,
    HashMapMarketDepthBacktest,
)
from hftbacktest.data import validate_event_order  # noqa: E402
from hftbacktest.data.utils import binancefutures  # noqa: E402
from hftbacktest.types import DEPTH_BBO_EVENT, DEPTH_EVENT, EXCH_EVENT, SELL_EVENT, TRADE_EVENT  # noqa: E402

CAPTURE = "binance-captures/usdm_btcusdt_20240808.gz"
EVENTS = 491_973
FEW = 40
SECOND_NS = 10**9
STEP_NS = 1_000_000
KIND = np.uint64(0xFF)


@pytest.fixture
def made(backend: Backend, tmp_path: pathlib.Path) -> Iterator[Exporting]:
    """A database to record in."""
    with backend.place(tmp_path) as place:
        yield Exporting(tmp_path, place)


def ingest(made: Exporting, *arguments: str | pathlib.Path) -> None:
    done = made.run("ingest", *arguments)
    assert done.returncode == 0, done.stderr.decode()


def events_of(path: pathlib.Path) -> Any:
    with np.load(path) as file:
        return file["data"]


def kinds(events: Any) -> dict[int, int]:
    """How many events the venue handles, by kind without its side."""
    handled = events[events["ev"] & np.uint64(EXCH_EVENT) != 0]
    found, counts = np.unique(handled["ev"] & KIND, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def backtest(path: pathlib.Path, latencies: pathlib.Path | None = None) -> list[tuple[float, float, int]]:
    """A backtest that quotes one buy at the best bid for ten seconds: best bid, best ask and the order's status."""
    asset = BacktestAsset().data([str(path)]).linear_asset(1.0).risk_adverse_queue_model()
    asset = (
        asset.no_partial_fill_exchange()
        .trading_value_fee_model(0.0002, 0.0007)
        .tick_size(0.1)
        .lot_size(0.001)
    )
    if latencies is None:
        asset = asset.constant_order_latency(1_000_000, 1_000_000)
    else:
        asset = asset.intp_order_latency([str(latencies)])
    market = HashMapMarketDepthBacktest([asset])
    seen: list[tuple[float, float, int]] = []
    try:
        for second in range(10):
            if market.elapse(SECOND_NS):
                break
            depth = market.depth(0)
            if second == 2:
                assert market.submit_buy_order(0, 1, depth.best_bid, 0.001, GTX, LIMIT, True) == 0
            order = market.orders(0).get(1)
            seen.append((depth.best_bid, depth.best_ask, -1 if order is None else int(order.status)))
    finally:
        market.close()
    return seen


@pytest.mark.captures
@pytest.mark.slow
def test_a_capture_is_what_hftbacktests_own_converter_makes_of_it(
    captures: pathlib.Path, made: Exporting, embedded: None
) -> None:
    """Every event equal, field by field and in order; its validator passes them, and a backtest runs on the file."""
    reference = binancefutures.convert(str(captures / CAPTURE), buffer_size=EVENTS)
    ingest(made, "--book-deltas", captures / CAPTURE)
    out = made.folder / "btcusdt.npz"
    said = made.export("hftbacktest", "--symbol", "BTCUSDT", "--date", "2024-08-08", "--out", out)
    events = events_of(out)
    assert said["events"] == len(events) == len(reference) == EVENTS
    assert said["made_of"] == {"trades": 21_313, "book": 445_523}
    assert said["source"] == "binance.usdm"
    assert events.dtype == reference.dtype
    for name in reference.dtype.names:
        assert (events[name] == reference[name]).all(), name
    validate_event_order(events)
    seen = backtest(out)
    assert len(seen) == 10
    assert all(61_000 < bid < ask < bid + 10 for bid, ask, _ in seen[1:])
    assert seen[-1][2] > 0  # the venue has answered the order

    made.export("hftbacktest", "--symbol", "BTCUSDT", "--out", out, "--force", "--bbo", "--no-snapshots")
    more = events_of(out)
    validate_event_order(more)
    ours, theirs = kinds(more), kinds(reference)
    assert ours.pop(DEPTH_BBO_EVENT) == 2 * 66_089
    assert ours == {kind: theirs[kind] for kind in (DEPTH_EVENT, TRADE_EVENT)}


def test_without_book_changes_the_best_is_the_book(made: Exporting) -> None:
    """Trades and best prices are those of `market_data`, the book is one level a side, and the answer says so."""
    ingest(made, write_lines(made.folder / "few.ndjson", capture_lines(FEW)))
    out = made.folder / "few.npz"
    said = made.export("hftbacktest", "--symbol", "BTCUSDT", "--out", out, "--base-latency-ns", "7")
    assert any("book_deltas" in note for note in said["notes"])
    events = events_of(out)
    validate_event_order(events)
    # Of each quote the harness makes only the bid's size is new; the ask is new in the first.
    assert kinds(events) == {TRADE_EVENT: FEW // 2, DEPTH_BBO_EVENT: FEW, DEPTH_EVENT: FEW // 2 + 1}
    assert said["least_latency_ns"] < 0
    assert said["shift_ns"] == 7 - said["least_latency_ns"]
    assert (events["local_ts"] - events["exch_ts"]).min() == 7
    first = events[events["ev"] & KIND == TRADE_EVENT][0]
    assert first["local_ts"] == START_NS + STEP_NS + said["shift_ns"]
    assert (first["px"], first["qty"]) == (61_801.1, 0.01)
    assert int(first["ev"]) & (BUY_EVENT | SELL_EVENT) == SELL_EVENT
    best = hftbacktest.HashMapMarketDepthBacktest(
        [
            BacktestAsset().data([str(out)]).linear_asset(1.0).constant_order_latency(1, 1)
            .risk_adverse_queue_model().no_partial_fill_exchange().trading_value_fee_model(0, 0)
            .tick_size(0.1).lot_size(0.001)
        ]
    )  # fmt: skip
    try:
        assert best.elapse((FEW // 2) * STEP_NS) == 0
        assert (best.depth(0).best_bid, best.depth(0).best_ask) == pytest.approx((61_800.2, 61_800.3))
    finally:
        best.close()


def test_what_cannot_be_exported_says_why_and_leaves_no_file(made: Exporting, embedded: None) -> None:
    """One line each, with what to do."""
    ingest(made, "--market", "usdm", write_lines(made.folder / "a.ndjson", capture_lines(4)))
    ingest(made, "--market", "spot", write_lines(made.folder / "b.ndjson", capture_lines(6, first_id=50)))
    out = made.folder / "x.npz"

    def refused(*arguments: str | pathlib.Path) -> str:
        line = made.refused("hftbacktest", "--symbol", "BTCUSDT", "--out", out, *arguments)
        assert [path.name for path in made.folder.glob("*.npz*")] == []
        return line

    both = refused()
    assert "binance.spot, binance.usdm" in both
    assert "--source" in both
    assert "refused" in refused("--source", "binance.spot", "--negative-latency", "refuse")
    orders = made.folder / "orders.npz"
    assert "orders has no order" in refused("--source", "binance.spot", "--latency-out", orders)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--out", "x.parquet"), ".npz"),
        (("--out", "x.npz", "--date", "2024-08-08", "--since", "2024-08-08"), "--date"),
        (("--out", "x.npz", "--date", "2024-08-08T12:00"), "time of day"),
        (("--out", "x.npz", "--since", "2024-08-08", "--until", "2024-08-08"), "--until"),
        (("--out", "x.npz", "--latency-out", "x.npz"), "two files"),
        (("--out", "x.npz", "--entry-share", "1.5"), "--entry-share"),
    ],
)
def test_wrong_use_is_told_before_the_database_is_asked(
    arguments: tuple[str, ...], words: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(command, ["--symbol", "BTCUSDT", *arguments])
    assert done.exit_code == 2
    assert words in done.output
    assert list(tmp_path.iterdir()) == []


def test_orders_become_latencies_that_a_backtest_takes(made: Exporting) -> None:
    """An order's rows are put together; what is impossible is counted; the times move with those of the events."""
    ingest(made, write_lines(made.folder / "few.ndjson", capture_lines(FEW)))
    # Two rows an order: sending, and the acknowledgement as the venue's stream tells of it.
    sent = [START_NS + number * STEP_NS for number in range(6)]
    acked = [time + 300_000 + number for number, time in enumerate(sent)]
    acked[3] = sent[3] - 1
    rows: list[dict[str, Any]] = []
    for number, (send, ack) in enumerate(zip(sent, acked, strict=True)):
        rows.append(
            {"client_order_id": f"c{number}", "status": "Submitted", "ts_local": send, "ts_send": send}
        )
        if number != 4:
            rows.append({"client_order_id": f"c{number}", "status": "Acked", "ts_local": ack, "ts_ack": ack})
    rows.append({"client_order_id": "other", "symbol": "ETHUSDT", "status": "Acked", "ts_local": sent[0],
                 "ts_send": sent[0], "ts_ack": acked[0]})  # fmt: skip
    base = {"symbol": "BTCUSDT", "_log": 1, "run_id": "", "account_id": ""}
    schema = pa.schema([column.arrow_field for column in ORDERS.all_columns])
    made.insert(
        {"orders": pa.Table.from_pylist([base | {"_seq": seq} | row for seq, row in enumerate(rows)], schema)}
    )
    out, latencies = made.folder / "few.npz", made.folder / "orders.npz"
    said = made.export(
        "hftbacktest", "--symbol", "BTCUSDT", "--since", str(START_NS), "--until", str(START_NS + SECOND_NS),
        "--out", out, "--latency-out", latencies, "--entry-share", "0.25",
    )  # fmt: skip
    assert said["latencies"] | {"file": ""} == {"file": "", "orders": 4, "unanswered": 1, "impossible": 1}
    shift = said["shift_ns"]
    kept = [number for number in range(6) if number not in (3, 4)]
    found = events_of(latencies)
    assert found["req_ts"].tolist() == [sent[number] + shift for number in kept]
    assert found["resp_ts"].tolist() == [acked[number] + shift for number in kept]
    assert found["exch_ts"].tolist() == [
        sent[number] + shift + round((acked[number] - sent[number]) * 0.25) for number in kept
    ]
    assert len(backtest(out, latencies)) <= 10


def test_a_file_that_is_there_stays_as_it_is(tmp_path: pathlib.Path) -> None:
    """Unless it is to be replaced, which is asked for by name."""
    out = tmp_path / "x.npz"
    out.write_bytes(b"mine")
    done = CliRunner().invoke(command, ["--symbol", "BTCUSDT", "--out", str(out)])
    assert done.exit_code == 1
    assert "--force" in done.output
    assert out.read_bytes() == b"mine"
