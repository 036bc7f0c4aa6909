"""One view over live and archived rows of real tables: whatever is where, each row once and to the last bit."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from harness.restoring import DAY, KEYS, NAMES, Database, opened

from recorder.cli.archive_attach import files_of, make_view
from recorder.cli.errors import Failure
from retention.archive import FolderStore, Store, open_store, partitions
from schemas.renames import Renames

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from harness.backends import Backend

VIEW = "trades_with_archive"


@pytest.fixture(name="db")
def _db(backend: Backend, client: Client, database: str) -> Iterator[Database]:
    with opened(client, backend.sink(database), database) as db:
        db.make()
        yield db


def attach(db: Database, store: Store, renames: Renames = ()) -> tuple[int, int]:
    return make_view(db.client, db.name, "trades", list(partitions(store, "trades")), store, renames)


def test_a_row_counts_once_wherever_it_is(db: Database, tmp_path: pathlib.Path) -> None:
    """All live, none live, some live, with late rows, restored: one view, made once, gives every row once."""
    db.fill(0, 200)
    db.archive(tmp_path)
    db.fill(200, 230)
    store = db.archive(tmp_path)
    assert attach(db, store) == (2, 0)
    assert db.differ(0, 230, VIEW) == 0, "all live, all archived"
    db.drop()
    assert db.differ(0, 230, VIEW) == 0, "dropped"
    db.fill(50, 120)
    assert db.differ(0, 230, VIEW) == 0, "some are live"
    db.fill(230, 260)
    assert db.differ(0, 260, VIEW) == 0, "late rows"
    db.restore(store)
    assert db.differ(0, 260, VIEW) == 0, "restored, and late rows"
    times = f"SELECT count() FROM {db.name}.{VIEW} WHERE ts_local >= '2024-08-08 12:01:00' AND symbol = 'S1'"
    assert db.ask(times) == db.ask(times.replace(VIEW, "trades"))


def test_partitions_are_told_apart(db: Database, tmp_path: pathlib.Path) -> None:
    """Of three days one after the other goes: the view has all of all, and each once."""
    store = FolderStore(tmp_path)
    days = ("2024-08-08", "2024-08-09", "2024-08-10")
    for number, day in enumerate(days):
        db.fill(86_400 * number, 86_400 * number + 20)
        db.archive_to(store, day)
    attach(db, store)
    for gone, day in enumerate((days[1], days[0], days[2]), 1):
        db.client.command(f"ALTER TABLE {db.name}.trades DROP PARTITION ID '{day.replace('-', '')}'")
        assert db.rows() == 60 - 20 * gone
        assert (db.rows(VIEW), db.ask(f"SELECT uniqExact(_seq) FROM {db.name}.{VIEW}")) == (60, 60)


def test_rows_of_an_older_schema_are_shown_as_the_table_is(db: Database, tmp_path: pathlib.Path) -> None:
    """A new column has its default, a renamed one its values, a wider one its numbers."""
    db.fill(0, 100)
    db.archive(tmp_path)
    trades = f"{db.name}.trades"
    db.client.command(f"ALTER TABLE {trades} DROP COLUMN twice")
    db.client.command(f"ALTER TABLE {trades} ADD COLUMN fee Float64 DEFAULT 0.25, ADD COLUMN tag String")
    db.client.command(f"ALTER TABLE {trades} RENAME COLUMN note TO remark, MODIFY COLUMN count UInt64")
    db.client.command(
        f"INSERT INTO {trades} SELECT * REPLACE (7000 + _seq AS _seq, 0.5 AS fee) FROM {trades} LIMIT 5"
    )
    store = db.archive(tmp_path)
    assert attach(db, store, [("note", "remark")]) == (2, 0)
    db.drop()
    assert (db.rows(VIEW), db.ask(f"SELECT sum(fee) FROM {db.name}.{VIEW}")) == (105, 27.5)
    for where, rows in (
        ("fee > 0.3", 5),
        ("tag = ''", 105),
        ("remark = 'n' AND fee < 0.3 AND _seq < 7000", 75),
    ):
        assert db.ask(f"SELECT count() FROM {db.name}.{VIEW} WHERE {where}") == rows
    old = f"(SELECT * FROM {db.name}.{VIEW} WHERE _seq < 7000)"
    db.client.command(f"CREATE VIEW {db.name}.old AS SELECT * FROM {old}")
    assert db.differ(0, 100, "old", names=NAMES.replace("note", "remark")) == 0


def test_files_without_a_receipt_are_left_out(db: Database, tmp_path: pathlib.Path) -> None:
    """Of an interrupted run, and of a piece that nobody verified; attached again later, they are in."""
    db.fill(0, 50)
    db.archive(tmp_path)
    db.fill(50, 60)
    store = db.archive(tmp_path)
    folder = tmp_path / DAY.folder
    (folder / "part-0009-0123abcd-000.parquet").write_bytes(b"half")
    receipt = folder / "receipt-0001.json"
    content = receipt.read_bytes()
    receipt.unlink()
    assert attach(db, store) == (1, 1)
    assert db.differ(0, 60, VIEW) == 0
    db.drop()
    assert db.rows(VIEW) == 50
    receipt.write_bytes(content)
    assert attach(db, store) == (2, 0)
    assert db.differ(0, 60, VIEW) == 0


def test_a_table_of_more_than_one_partition_a_day_is_told_apart(db: Database, tmp_path: pathlib.Path) -> None:
    """By day and a group of symbols, as ClickHouse calls its partitions: dropped in part, each row counts once."""
    db.client.command(f"DROP TABLE {db.name}.trades SYNC")
    db.make(keys=KEYS.replace("toYYYYMMDD(ts_local)", "(toYYYYMMDD(ts_local), cityHash64(symbol) % 3)"))
    db.fill(0, 100)
    store = db.archive(tmp_path)
    attach(db, store)
    assert db.differ(0, 100, VIEW) == 0
    some = db.ask(f"SELECT any(_partition_id) FROM {db.name}.trades")
    db.client.command(f"ALTER TABLE {db.name}.trades DROP PARTITION ID '{some}'")
    assert 0 < db.rows() < 100
    assert db.differ(0, 100, VIEW) == 0
    assert db.restore(store).rows == 100
    assert db.differ(0, 100) == db.differ(0, 100, VIEW) == 0


def test_files_that_are_gone_are_told_and_the_view_stays_as_it_was(
    db: Database, tmp_path: pathlib.Path
) -> None:
    """One of several, or all: the engine passes over them, and a view without their rows would look whole."""
    db.fill(0, 200)
    store = db.archive(tmp_path)
    attach(db, store)
    db.drop()
    files = sorted((tmp_path / DAY.folder).glob("*.parquet"))
    assert len(files) > 1
    before = db.ask(
        f"SELECT create_table_query FROM system.tables WHERE database = '{db.name}' AND name = '{VIEW}'"
    )
    for gone in (files[:1], files):
        contents = {file: file.read_bytes() for file in gone}
        for file in gone:
            file.unlink()
        with pytest.raises(Failure, match=r"2024-08-08: the database .*archive verify"):
            attach(db, store)
        for file, content in contents.items():
            file.write_bytes(content)
    assert before == db.ask(
        f"SELECT create_table_query FROM system.tables WHERE database = '{db.name}' AND name = '{VIEW}'"
    )
    assert db.differ(0, 200, VIEW) == 0


def test_what_cannot_be_attached_is_told(db: Database, tmp_path: pathlib.Path) -> None:
    """Nothing archived, no such table, a bucket, a folder whose name is a pattern."""
    with pytest.raises(Failure, match="nothing of trades is archived with a receipt"):
        attach(db, FolderStore(tmp_path))
    db.fill(0, 10)
    store = db.archive(tmp_path)
    known = list(partitions(store, "trades"))
    with pytest.raises(Failure, match="has no table absent"):
        make_view(db.client, db.name, "absent", known, store, ())
    with pytest.raises(Failure, match="has a column symbol, for which"):
        attach(db, db.archive(tmp_path / "symbol=all"))
    db.client.command(f"ALTER TABLE {db.name}.trades ADD COLUMN date String DEFAULT 'x'")
    db.fill(10, 20)
    with pytest.raises(Failure, match="has a column date, for which ClickHouse would read the folder's name"):
        attach(db, db.archive(tmp_path))
    db.client.command(f"DROP TABLE {db.name}.trades SYNC")
    db.make(keys="ENGINE = MergeTree PARTITION BY toYear(ts_local) ORDER BY symbol")
    with pytest.raises(Failure, match=r"partitioned by toYear\(ts_local\), expected toYYYYMMDD"):
        attach(db, store)
    with pytest.raises(Failure, match="only a folder can be attached"):
        files_of(open_store("s3://bucket/prefix", spool=tmp_path))
    with pytest.raises(Failure, match="pattern"):
        files_of(FolderStore(tmp_path / "a*"))
