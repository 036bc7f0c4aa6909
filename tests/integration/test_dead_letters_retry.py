"""What a retry of dead letters does: each row once, under its old identity, or the reason why not."""

from __future__ import annotations

import asyncio
import pathlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from harness.backends import Backend
from harness.consuming import NOW_NS, consuming, publish
from harness.dead_lettered import Desk, recorded, things_pack
from harness.ingest_files import START_NS, capture_lines, write_lines, write_rows
from harness.recorders import order, settings_for
from harness.waiting import until

from recorder import Recorder, Settings
from recorder.bus.base import Encoding
from recorder.bus.inprocess import InProcessBus
from recorder.dead_letters.examine import State
from recorder.dead_letters.store import PAGE_LETTERS, READ_LETTERS, Filter
from recorder.identity import source_seq
from recorder.ingest import IngestOptions, run_ingest
from recorder.redact import MASK_TEXT

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


@pytest.fixture
def settings(backend: Backend, database: str, tmp_path: pathlib.Path) -> Settings:
    """A recorder that refuses fields it does not know."""
    return settings_for(backend, database, tmp_path, ttl=False)


@pytest.fixture
def lenient(backend: Backend, database: str, tmp_path: pathlib.Path) -> Settings:
    """The same that ignores them: what a person changes before a retry."""
    defaults = {"linger_ms": 5, "linger_max_ms": 20, "unknown_fields": "ignore"}
    return settings_for(backend, database, tmp_path, ttl=False, defaults=defaults)


def _rows(client: Client, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in client.query(sql).result_rows]


def _letters(client: Client, database: str) -> list[tuple[Any, ...]]:
    """Everything of every dead letter."""
    return _rows(client, f"SELECT * FROM {database}.dead_letters ORDER BY _log, _seq")


# -- rows --


def test_a_row_goes_in_once_under_its_old_identity(
    settings: Settings, lenient: Settings, client: Client, database: str
) -> None:
    """Open until it is in; then closed, and another retry adds nothing. No dead letter is changed or added."""
    recorded(settings, ("orders", order(1, odd=1)), ("orders", order(2)), ("orders", order(3, odd=2)))
    letters = _letters(client, database)
    opened = Desk(settings).open()
    assert [letter.source[1] for letter in opened if letter.source is not None] == [2, 0]
    assert Desk(settings).retry().outcomes == {"done": 0, "closed": 0, "open": 2}

    told = Desk(lenient).retry()

    assert (told.outcomes, told.inserted) == ({"done": 2, "closed": 0, "open": 0}, {"orders": 2})
    found = _rows(client, f"SELECT client_order_id, qty, run_id, _seq FROM {database}.orders ORDER BY _seq")
    assert found == [("c-1", 1, "run-1", 0), ("c-2", 2, "run-1", 1), ("c-3", 3, "run-1", 2)]
    assert _rows(client, f"SELECT uniqExact(_log) FROM {database}.orders") == [(1,)]
    assert Desk(settings).open() == []
    again = Desk(lenient).retry()
    assert (again.letters, again.inserted) == (0, {})
    assert _letters(client, database) == letters


def test_what_a_producer_left_to_the_recorder_stays_as_it_was(
    settings: Settings, lenient: Settings, client: Client, database: str
) -> None:
    """Time (of the refusal), run and correlation come from then, whenever it is retried, and however often."""
    with Recorder(settings) as recorder:
        recorder.record("orders", order(1, odd=1), correlation_id="corr-1")
        recorder.flush(timeout_s=60)
    Desk(lenient).retry()
    at = _rows(client, f"SELECT toUnixTimestamp64Nano(ts_local) FROM {database}.dead_letters")[0][0]
    sql = f"SELECT toUnixTimestamp64Nano(ts_local), run_id, correlation_id FROM {database}.orders"
    assert _rows(client, sql) == [(at, "run-1", "corr-1")]


def test_every_kind_of_value_comes_back(
    settings: Settings, lenient: Settings, client: Client, database: str
) -> None:
    """Digits of a Decimal, bytes, tags, times, arrays, tuples: as they would have been without the fault."""
    exact = Decimal("12345678901234567890.123456789012345678")
    recorded(
        settings,
        ("orders", order(1, limit_px=exact, qty="0.000000000000000001", ts_send=START_NS, odd=1)),
        ("system_events", {"kind": "k", "payload": bytes(range(256)), "odd": 1}),
        ("metrics_timeseries", {"name": "m", "value": 0.1, "labels": {"a": "ż", "b": ""}, "odd": 1}),
        ("market_data", {"symbol": "B", "bid_pxs": (1.5, 2.25), "odd": 1}),
    )
    assert Desk(lenient).retry().outcomes["done"] == 4
    assert _rows(client, f"SELECT limit_px, qty, toUnixTimestamp64Nano(ts_send) FROM {database}.orders") == [
        (exact, Decimal("0.000000000000000001"), START_NS)
    ]
    assert _rows(client, f"SELECT hex(payload) FROM {database}.system_events WHERE kind = 'k'") == [
        (bytes(range(256)).hex().upper(),)
    ]
    assert _rows(client, f"SELECT value, labels FROM {database}.metrics_timeseries WHERE name = 'm'") == [
        (0.1, {"a": "ż", "b": ""})
    ]
    assert _rows(client, f"SELECT bid_pxs FROM {database}.market_data") == [([1.5, 2.25],)]


def test_a_row_that_the_table_refused_goes_in_when_the_table_is_mended(
    settings: Settings, client: Client, database: str
) -> None:
    """`refused_469`: while the constraint stands it stays what it is, and makes no second dead letter."""
    recorded(settings)
    client.command(f"ALTER TABLE {database}.orders ADD CONSTRAINT small CHECK qty < 100")
    recorded(settings, ("orders", order(500)), ("orders", order(1)))
    letters = _letters(client, database)
    assert [letter.reason for letter in Desk(settings).open()] == ["refused_469"]
    told = Desk(settings).retry()
    assert [fault.reason for _, faults in told.open for fault in faults] == ["refused_469"]
    assert told.inserted == {}
    assert _letters(client, database) == letters
    client.command(f"ALTER TABLE {database}.orders DROP CONSTRAINT small")
    assert Desk(settings).retry().inserted == {"orders": 1}
    found = _rows(client, f"SELECT client_order_id, _seq FROM {database}.orders ORDER BY _seq")
    assert found == [("c-500", 0), ("c-1", 1)]


def test_a_table_that_was_widened_by_a_migration_takes_its_dead_letters(
    settings: Settings, client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """A column that was added, one that was widened, and a tuple of the new length."""
    before = things_pack(tmp_path / "pack", wider=False)
    recorded(
        settings,
        ("things", {"count": 1, "label": "one"}),
        ("things", {"count": 2**40}),
        ("things", (START_NS, "run-2", 3, "three")),
        ("things", {"count": 4}),
        packs=before,
    )
    assert sorted(letter.reason for letter in Desk(settings, before).open()) == [
        "out_of_range", "unknown_field", "wrong_length"
    ]  # fmt: skip
    after = things_pack(tmp_path / "pack", wider=True)
    held = Desk(settings, after).retry()  # the pack is new, and the table is not
    assert {fault.reason for _, faults in held.open for fault in faults} == {"held"}
    recorded(settings, packs=after)
    assert Desk(settings, after).retry().outcomes == {"done": 3, "closed": 0, "open": 0}
    found = _rows(client, f"SELECT count, label, run_id, _seq FROM {database}.things ORDER BY _seq")
    assert found == [
        (1, "one", "run-1", 0),
        (2**40, "", "run-1", 1),
        (3, "three", "run-2", 2),
        (4, "", "run-1", 3),
    ]


def test_a_table_that_is_held_keeps_its_letters_and_no_others(
    settings: Settings, lenient: Settings, client: Client, database: str
) -> None:
    """A column of fewer digits would cut them silently: its table is told as held, and the other one goes on."""
    recorded(settings, ("orders", order(1, limit_px="1.23456789", odd=1)), ("fills", _fill(odd=1)))
    client.command(f"ALTER TABLE {database}.orders MODIFY COLUMN limit_px Nullable(Decimal(38, 4))")
    told = Desk(lenient).retry()
    assert (told.inserted, told.outcomes) == ({"fills": 1}, {"done": 1, "closed": 0, "open": 1})
    assert [(fault.reason, fault.table) for _, faults in told.open for fault in faults] == [
        ("held", "orders")
    ]
    assert "limit_px" in told.open[0][1][0].detail
    assert _rows(client, f"SELECT count() FROM {database}.orders") == [(0,)]


def test_more_letters_than_a_page_are_all_retried(
    settings: Settings, lenient: Settings, client: Client, database: str
) -> None:
    """Pages and portions lose nothing at their seams, also where many letters have one time."""
    count = PAGE_LETTERS + READ_LETTERS + 1
    recorded(settings, *(("orders", order(n, odd=1)) for n in range(count)))
    listed = Desk(settings).list(limit=PAGE_LETTERS + 1)
    assert (len(listed.letters), listed.cut) == (PAGE_LETTERS + 1, True)
    times = [one.letter.ts_local for one in listed.letters]
    assert times == sorted(times, reverse=True)
    assert Desk(lenient).retry().inserted == {"orders": count}
    sql = f"SELECT count(), uniqExact(_log, _seq), max(_seq) FROM {database}.orders"
    assert _rows(client, sql) == [(count, count, count - 1)]


def test_filters_choose(settings: Settings, lenient: Settings, client: Client, database: str) -> None:
    """By table, reason, time, origin and name; what is not meant is left."""
    recorded(
        settings, ("orders", order(1, odd=1)), ("orders", order(2, status="Odd")), ("fills", _fill(odd=1))
    )
    desk = Desk(lenient)
    letters = desk.open()
    by = {(letter.table, letter.reason): letter for letter in letters}
    assert len(by) == 3
    assert {one.letter.reason for one in desk.list(Filter(table="orders")).letters} == {
        "unknown_field",
        "unknown_choice",
    }
    assert desk.list(Filter(since_ns=letters[0].ts_local + 1)).letters == []
    assert len(desk.list(Filter(until_ns=letters[0].ts_local)).letters) == 2
    assert desk.list(Filter(origin="zmq")).letters == []
    name = by["fills", "unknown_field"].id
    assert desk.retry(Filter(ids=(name,))).inserted == {"fills": 1}
    assert desk.retry(Filter(table="orders", reason="unknown_field")).inserted == {"orders": 1}
    assert [letter.reason for letter in desk.open()] == ["unknown_choice"]
    assert {(one.letter.reason, one.open) for one in desk.list(open_only=False).letters} == {
        ("unknown_field", False), ("unknown_choice", True)
    }  # fmt: skip


def test_a_mask_is_never_stored_as_if_it_were_a_value(
    settings: Settings, lenient: Settings, client: Client, database: str
) -> None:
    """What was cut out of a dead letter is gone: a column for ids refuses the mask, one for payloads keeps it."""
    secret = "https://user:hunter2secret@venue.example/x"
    recorded(
        settings,
        ("orders", order(1, client_order_id=secret, odd=1)),
        ("system_events", {"kind": "k", "payload": '{"apiKey": "abcdef123456"}', "odd": 1}),
    )
    told = Desk(lenient).retry()
    assert told.inserted == {"system_events": 1}
    (_, faults) = told.open[0]
    assert faults[0].reason == "cut_bytes"
    assert "client_order_id" in faults[0].detail
    payload = _rows(client, f"SELECT payload FROM {database}.system_events WHERE kind = 'k'")[0][0]
    assert MASK_TEXT in str(payload)
    assert "abcdef" not in str(payload)
    everything = str(_letters(client, database))
    assert "hunter2secret" not in everything + str(told)


# -- messages --


def _delivered(settings: Settings, *messages: tuple[str, Any]) -> InProcessBus:
    return asyncio.run(_deliver(settings, *messages))


async def _deliver(settings: Settings, *messages: tuple[str, Any]) -> InProcessBus:
    """Messages through a service's consumer, until all are acknowledged; bytes and MessagePack as they are."""
    bus = InProcessBus()
    with Recorder(settings) as recorder:
        async with consuming(recorder, bus):
            for topic, value in messages:
                if isinstance(value, bytes):
                    assert bus.publish(topic, value, Encoding.MSGPACK, ts_ns=NOW_NS, correlation_id="corr-1")
                else:
                    publish(bus, topic, value, correlation_id="corr-1")
            await until(lambda: bus.waiting == 0, "acknowledgement")
    return bus


def _fill(**fields: Any) -> dict[str, Any]:
    return {
        "fill_id": "f-1", "symbol": "BTCUSDT", "venue": "v", "side": "buy", "fill_qty": "0.1", "fill_price": "1.5"
    } | fields  # fmt: skip


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_a_message_goes_through_its_topic_again(
    settings: Settings, backend: Backend, client: Client, database: str, tmp_path: pathlib.Path, encoding: str
) -> None:
    """`unknown_table` of a topic: mapped to a table, its rows have the message's identities, time and correlation."""
    value: Any = [order(1), order(2)]
    bus = _delivered(
        settings, ("my.orders", msgspec.msgpack.encode(value) if encoding == "msgpack" else value)
    )
    mapped = settings_for(backend, database, tmp_path, ttl=False, topics={"my.*": "orders"})
    assert [found.state for found in Desk(settings).examine()] == [State.BAD]
    told = Desk(mapped).retry()
    assert (told.inserted, told.outcomes["done"]) == ({"orders": 2}, 1)
    sql = (
        "SELECT client_order_id, toUnixTimestamp64Nano(ts_local), correlation_id, run_id, _log, _seq "
        f"FROM {database}.orders ORDER BY _seq"
    )
    assert _rows(client, sql) == [
        (f"c-{n + 1}", NOW_NS, "corr-1", "run-1", bus.log, source_seq(0, n)) for n in range(2)
    ]
    assert Desk(mapped).open() == []
    assert Desk(mapped).retry().inserted == {}


def test_of_a_message_only_rows_that_are_absent_go_in(
    settings: Settings, lenient: Settings, client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """One row went in then, one has no table yet, one was refused by itself and has a dead letter of its own."""
    rows = [order(1), {"table": "things", "count": 7}, order(3, odd=1)]
    bus = _delivered(settings, ("orders", rows))
    assert sorted(letter.reason for letter in Desk(settings).open()) == ["unknown_field", "unknown_table"]
    packs = things_pack(tmp_path / "pack", wider=False)
    recorded(settings, packs=packs)
    told = Desk(lenient, packs).retry(Filter(reason="unknown_table"))
    assert told.inserted == {"things": 1, "orders": 1}
    found = _rows(client, f"SELECT client_order_id, _log, _seq FROM {database}.orders ORDER BY _seq")
    assert found == [("c-1", bus.log, source_seq(0, 0)), ("c-3", bus.log, source_seq(0, 2))]
    assert _rows(client, f"SELECT count, _seq FROM {database}.things") == [(7, source_seq(0, 1))]
    assert Desk(lenient, packs).open() == []  # also the one of the row that came in by its message


def test_what_is_still_bad_of_a_message_keeps_it_open(
    settings: Settings, backend: Backend, client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """The good row goes in, the bad one is told, the message stays open and no dead letter is added."""
    _delivered(settings, ("my.orders", [order(1), order(2, status="Odd")]))
    letters = _letters(client, database)
    mapped = Desk(settings_for(backend, database, tmp_path, ttl=False, topics={"my.*": "orders"}))
    told = mapped.retry()
    assert (told.inserted, told.outcomes["open"]) == ({"orders": 1}, 1)
    assert [fault.reason for _, faults in told.open for fault in faults] == ["unknown_choice"]
    assert [found.state for found in mapped.examine()] == [State.BAD]
    assert len(mapped.open()) == 1
    assert _letters(client, database) == letters


def test_a_venues_message_goes_through_its_normaliser_again(
    settings: Settings, backend: Backend, client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """Recorded without a normaliser it was no row; with one it makes those that it would have made."""
    trade = {"e": "trade", "E": 1_723_161_255_030, "T": 1_723_161_255_030, "s": "BTCUSDT", "t": 7, "p": "61800.10",
             "q": "0.010", "X": "MARKET", "m": False}  # fmt: skip
    bus = _delivered(settings, ("md.spot", trade))
    normalising = settings_for(backend, database, tmp_path, ttl=False, topics={"md.*": "normaliser:binance"})
    told = Desk(normalising).retry()
    assert told.inserted == {"market_data": 1}
    found = _rows(client, f"SELECT symbol, trade_id, _log FROM {database}.market_data")
    assert found == [("BTCUSDT", 7, bus.log)]
    assert Desk(normalising).open() == []


# -- files --


def test_a_line_of_a_file_goes_in_when_its_table_is_there(
    settings: Settings, client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """The file may be gone. What was recorded again from it meanwhile is found."""
    rows = [
        {"table": "things", "ts_local": START_NS, "count": 7},
        {"table": "orders", "ts_local": START_NS, **order(1)},
    ]
    path = write_rows(tmp_path / "rows.ndjson", rows)
    with Recorder(settings) as recorder:
        run_ingest(recorder, [path], IngestOptions())
    packs = things_pack(tmp_path / "pack", wider=False)
    recorded(settings, packs=packs)
    path.unlink()
    assert Desk(settings, packs).retry().inserted == {"things": 1}
    path = write_rows(tmp_path / "rows.ndjson", rows)
    with Recorder(settings, packs=packs) as recorder:
        again = run_ingest(recorder, [path], IngestOptions())
    assert again.balance["things"].duplicates_skipped == 1
    assert _rows(client, f"SELECT count, _seq FROM {database}.things") == [(7, source_seq(0, 0))]
    assert Desk(settings, packs).open() == []


def test_a_capture_is_recorded_again_and_not_retried(
    settings: Settings, client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """What a venue's message makes depends on those before it: the file is named that has them."""
    odd = f"{START_NS} ".encode() + b'{"e": "martian", "s": "BTCUSDT"}'
    path = write_lines(tmp_path / "day.capture", [*capture_lines(4), odd, b"no time at all"])
    with Recorder(settings) as recorder:
        run_ingest(recorder, [path], IngestOptions())
    told = Desk(settings).retry()
    assert told.inserted == {}
    faults = {letter.reason: faults[0] for letter, faults in told.open}
    assert faults["unknown_event"].reason == "of_a_capture"
    assert str(path) in faults["unknown_event"].detail
    assert faults["no_local_time"].reason == "not_json"


def test_what_has_no_identity_is_never_inserted(settings: Settings, client: Client, database: str) -> None:
    """Kept by a program, or a frame of a bus that is no message: told, listed, and left."""
    with Recorder(settings) as recorder:
        recorder.dead_letter(
            reason="bus_malformed", detail="no frame", payload=b"\x00\x01", origin="zmq://here"
        )
        recorder.flush(timeout_s=60)
    told = Desk(settings).retry()
    assert [fault.reason for _, faults in told.open for fault in faults] == ["no_identity"]
