"""Files of every kind through the recorder into ClickHouse: whole, again, cut short, too old, stopped."""

from __future__ import annotations

import gzip
import os
import pathlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness.backends import Backend
from harness.ingest_files import START_NS, capture_lines, write_lines, write_rows

from recorder import Recorder, Settings
from recorder.identity import UNDATED_NS
from recorder.ingest import (
    FileDamaged,
    Format,
    IngestOptions,
    IngestResult,
    Progress,
    RowsTooOld,
    TableHeld,
    TableUnknown,
    WrongUse,
    feed,
    run_ingest,
)
from recorder.ingest.lines import line_blocks
from recorder.normalise.base import Message, NormalisedRow

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

Ingest = Callable[..., IngestResult]
FILL = {
    "ts_local": START_NS, "fill_id": "f-1", "symbol": "BTCUSDT", "venue": "binance", "side": "buy",
    "fill_qty": "0.1", "fill_price": "61800.20",
}  # fmt: skip


@pytest.fixture
def settings(backend: Backend, database: str, tmp_path: pathlib.Path) -> dict[str, Any]:
    return {
        "target": backend.target, "database": database, "data_dir": tmp_path / "data", "migrate_on_start": True,
    }  # fmt: skip


@pytest.fixture
def ingest(settings: dict[str, Any]) -> Ingest:
    """One run, with a recorder of its own, into this test's database."""

    def run(*files: pathlib.Path, ttl: bool = False, **options: Any) -> IngestResult:
        with Recorder(Settings(**settings, ttl=ttl)) as recorder:
            return run_ingest(recorder, files, IngestOptions(**options))

    return run


@pytest.fixture
def count(client: Client, database: str) -> Callable[[str], int]:
    return lambda table: int(client.query(f"SELECT count() FROM {database}.{table}").result_rows[0][0])


# -- again ------------------------------------------------------------------------------------------------------


def test_packed_or_not_a_capture_is_recorded_once(
    ingest: Ingest, count: Callable[[str], int], tmp_path: pathlib.Path
) -> None:
    """A capture that was recorded adds nothing when it comes again as gzip under another name."""
    lines = capture_lines(3_000)
    first = ingest(write_lines(tmp_path / "a.log", lines))
    again = ingest(write_lines(tmp_path / "b.gz", lines, pack=True))
    assert first.inserted == {"market_data": 3_000}
    assert again.inserted == {"market_data": 0}
    assert again.already_there == {"market_data": 3_000}
    assert count("market_data") == 3_000


def test_the_same_content_twice_and_an_empty_file_are_said(ingest: Ingest, tmp_path: pathlib.Path) -> None:
    """In one command the second is left out by name, and an empty file is no error."""
    lines = capture_lines(10)
    one, two = write_lines(tmp_path / "one", lines), write_lines(tmp_path / "two.gz", lines, pack=True)
    empty, packed_empty = tmp_path / "empty", tmp_path / "empty.gz"
    empty.write_bytes(b"")
    packed_empty.write_bytes(gzip.compress(b""))
    result = ingest(one, two, empty, packed_empty)
    assert result.ok
    assert result.rows == {"market_data": 10}
    notices = {pathlib.Path(file.name).name: file.notice for file in result.files}
    assert notices["one"] == ""
    assert notices["two.gz"] == f"same content as {one}: recorded once"
    assert "empty" in notices["empty"]
    assert "empty" in notices["empty.gz"]


def test_state_runs_on_from_file_to_file(
    ingest: Ingest, client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """A trade at the start of the second file knows the top of book of the first; a hole between them is a gap row."""
    lines = capture_lines(4)
    ingest(write_lines(tmp_path / "a", lines[:1]), write_lines(tmp_path / "b", lines[1:2]))
    row = client.query(f"SELECT bid_px1, ask_px1 FROM {database}.market_data WHERE trade_id = 1").result_rows
    assert row == [(61_800.20, 61_800.30)]
    after_hole = write_lines(tmp_path / "d", capture_lines(2, first_id=9)[1:])
    result = ingest(write_lines(tmp_path / "c", lines[1:2]), after_hole)
    assert result.rows["system_events"] == 1


# -- cut short, damaged, changed ------------------------------------------------------------------------------------


def test_a_truncated_gzip_is_recorded_as_far_as_it_goes(
    ingest: Ingest, client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """Whole lines are rows, the torn one is a dead letter with its bytes, and the file is named as truncated."""
    packed = write_lines(tmp_path / "whole.gz", capture_lines(5_000), pack=True).read_bytes()
    path = tmp_path / "cut.gz"
    path.write_bytes(packed[: len(packed) // 2])
    result = ingest(path)
    assert [file.name for file in result.truncated] == [str(path)]
    assert not result.ok
    assert f"at byte {len(packed) // 2:,}" in result.files[0].notice
    assert sum(result.bad_records.values()) == 1
    assert 0 < result.rows["market_data"] == result.records - 1
    torn = client.query(
        f"SELECT payload, origin, source_seq FROM {database}.dead_letters",
        column_formats={"payload": "bytes"},
    ).result_rows
    assert len(torn) == 1
    lines = capture_lines(5_000)
    position = result.records - 1
    assert lines[position].endswith(torn[0][0]) or torn[0][0] in lines[position]
    assert torn[0][1] == f"{path}, line {position + 1:,}"
    assert torn[0][2] == position * 4_096


def test_a_damaged_file_is_refused_before_its_first_row(
    ingest: Ingest, count: Callable[[str], int], tmp_path: pathlib.Path
) -> None:
    """Nothing in it can be believed, so nothing of the command is recorded."""
    good = write_lines(tmp_path / "good", capture_lines(10))
    bad = write_lines(tmp_path / "bad.gz", capture_lines(5_000), pack=True)
    data = bytearray(bad.read_bytes())
    data[-6] ^= 1
    bad.write_bytes(data)
    with pytest.raises(FileDamaged):
        ingest(good, bad)
    assert count("market_data") == 0


def test_garbage_between_good_lines_costs_those_lines(
    ingest: Ingest, client: Client, database: str, count: Callable[[str], int], tmp_path: pathlib.Path
) -> None:
    """Each bad line is one dead letter with its bytes; again, it is still one."""
    lines = capture_lines(200)
    stamp = b"%d " % START_NS
    bad = [b"\xff\xfe\x00 what", stamp + b"{not json", b"12 {}", stamp + b'{"e":"surprise"}']
    mixed = lines[:100] + bad + lines[100:] + [stamp + b'{"stream":"btcusdt@tra']
    path = write_lines(tmp_path / "f", mixed)
    for _ in range(2):
        result = ingest(path)
        assert sum(result.bad_records.values()) == 5
        assert result.rows == {"market_data": 200}
        assert count("market_data") == 200
        kept = client.query(
            f"SELECT payload FROM {database}.dead_letters ORDER BY source_seq",
            column_formats={"payload": "bytes"},
        ).result_rows
        payloads = [row[0] for row in kept]
        assert len(payloads) == 5
        for payload, line in zip(payloads, [*bad, mixed[-1]], strict=True):
            assert line.endswith(payload)


def test_touching_a_file_doubles_no_dead_letter(
    ingest: Ingest, client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """The time of a dead letter is the last local time before it, or a fixed one: nothing of the file's own times."""
    bad = FILL | {"ts_local": START_NS + 5, "colour": "red"}
    early = FILL | {"ts_local": "soon"}
    late = FILL | {"ts_local": START_NS + 3, "fill_id": "f-2"}
    path = write_rows(
        tmp_path / "f", [b"first", early, FILL, b"second", bad, {"fill_id": "x"}, late, b"third"]
    )
    for seconds in (1_600_000_000, 1_700_000_000):
        os.utime(path, (seconds, seconds))
        result = ingest(path, table="fills")
        assert (
            result.rows["fills"] + result.bad_records["not_json"] + result.bad_records["no_local_time"] == 8
        )
        assert result.ok
        letters = client.query(
            f"SELECT intDiv(source_seq, 4096), toUnixTimestamp64Nano(ts_local) FROM {database}.dead_letters ORDER BY 1"
        ).result_rows
        assert letters == [
            (0, UNDATED_NS), (1, UNDATED_NS), (3, START_NS), (4, START_NS + 5), (5, START_NS + 5),
            (7, START_NS + 3),
        ]  # fmt: skip


def test_each_table_a_file_was_recorded_for_has_its_dead_letters(
    ingest: Ingest, client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """Rows that two tables refuse are two letters each, whether the reader or the table refused them; no more."""
    path = write_rows(tmp_path / "f", [{"ts_local": START_NS, "colour": "red"}, b"not json"])
    for table in ("fills", "orders", "fills", "orders"):
        assert ingest(path, table=table).ok
    letters = client.query(
        f"SELECT table_name, reason, count() FROM {database}.dead_letters GROUP BY 1, 2 ORDER BY 1, 2"
    ).result_rows
    assert [(table, count) for table, _, count in letters] == [
        ("fills", 1), ("fills", 1), ("orders", 1), ("orders", 1),
    ]  # fmt: skip


def test_a_file_that_grows_while_it_is_read_is_an_error(
    settings: dict[str, Any], ingest: Ingest, count: Callable[[str], int], tmp_path: pathlib.Path
) -> None:
    """It says what was taken, and under which identity; the complete file is another source."""
    lines = capture_lines(30_000)
    path = write_lines(tmp_path / "f", lines)
    assert path.stat().st_size > 4 * 1024 * 1024
    stop_at = 100

    def on_progress(now: Progress) -> None:
        if now.phase == "recording" and now.rows >= stop_at and len(lines) == 30_000:
            lines.append(capture_lines(1)[0])
            with path.open("ab") as file:
                file.write(lines[-1] + b"\n")

    small = {
        "market_data": {"queue_rows": 5_000}
    }  # the reader waits, and is not at the end before the file grows
    with (
        Recorder(Settings(**settings, ttl=False, tables=small)) as recorder,
        pytest.raises(FileDamaged, match=r"changed while it was read: 30,001 records .* _log = \d+"),
    ):
        run_ingest(recorder, [path], IngestOptions(), on_progress)


def test_a_file_touched_while_it_is_read_is_none(ingest: Ingest, tmp_path: pathlib.Path) -> None:
    """What was read is what was checked: another time on the file changes nothing."""
    path = write_lines(tmp_path / "f", capture_lines(10))
    read = line_blocks

    def touching(*args: Any, **kwargs: Any) -> Any:
        os.utime(path, (1, 1))
        return read(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "line_blocks", touching)
        assert ingest(path).ok


@pytest.mark.parametrize(
    ("slots", "says"),
    [
        ([0, 3, 0], "2 rows of market_data slot 0"), ([4_096], "slot 4096; slots go from 0 to 4095"),
        ([0, -1], "slot -1"),
    ],
)  # fmt: skip
def test_rows_that_would_be_taken_for_one_another_are_a_dead_letter(
    slots: list[int], says: str, ingest: Ingest, client: Client, database: str, tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A normaliser that numbers a message's rows wrongly costs that message, and neither the run nor a row unseen."""

    class Plugin:
        filtered: Counter[str] = Counter()
        ignored: Counter[str] = Counter()

        def normalise(self, message: Message) -> list[NormalisedRow]:
            wrong = b"wrong" in message.payload
            row = {"ts_local": message.ts_local, "symbol": "S"}
            return [NormalisedRow("market_data", slot, row) for slot in (slots if wrong else range(3))]

    monkeypatch.setattr(feed, "open_normaliser", lambda name, options: Plugin())
    path = write_lines(tmp_path / "f", [b'%d {"n":1}' % START_NS, b'%d {"wrong":1}' % START_NS])
    result = ingest(path, format=Format.BINANCE_CAPTURE)
    assert result.ok
    assert result.rows == {"market_data": 3}
    assert result.bad_records == {"bad_slots": 1}
    ((detail, payload),) = client.query(f"SELECT detail, payload FROM {database}.dead_letters").result_rows
    assert says in detail
    assert "wrong" in str(payload)


def test_bad_lines_go_together(
    settings: dict[str, Any], count: Callable[[str], int], tmp_path: pathlib.Path
) -> None:
    """A file of garbage is handed over in blocks as rows are, and sooner where its lines are long."""
    path = write_rows(
        tmp_path / "f", [{"table": "fills", **FILL}, *[b"not json %d" % n for n in range(8_000)]]
    )
    long = write_rows(
        tmp_path / "g", [{"table": "fills", **FILL}, *[b"%d" % n + b"x" * 2**20 for n in range(12)]]
    )
    with Recorder(Settings(**settings, ttl=False)) as recorder:
        blocks: list[int] = []
        record_source = recorder.record_source

        def counting(log: int, entries: list[Any], **how: Any) -> int:
            blocks.append(len(entries))
            return record_source(log, entries, **how)

        recorder.record_source = counting  # type: ignore[assignment, method-assign]
        assert run_ingest(recorder, [path]).bad_records == {"not_json": 8_000}
        assert len(blocks) <= 5
        assert max(blocks) >= 4_000
        blocks.clear()
        assert run_ingest(recorder, [long]).ok
        assert max(blocks) <= 5, "no more than a few megabytes at a time"
    assert count("dead_letters") == 8_012


# -- rows -----------------------------------------------------------------------------------------------------------


def test_ndjson_of_many_tables_or_of_one(
    ingest: Ingest, count: Callable[[str], int], tmp_path: pathlib.Path
) -> None:
    """Rows name their table by the key `table`, or all are for the one of the option."""
    rows = [
        {"table": "fills", **FILL},
        {"table": "system_events", "ts_local": START_NS, "kind": "test", "message": "café"},
        {"table": "orders", "ts_local": START_NS, "symbol": "BTCUSDT", "status": "Acked"},
    ]
    result = ingest(write_rows(tmp_path / "many", rows))
    assert result.rows == {"fills": 1, "system_events": 1, "orders": 1}
    assert result.ok
    more = [FILL | {"fill_id": f"f-{n}"} for n in range(500)]
    result = ingest(write_rows(tmp_path / "fills", more), table="fills")
    assert result.inserted == {"fills": 500}
    assert count("fills") == 501


def test_numbers_of_money_keep_their_digits(
    ingest: Ingest, client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """A JSON number with 18 decimals is stored as it was written."""
    text = '{"fill_id":"f","symbol":"S","side":"buy","ts_local":%d,"fill_qty":0.123456789012345678,"fill_price":1.10}'
    ingest(write_lines(tmp_path / "f", [(text % START_NS).encode()]), table="fills")
    stored = client.query(f"SELECT fill_qty, fill_price FROM {database}.fills").result_rows
    assert stored == [(Decimal("0.123456789012345678"), Decimal("1.10"))]


def test_parquet_is_recorded_by_its_columns(
    ingest: Ingest, client: Client, database: str, count: Callable[[str], int], tmp_path: pathlib.Path
) -> None:
    """Times, decimals, lists and nulls of Arrow arrive as they are; a second run adds nothing."""
    rows = 5_000
    table = pa.table({
        "ts_local": pa.array([START_NS + n for n in range(rows)], pa.timestamp("ns", tz="UTC")),
        "symbol": pa.array(["BTCUSDT"] * rows).dictionary_encode(),
        "bid_px1": pa.array([None if n % 7 == 0 else n / 8 for n in range(rows)]),
        "bid_pxs": pa.array([[1.5, 2.5]] * rows),
        "trade_id": pa.array(range(rows), pa.int64()),
    })  # fmt: skip
    path = tmp_path / "day.parquet"
    pq.write_table(table, path, row_group_size=1_000)
    assert ingest(path, table="market_data").inserted == {"market_data": rows}
    assert ingest(path, table="market_data").already_there == {"market_data": rows}
    found = client.query(
        "SELECT count(), countIf(bid_px1 IS NULL), sum(bid_px1), sum(arraySum(bid_pxs)), sum(trade_id), "
        f"min(toUnixTimestamp64Nano(ts_local)) FROM {database}.market_data"
    ).result_rows[0]
    values = [n / 8 for n in range(rows) if n % 7]
    assert found == (rows, rows - len(values), sum(values), 4.0 * rows, sum(range(rows)), START_NS)
    assert count("dead_letters") == 0


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"symbol": ["a"], "ts_local": [START_NS], "colour": ["red"]}, "no column colour"),
        ({"ts_local": [START_NS]}, "needs column symbol"),
        ({"symbol": ["a"]}, "needs column ts_local"),
        ({"symbol": ["a"], "ts_local": pa.array([START_NS], pa.timestamp("ns"))}, "without a time zone"),
        ({"symbol": ["a"], "ts_local": [START_NS], "_seq": [1]}, "EXCEPT"),
    ],
)
def test_parquet_of_other_columns_is_refused_as_a_whole(
    ingest: Ingest, tmp_path: pathlib.Path, columns: dict[str, Any], says: str
) -> None:
    """What is wrong with all rows is one error with the remedy, not a dead letter each."""
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(WrongUse, match=says):
        ingest(path, table="market_data")


def test_parquet_that_is_cut_short_is_damaged(ingest: Ingest, tmp_path: pathlib.Path) -> None:
    """A Parquet file has its index at the end: without it nothing can be read."""
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"symbol": ["a"] * 1_000, "ts_local": [START_NS] * 1_000}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FileDamaged):
        ingest(path, table="market_data")


def test_a_table_that_is_not_there_is_named(ingest: Ingest, tmp_path: pathlib.Path) -> None:
    """With the tables that are."""
    with pytest.raises(TableUnknown, match="market_data"):
        ingest(write_rows(tmp_path / "f", [FILL]), table="fils")


# -- too old --------------------------------------------------------------------------------------------------------


def test_rows_older_than_the_live_ttl_are_refused(
    ingest: Ingest, count: Callable[[str], int], tmp_path: pathlib.Path
) -> None:
    """With the remedy, whatever the settings of this run say: the database was made with its TTL."""
    path = write_lines(tmp_path / "f", capture_lines(100))
    now = time.time_ns()
    young = capture_lines(100, first_ns=now - 10**12, first_id=101)
    assert ingest(write_lines(tmp_path / "young", young), ttl=True).ok
    with pytest.raises(RowsTooOld, match="KEEP_DAYS=forever"):
        ingest(path, ttl=False)
    result = ingest(write_lines(tmp_path / "both", capture_lines(100) + young), ttl=False, skip_old=True)
    assert result.too_old == {"market_data": 100}
    assert not result.ok
    assert count("market_data") == 200


def test_without_a_ttl_old_rows_stay(
    ingest: Ingest, count: Callable[[str], int], tmp_path: pathlib.Path
) -> None:
    """A database made without TTL takes rows of any age."""
    assert ingest(write_lines(tmp_path / "f", capture_lines(100)), ttl=False).ok
    assert count("market_data") == 100


# -- limits, stops, progress ----------------------------------------------------------------------------------------


def test_a_limit_ends_the_run_and_a_whole_one_completes_it(
    ingest: Ingest, count: Callable[[str], int], tmp_path: pathlib.Path
) -> None:
    """What a limited run recorded is already there for the next."""
    path = write_lines(tmp_path / "f", capture_lines(5_000))
    assert ingest(path, limit=1_234).records == 1_234
    result = ingest(path)
    assert result.already_there == {"market_data": 1_234}
    assert count("market_data") == 5_000


def test_a_stop_ends_cleanly_and_can_be_gone_on_from(
    settings: dict[str, Any], ingest: Ingest, count: Callable[[str], int], tmp_path: pathlib.Path
) -> None:
    """A stopped replay says so, what it counted is recorded, and the next run adds the rest."""
    path = write_lines(tmp_path / "f", capture_lines(2_000, step_ns=10_000_000))
    stop = threading.Event()
    seen: list[Progress] = []

    def on_progress(now: Progress) -> None:
        seen.append(now)
        if now.phase == "recording" and now.rows >= 50:
            stop.set()

    with Recorder(Settings(**settings, ttl=False)) as recorder:
        result = run_ingest(recorder, [path], IngestOptions(speed=5), on_progress, stop=stop)
    assert result.interrupted
    assert not result.ok
    assert result.exact
    assert 50 <= result.rows["market_data"] < 2_000
    assert count("market_data") == result.rows["market_data"] == result.inserted["market_data"]
    whole = ingest(path)
    assert whole.ok
    assert whole.already_there == result.inserted
    assert count("market_data") == 2_000


@pytest.mark.parametrize("kind", ["capture", "ndjson", "parquet"])
def test_replay_takes_its_time(ingest: Ingest, tmp_path: pathlib.Path, kind: str) -> None:
    """One second of records at twice real time takes half a second, whatever the format."""
    times = [START_NS + n * 10_000_000 for n in range(101)]
    path = tmp_path / "f"
    options: dict[str, Any] = {"table": "market_data"}
    if kind == "capture":
        write_lines(path, capture_lines(101, step_ns=10_000_000))
        options = {}
    elif kind == "ndjson":
        write_rows(path, [{"ts_local": ts_local, "symbol": "S"} for ts_local in times])
    else:
        pq.write_table(pa.table({"ts_local": times, "symbol": ["S"] * 101}), path)
    started = time.monotonic()
    result = ingest(path, speed=2, **options)
    assert result.rows == {"market_data": 101}
    assert result.elapsed_s >= 0.5
    assert time.monotonic() - started < 30


def test_the_file_must_not_change_between_checking_and_recording(
    settings: dict[str, Any], count: Callable[[str], int], tmp_path: pathlib.Path
) -> None:
    """Rows under an identity that is not their content's would be lost in the next run."""
    first = write_lines(tmp_path / "first", capture_lines(2_000, step_ns=1_000_000))
    grows = write_lines(tmp_path / "grows", capture_lines(10, first_id=7_000))

    def on_progress(now: Progress) -> None:
        if now.phase == "recording" and len(grows.read_bytes().splitlines()) == 10:
            with grows.open("ab") as file:
                file.write(capture_lines(1)[0] + b"\n")

    with Recorder(Settings(**settings, ttl=False)) as recorder, pytest.raises(FileDamaged, match="changed"):
        run_ingest(recorder, [first, grows], IngestOptions(speed=4), on_progress)
    assert count("market_data") == 2_000


def test_a_held_table_is_not_waited_for_for_ever(
    settings: dict[str, Any], ingest: Ingest, client: Client, database: str, count: Callable[[str], int],
    tmp_path: pathlib.Path,
) -> None:  # fmt: skip
    """The run ends with the table and the reason, with more rows than its queue holds; mended, a repeat adds all."""
    path = write_lines(tmp_path / "f", capture_lines(20_000))
    assert ingest(write_lines(tmp_path / "few", capture_lines(2))).ok
    client.command(f"RENAME TABLE {database}.market_data TO {database}.away")
    small = Settings(
        **(settings | {"migrate_on_start": False}),
        ttl=False,
        shutdown_timeout_s=1,
        defaults={"queue_rows": 5_000},
    )
    started = time.monotonic()
    with Recorder(small) as recorder, pytest.raises(TableHeld, match="market_data is held"):
        run_ingest(recorder, [path], IngestOptions(held_patience_s=1))
    assert time.monotonic() - started < 30
    client.command(f"RENAME TABLE {database}.away TO {database}.market_data")
    assert ingest(path).ok
    assert count("market_data") == 20_002
