"""Secrets in all that producers, venues and servers may say, through a whole recorder: nowhere do they come out."""

from __future__ import annotations

import base64
import io
import json
import logging
import pathlib
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from harness.backends import Backend
from harness.faulty_sink import Fail, FaultySink
from harness.recorders import WAIT_S, faulty, order, settings_for, wait_until

from recorder import NotDurable, Recorder, SourceRow, redact
from recorder.log import ROOT, configure
from recorder.redact import Redactor
from recorder.redact_columns import ColumnRedactor
from recorder.redact_spans import SpanFinder, Work
from recorder.sink.errors import DataError, HoldError

SECRET = "hunter2-s3cr3t-0123456789"
OWN = "4711-0815-own-pin"
NOW_NS = time.time_ns()


class Off(Redactor):
    """Redaction switched off, to see that the secrets would come out."""

    def __init__(self) -> None:
        super().__init__()

    def cut(self, data: bytes) -> tuple[bytes, int]:
        return data, 0

    def _cut_text(self, data: bytes) -> tuple[bytes, int]:
        return data, 0

    def is_secret(self, name: str) -> bool:
        return False

    def extended(self, keys: Any = (), patterns: Any = ()) -> Redactor:
        return self


def secret_forms() -> list[bytes]:
    """The secrets as they may come out: as they are, and within base64, wherever in its groups of three they fall."""
    forms = [SECRET.encode(), OWN.encode()]
    for secret in (SECRET.encode(), OWN.encode()):
        forms += [base64.b64encode(b"x" * shift + secret)[4 : len(secret) - 4] for shift in range(3)]
    return forms


def found_in(place: bytes) -> list[bytes]:
    """Which of the secrets are there."""
    return [form for form in secret_forms() if form in place]


class Broken:
    """A row that cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError(f"password={SECRET}")


def venue_message(n: int) -> bytes:
    """What a private stream may bring, as JSON."""
    return json.dumps(
        {"e": "x", "n": n, "apiKey": SECRET, "nested": {"listenKey": SECRET, "text": json.dumps({"token": SECRET})},
         "url": f"https://u:{SECRET}@h/x?signature={SECRET}&t=1", "head": f"X-MBX-APIKEY: {SECRET}\r\nHost: h",
         "own": {"pin_code": OWN}}
    ).encode()  # fmt: skip


def fill(n: int, **fields: Any) -> dict[str, Any]:
    return {"fill_id": f"f-{n}", "symbol": "B", "side": "buy", "fill_qty": 1, "fill_price": 1} | fields


Started = tuple[Recorder, FaultySink, io.StringIO]
Start = Callable[[], Started]


@pytest.fixture
def start(
    backend: Backend, database: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Start]:
    """Starts a recorder with a health port and a log that is read; what is in force ends with the test."""
    monkeypatch.setattr(redact, "_in_force", redact.in_force())
    root = logging.getLogger()
    handlers, level, own_level = list(root.handlers), root.level, logging.getLogger(ROOT).level
    running: list[Recorder] = []

    def begin() -> Started:
        out = io.StringIO()
        configure("info", "json", stream=out)
        settings = settings_for(
            backend, database, tmp_path, health_addr="127.0.0.1:0", redact_keys=("pin_code",),
            dead_letter_ratio=1.0,
        )  # fmt: skip
        sink = faulty(settings)
        running.append(Recorder(settings, sink=sink).start())
        return running[-1], sink, out

    yield begin
    for recorder in running:
        recorder.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger(ROOT).setLevel(own_level)


def feed(recorder: Recorder, sink: FaultySink) -> None:
    """Every way in, with secrets in what may hold them."""
    # Rows: single, mappings and tuples, Arrow, of a source; JSON, MessagePack, texts.
    recorder.record("fills", fill(1, raw_json=venue_message(1)))
    recorder.record(
        "fills", fill(2, raw_json=msgspec.msgpack.encode({"apiKey": SECRET, "b": [venue_message(2)]}))
    )
    recorder.record("fills", fill(3, raw_json=venue_message(3)[:-60]))
    recorder.record("orders", order(1, notes=f"sent with token={SECRET}", reject_reason=f"Bearer {SECRET}"))
    rows = pa.table(
        {"ts_local": [NOW_NS] * 2, "fill_id": ["a-1", "a-2"], "symbol": ["B"] * 2, "side": ["buy"] * 2,
         "fill_qty": ["1"] * 2, "fill_price": ["1"] * 2,
         "raw_json": pa.array([venue_message(4), None], pa.binary())}
    )  # fmt: skip
    assert recorder.record_batch("fills", rows) == 2
    recorder.record_source(77, [SourceRow("fills", 1, fill(4, ts_local=NOW_NS, raw_json=venue_message(5)))])
    recorder.record(
        "metrics_timeseries",
        {"name": "x", "value": 1.0, "labels": {"token": SECRET, "why": f"secret={SECRET}"}},
    )
    # Bad rows: an unknown field, a wrong value, bytes that become base64, no rows at all.
    recorder.record("orders", order(2, api_key=SECRET))
    recorder.record("orders", order(3, nested={"pin_code": OWN}))
    recorder.record("orders", order(4, qty=f"password={SECRET}", notes=venue_message(6).decode()))
    recorder.record("fills", fill(5, fill_qty="x", raw_json=venue_message(7)))
    recorder.record("fills", f"token={SECRET}")
    recorder.record("fills", [("token", SECRET)])
    recorder.record("fills", Broken())
    # Messages that make no row.
    recorder.dead_letter(
        reason="not_json",
        detail=f"at {venue_message(8)!r}",
        payload=venue_message(8)[:-60],
        origin=f"zmq://u:{SECRET}@h:1/topic?token={SECRET}",
    )
    recorder.dead_letter(
        reason="not_json", detail="d", payload=msgspec.msgpack.encode({"secret": SECRET})[:-1],
        payload_format="msgpack", log=5, seq=6, ts_local=NOW_NS, table="fills",
    )  # fmt: skip
    recorder.flush(WAIT_S)
    # A server that quotes what it refuses, a driver that quotes its URL, a fault of our own with a traceback.
    sink.plan(
        "positions_intraday",
        Fail(DataError(f'Code: 27. Cannot parse {{"token":"{SECRET}"}}', code=27)),
        Fail(DataError(f'Code: 27. Cannot parse {{"token":"{SECRET}"}}', code=27)),
        Fail(RuntimeError(f"http://u:{SECRET}@h failed: api_key={SECRET}")),
        Fail(HoldError(f"Code: 516. Authentication failed: password={SECRET}", code=516)),
    )
    recorder.record("positions_intraday", {"symbol": "B", "position_qty": "1"})
    recorder.record("positions_intraday", {"symbol": "C", "position_qty": "1"})


def page(recorder: Recorder, path: str) -> bytes:
    with urllib.request.urlopen(recorder.status()["health"].rstrip("/") + path, timeout=WAIT_S) as answer:
        return bytes(answer.read())


def shown(recorder: Recorder, sink: FaultySink, out: io.StringIO) -> dict[str, bytes]:
    """All that a recorder shows while it is fed, by where."""
    places: dict[str, bytes] = {}
    feed(recorder, sink)
    wait_until(lambda: any("516" in str(table["errors"]) for table in recorder.status()["tables"].values()))
    places["/status"] = page(recorder, "/status")
    recorder.flush(WAIT_S)
    sink.always("orders", Fail(HoldError(f"Code: 60. No table at http://u:{SECRET}@h", code=60)))
    recorder.record("orders", order(9))
    wait_until(lambda: recorder.status()["tables"]["orders"]["state"] == "held")
    try:
        recorder.flush(0.01)
    except NotDurable as error:
        places["errors"] = str(error).encode()
    places["/status while held"] = page(recorder, "/status")
    places["/metrics"] = page(recorder, "/metrics")
    sink.always("orders", None)
    recorder.flush(WAIT_S)
    places["log"] = out.getvalue().encode()
    return places


def stored(client: Client, database: str) -> dict[str, bytes]:
    """All tables of the database, as bytes."""
    tables = [row[0] for row in client.query(f"SHOW TABLES FROM {database}").result_rows]
    return {
        name: client.raw_query(
            f"SELECT * FROM {database}.{name}", fmt="RowBinary", settings={"compress": False}
        )
        for name in tables
    }


def test_no_secret_comes_out_anywhere(start: Start, client: Client, database: str) -> None:
    """Not in a table, not in the log, the status, the metrics or an error; and all the rows are there."""
    recorder, sink, out = start()
    places = shown(recorder, sink, out)
    for name, balance in recorder.balance().items():
        assert balance.exact, f"{name}: {balance}"
    assert b"recorder_redacted_secrets_total" in places["/metrics"]
    assert recorder.status()["tables"]["fills"]["redacted_secrets"] > 20
    recorder.close()
    places |= stored(client, database)
    places["log to the end"] = out.getvalue().encode()
    assert {name: found for name, place in places.items() if (found := found_in(place))} == {}
    kept = client.query(f"SELECT raw_json FROM {database}.fills WHERE fill_id = 'f-1'")
    expected = venue_message(1).replace(f"X-MBX-APIKEY: {SECRET}".encode(), b"X-MBX-APIKEY: ***")
    expected = expected.replace(SECRET.encode(), b"***").replace(OWN.encode(), b"***")
    assert kept.result_rows == [(expected.decode(),)]
    assert client.query(f"SELECT count() FROM {database}.fills").result_rows == [(6,)]
    reasons = client.query(f"SELECT reason, count() FROM {database}.dead_letters GROUP BY reason").result_rows
    assert sum(count for _, count in reasons) == 10, reasons


def test_without_redaction_they_would_come_out_everywhere(
    start: Start, client: Client, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above would see it: the same recorder with redaction off shows them in all these places."""
    monkeypatch.setattr(redact, "_in_force", Off())
    recorder, sink, out = start()
    places = shown(recorder, sink, out)
    recorder.close()
    places |= stored(client, database)
    found = {name for name, place in places.items() if found_in(place)}
    assert found >= {"/status", "/status while held", "errors", "log", "fills", "orders", "dead_letters"}
    assert "system_events" in found


def test_producers_do_not_wait_for_it(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret is looked for in a producer's call: that is the recorder's thread's work."""
    threads: set[int] = set()
    redact_columns, spans = ColumnRedactor.redact, SpanFinder.spans

    def watched_columns(self: ColumnRedactor, arrays: list[pa.Array]) -> list[pa.Array]:
        threads.add(threading.get_ident())
        return redact_columns(self, arrays)

    def watched_spans(self: SpanFinder, data: bytes, work: Work) -> Any:
        threads.add(threading.get_ident())
        return spans(self, data, work)

    recorder, _, _ = start()
    monkeypatch.setattr(ColumnRedactor, "redact", watched_columns)
    monkeypatch.setattr(SpanFinder, "spans", watched_spans)
    recorder.record("fills", fill(1, raw_json=venue_message(1)))
    rows = pa.table(
        {"fill_id": ["a"], "symbol": ["B"], "side": ["buy"], "fill_qty": ["1"], "fill_price": ["1"],
         "raw_json": pa.array([venue_message(2)], pa.binary())}
    )  # fmt: skip
    recorder.record_batch("fills", rows)
    recorder.record("orders", order(2, api_key=SECRET))
    recorder.dead_letter(reason="not_json", detail=f"token={SECRET}", payload=venue_message(3))
    recorder.flush(WAIT_S)
    assert len(threads) == 1
    assert threading.get_ident() not in threads
