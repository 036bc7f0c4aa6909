"""Archived rows back in real tables, on the embedded engine and over HTTP, each once."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from harness.bucket import NAME, Bucket
from harness.restoring import COLUMNS, DAY, NAMES, SMALL, Database, opened

from recorder.cli.archive_restore import make_table, see_ttl
from recorder.cli.archive_target import TableTarget
from recorder.cli.errors import Failure
from retention.archive import open_store, partition_of, restore_partition
from retention.errors import ArchiveError, VerifyError
from schemas.executor import ClientExecutor

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from harness.backends import Backend


@pytest.fixture(name="db")
def _db(backend: Backend, client: Client, database: str) -> Iterator[Database]:
    with opened(client, backend.sink(database), database) as db:
        db.make()
        yield db


def test_a_dropped_partition_comes_back_to_the_last_bit(db: Database, tmp_path: pathlib.Path) -> None:
    """First piece and addenda, every type; computed columns are computed again; a second run sends nothing."""
    for start, stop in ((0, 300), (300, 340), (340, 341)):
        db.fill(start, stop)
        store = db.archive(tmp_path)
    assert len(partition_of(store, DAY).pieces) == 3
    db.drop()
    done = db.restore(store)
    assert (done.rows, done.inserted, done.there, done.others, done.pieces) == (341, 341, 0, 0, 3)
    assert db.differ(0, 341) == 0
    assert db.ask(f"SELECT sum(twice = count * 2) FROM {db.name}.trades") == 341
    again = db.restore(store)
    assert (again.inserted, again.there) == (0, 341)
    assert db.differ(0, 341) == 0


def test_rows_that_are_there_are_not_sent_again_and_others_stay(db: Database, tmp_path: pathlib.Path) -> None:
    """Late rows that no archive has are counted, and neither lost nor an error; other partitions are not touched."""
    db.fill(0, 300)
    store = db.archive(tmp_path)
    db.drop()
    db.fill(100, 250)
    db.fill(500, 520)
    db.fill(90_000, 90_003)
    done = db.restore(store)
    assert (done.inserted, done.there, done.others) == (150, 150, 20)
    assert db.rows() == 323
    assert db.ask(f"SELECT uniqExact(_log, _seq) FROM {db.name}.trades") == 323
    db.client.command(
        f"ALTER TABLE {db.name}.trades DELETE WHERE _seq >= 300", settings={"mutations_sync": 2}
    )
    assert db.differ(0, 300) == 0


def test_rows_that_were_deleted_under_a_token_the_table_remembers_come_back(
    db: Database, tmp_path: pathlib.Path
) -> None:
    """The same rows into the same state, as a TTL or a DELETE leaves it, are no repeated insert."""
    db.client.command(
        f"ALTER TABLE {db.name}.trades MODIFY SETTING non_replicated_deduplication_window = 100000"
    )
    db.fill(0, 100)
    store = db.archive(tmp_path)
    db.drop()
    for _ in range(3):
        assert db.restore(store).rows == 100
        assert db.differ(0, 100) == 0
        db.client.command(f"ALTER TABLE {db.name}.trades DELETE WHERE 1", settings={"mutations_sync": 2})
        assert db.rows() == 0


def test_rows_of_an_older_schema_fit_the_table_of_now(db: Database, tmp_path: pathlib.Path) -> None:
    """A new column has its default, a renamed one its values, a wider one the same numbers; pieces of both schemas."""
    db.fill(0, 100)
    db.archive(tmp_path)
    trades = f"{db.name}.trades"
    db.client.command(f"ALTER TABLE {trades} ADD COLUMN fee Float64 DEFAULT 0.25")
    db.client.command(f"ALTER TABLE {trades} DROP COLUMN twice")
    db.client.command(f"ALTER TABLE {trades} RENAME COLUMN note TO remark, MODIFY COLUMN count UInt64")
    db.client.command(f"ALTER TABLE {trades} MODIFY COLUMN kind Enum8('buy' = 1, 'sell' = -2, 'none' = 3)")
    names = NAMES.replace("note", "remark")
    db.client.command(
        f"INSERT INTO {trades} SELECT * REPLACE (now64(9) AS ts_venue, 7000 + _seq AS _seq) FROM {trades} LIMIT 5"
    )
    store = db.archive(tmp_path)
    db.drop()
    done = db.restore(store, renames=[("note", "remark")])
    assert (done.inserted, done.pieces) == (105, 2)
    db.client.command(f"ALTER TABLE {trades} DELETE WHERE _seq >= 7000", settings={"mutations_sync": 2})
    assert db.differ(0, 100, names=names) == 0
    assert db.ask(f"SELECT sum(fee) FROM {trades}") == 25


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ("note ", "remark ", "has a column note, and .*changed has none.*--into"),
        ("'buy' = 1", "'buy' = 2", "column kind is Enum8.*mean something else"),
        ("count UInt32", "count UInt8", "column count is uint32.*wants uint8"),
        (
            "payload Nullable(String)",
            "payload String",
            "payload has no value in .* wants binary without NULL",
        ),
    ],
)
def test_rows_that_would_be_changed_are_refused(
    db: Database, tmp_path: pathlib.Path, was: str, now: str, told: str
) -> None:
    """By the column and what the table wants; nothing is guessed, and no value is cut."""
    db.fill(0, 300)
    store = db.archive(tmp_path)
    db.make("changed", COLUMNS.replace(was, now))
    with pytest.raises(ArchiveError, match=told):
        db.restore(store, "changed")


def test_damage_anywhere_is_found_before_a_row_is_sent(db: Database, tmp_path: pathlib.Path) -> None:
    """A flipped bit in the last file of the last addendum, a missing file, a manifest that is not the receipt's."""
    db.fill(0, 200)
    db.archive(tmp_path)
    db.fill(200, 230)
    store = db.archive(tmp_path)
    db.drop()
    folder = tmp_path / DAY.folder
    last = max(folder.glob("part-0001-*"))
    whole = last.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content, told in ((bytes(flipped), "sha256"), (whole[:-1], "bytes"), (None, "is missing")):
        last.unlink(missing_ok=True)
        if content is not None:
            last.write_bytes(content)
        with pytest.raises(VerifyError, match=f"{last.name}.*{told}"):
            db.restore(store)
        assert db.rows() == 0
    last.write_bytes(whole)
    assert db.restore(store).inserted == 230


def test_a_piece_without_a_receipt_counts_when_it_reads_back_true(
    db: Database, tmp_path: pathlib.Path
) -> None:
    """Its files are read back whole; one that is untrue is refused."""
    db.fill(0, 100)
    store = db.archive(tmp_path)
    db.drop()
    (tmp_path / DAY.folder / "receipt-0000.json").unlink()
    assert db.restore(store).inserted == 100
    assert db.differ(0, 100) == 0


def test_rows_that_are_missing_or_doubled_afterwards_are_told(db: Database, tmp_path: pathlib.Path) -> None:
    """A table that loses rows, or has some twice, never passes for restored; numbers of both are named."""
    db.fill(0, 100)
    store = db.archive(tmp_path)
    db.fill(10, 13)
    with pytest.raises(
        VerifyError, match=r"of the 100 archived rows .* it has 100, 0 are missing and 3 are there twice"
    ):
        db.restore(store)
    db.drop()

    class Losing(TableTarget):
        def insert(self, rows: Any, token: str) -> None:
            super().insert(rows.slice(1), token)

    with pytest.raises(VerifyError, match=r"[1-9]\d* are missing and 0 are there twice"):
        restore_partition(db.target(kind=Losing), store, DAY, limits=SMALL)


def test_a_bucket_gives_rows_back_too(
    db: Database, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a folder does, with requests that fail on the way; nothing is left on the local disk."""
    with Bucket() as bucket:
        for name, value in bucket.variables().items():
            monkeypatch.setenv(name, value)
        store = open_store(f"s3://{NAME}/some/prefix", spool=tmp_path / "spool")
        db.fill(0, 200)
        db.archive_to(store)
        db.drop()
        bucket.fail_every(5)
        assert db.restore(store).inserted == 200
        assert bucket.failed > 0
    assert db.differ(0, 200) == 0
    assert list((tmp_path / "spool").iterdir()) == []


def test_rows_that_the_table_would_delete_again_are_refused(db: Database, tmp_path: pathlib.Path) -> None:
    """A TTL that is over, or that speaks of more than the time; one that is not over yet, and none, are fine."""
    db.fill(0, 10)
    known = partition_of(db.archive(tmp_path), DAY)
    executor = ClientExecutor(db.client)
    ask = partial(see_ttl, executor, db.name, known=known)
    for table, ttl, told in (
        ("over", "toDateTime(ts_local) + toIntervalDay(90)", "is over for rows of trades 2024-08-08.*--into"),
        ("other", "toDateTime(ts_local) + toIntervalDay(count)", "cannot be judged here.*--despite-ttl"),
        ("fine", "toDateTime(ts_local) + toIntervalDay(20000)", ""),
    ):
        db.make(table)
        db.client.command(f"ALTER TABLE {db.name}.{table} MODIFY TTL {ttl}")
        if told:
            with pytest.raises(Failure, match=told):
                ask(table, despite_ttl=False)
        else:
            ask(table, despite_ttl=False)
        ask(table, despite_ttl=True)
    ask("trades", despite_ttl=False)


def test_another_table_is_made_as_the_archive_has_it(db: Database, tmp_path: pathlib.Path) -> None:
    """With its types, order and partitions, without a TTL, also where the table itself is gone; made once."""
    db.fill(0, 100)
    store = db.archive(tmp_path)
    db.client.command(f"DROP TABLE {db.name}.trades SYNC")
    for _ in range(2):
        make_table(ClientExecutor(db.client), db.name, "odd `name", partition_of(store, DAY), ())
    db.restore(store, "odd `name")
    db.client.command(f"RENAME TABLE {db.name}.`odd \\`name` TO {db.name}.again")
    assert db.differ(0, 100, "again") == 0
    keys = "SELECT concat(partition_key, ' ', sorting_key) FROM system.tables"
    assert (
        db.ask(f"{keys} WHERE database = '{db.name}' AND name = 'again'")
        == "toYYYYMMDD(ts_local) symbol, ts_local"
    )
