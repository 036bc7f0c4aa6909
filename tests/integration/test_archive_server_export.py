"""Partitions that the database writes by itself: the same rows, sums and types as those that the recorder writes."""

from __future__ import annotations

import contextlib
import pathlib
import re
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness.archives import Stopped, Stopping
from harness.bucket import NAME, Bucket
from harness.restoring import DAY, Asked, opened

from recorder.cli.archive_attach import make_view
from recorder.retaining.export import by_database
from recorder.retaining.source import TableSource
from retention.archive import (
    Archived,
    FolderStore,
    Store,
    check,
    open_store,
    partition_of,
    partitions,
    read_files,
    write_partition,
)
from retention.archive.server_export import ServerExport
from retention.errors import StoreError, VerifyError
from schemas.executor import ClientExecutor

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from harness.backends import Backend

TYPES = {
    "ts_local": (
        "DateTime64(9, 'UTC')",
        "toDateTime64('2024-08-08 12:00:00.123456789', 9, 'UTC') + number % 5",
    ),
    "symbol": ("LowCardinality(String)", "concat('S', toString(number % 7))"),
    "ts_venue": (
        "Nullable(DateTime64(9, 'UTC'))",
        "if(number % 3 = 0, NULL, toDateTime64(number - 50, 9, 'UTC'))",
    ),
    "ts_micro": ("DateTime64(6, 'UTC')", "toDateTime64(number, 6, 'UTC')"),
    "note": ("LowCardinality(Nullable(String))", "if(number % 4 = 0, NULL, if(number % 4 = 1, '', 'n'))"),
    "payload": ("Nullable(String)", "if(number % 5 = 0, NULL, concat(unhex('00FF80'), toString(number)))"),
    "text": ("String", "substring(unhex('FFFE00C328A0A1000000'), 1, number % 11)"),
    "price": (
        "Decimal(38, 18)",
        "CAST(if(number % 2 = 0, '99999999999999999999.999999999999999999', "
        "'-99999999999999999999.000000000000000001'), 'Decimal(38, 18)')",
    ),
    "size": ("Nullable(Decimal(38, 18))", "if(number % 2 = 0, NULL, toDecimal128(number, 18))"),
    "fee": ("Decimal(9, 2)", "toDecimal32(number, 2) - 3"),
    "bids": ("Array(Float64)", "range(number % 4)"),
    "names": ("Array(String)", "if(number % 2 = 0, [], [unhex('FF'), '', 'abcdefgh', 'abcdefghi'])"),
    "holes": ("Array(Nullable(Int64))", "[NULL, -number]"),
    "labels": (
        "Map(LowCardinality(String), String)",
        "if(number % 3 = 0, map(), map('k', toString(number)))",
    ),
    "live": ("Bool", "number % 2 = 0"),
    "kind": ("Enum8('buy' = 1, 'sell' = -2)", "if(number % 2 = 0, 'buy', 'sell')"),
    "state": ("Nullable(Enum16('a' = -300, 'b' = 300))", "if(number % 3 = 0, NULL, 'a')"),
    "rate": (
        "Nullable(Float64)",
        "multiIf(number % 6 = 0, NULL, number % 6 = 1, nan, number % 6 = 2, -inf, -0.0)",
    ),
    "small": ("Float32", "number / 3"),
    "count": ("UInt32", "4294967295 - number"),
    "level": ("Int8", "-128 + number % 3"),
    "wide": ("Int64", "-9223372036854775808 + number"),
    "number_8": ("UInt8", "255 - number % 3"),
    "trade_id": ("Nullable(UInt64)", "if(number % 2 = 0, NULL, 18446744073709551615)"),
    "day": ("Date", "toDate('2024-08-08') + number"),
    "long_ago": ("Date32", "toDate32('1924-08-08')"),
    "second": ("DateTime('UTC')", "toDateTime(4294967295 - number, 'UTC')"),
    "minute": ("LowCardinality(DateTime('UTC'))", "toDateTime(number % 3 * 60, 'UTC')"),
    "code": ("FixedString(5)", "toString(number % 3)"),
    "id": ("UUID", "toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0')"),
    "host": ("IPv4", "toIPv4('1.2.3.4')"),
    "host_6": ("IPv6", "toIPv6('2001:db8::1')"),
    "a `strange` name": ("Nullable(Int64)", "number"),
    "_log": ("UInt64", "18446744073709551615 - number % 2"),
    "_seq": ("UInt64", "number"),
}
NAMES = {name: "`" + name.replace("`", "\\`") + "`" for name in TYPES}


class Heard(ClientExecutor):
    """Keeps every statement, and does what a test says in place of it or after it."""

    def __init__(
        self, client: Client, instead: Callable[[str], str] = str, after: Callable[[], None] | None = None
    ):
        super().__init__(client)
        self.statements: list[str] = []
        self._instead, self._after = instead, after

    def command(self, sql: str) -> object:
        """As the client, and then what the test says."""
        self.statements.append(sql)
        done = super().command(self._instead(sql))
        if self._after is not None:
            self._after()
        return done

    def query(self, sql: str, parameters: Any = None) -> Any:
        """As the client."""
        self.statements.append(sql)
        return super().query(self._instead(sql), parameters)


FEW = ("ts_local", "symbol", "text", "count", "_log", "_seq")


def fill(client: Client, database: str, start: int, stop: int, names: Collection[str] = FEW) -> None:
    values = ", ".join(f"{TYPES[name][1]} AS {NAMES[name]}" for name in names)
    client.command(
        f"INSERT INTO {database}.trades ({', '.join(NAMES[name] for name in names)}) "
        f"SELECT {values} FROM numbers({start}, {stop - start})"
    )


@pytest.fixture
def trades(client: Client, database: str) -> str:
    """A partition of two parts."""
    return make(client, database, FEW)


@pytest.fixture
def all_types(client: Client, database: str) -> str:
    """The same with columns of every type."""
    return make(client, database, TYPES)


def make(client: Client, database: str, names: Collection[str]) -> str:
    columns = ", ".join(f"{NAMES[name]} {TYPES[name][0]}" for name in names)
    client.command(
        f"CREATE TABLE {database}.trades ({columns}, twice UInt32 MATERIALIZED count * 2) ENGINE = MergeTree "
        "PARTITION BY toDate(ts_local) ORDER BY (symbol, ts_local)",
        settings={"allow_suspicious_low_cardinality_types": 1},
    )
    fill(client, database, 0, 2_000, names)
    fill(client, database, 2_000, 3_000, names)
    return database


def export(
    client: Client, database: str, told: list[str], *, collection: str | None = None, executor: Any = None
) -> ServerExport:
    source = TableSource(Asked(client), database, DAY)
    return ServerExport(
        executor or ClientExecutor(client),
        DAY,
        rows_sql=source.rows_sql,
        order_by=source.order_by,
        columns=source.columns,
        schema=source.schema(),
        collection=collection,
        told=told.append,
    )


def run(client: Client, database: str, store: Store, exporter: ServerExport | None = None) -> Archived:
    source = TableSource(Asked(client), database, DAY)
    return write_partition(source, store, recorder_version="1.2.3", exporter=exporter)


def rows_of(store: Store) -> pa.Table:
    known = partition_of(store, DAY)
    batches = [batch for piece in known.pieces for batch in read_files(piece.manifest, store, check=True)]
    return pa.Table.from_batches(batches)


def test_both_ways_give_equal_rows_sums_and_manifests(
    client: Client, all_types: str, tmp_path: pathlib.Path
) -> None:
    """Every type that a table may have, extreme values and bytes that are no text: in the same order, under the same
    schema, with the same sums; and `verify` finds nothing.
    """
    told: list[str] = []
    ours, theirs = FolderStore(tmp_path / "ours"), FolderStore(tmp_path / "theirs")
    done = run(client, all_types, theirs, export(client, all_types, told))
    assert told == []
    assert done.sums == run(client, all_types, ours).sums
    assert done.sums.rows == 3_000
    (one,), (other,) = (partition_of(store, DAY).pieces for store in (ours, theirs))
    assert other.manifest.schema == one.manifest.schema
    assert other.manifest.columns == one.manifest.columns
    assert rows_of(theirs).equals(rows_of(ours)) or _equal(rows_of(theirs), rows_of(ours))
    assert check(theirs, DAY).faults == ()
    (file,) = other.manifest.files
    meta = pq.read_metadata(tmp_path / "theirs" / DAY.folder / file.name)
    assert meta.created_by.startswith("ClickHouse"), "the database wrote it"
    assert meta.row_group(0).column(0).compression == "ZSTD"
    assert run(client, all_types, theirs, export(client, all_types, told)).new == ()
    hidden = [path.name for path in (tmp_path / "theirs" / DAY.folder).iterdir() if path.name[0] == "."]
    assert hidden == [".lock"]


def _equal(one: pa.Table, other: pa.Table) -> bool:
    """Tables of which a float may be NaN."""
    return one.schema == other.schema and all(
        repr(left.to_pylist()) == repr(right.to_pylist())
        for left, right in zip(one.columns, other.columns, strict=True)
    )


def written_by(store: Store) -> str:
    """By whom the only file is."""
    (piece,) = partition_of(store, DAY).pieces
    with store.fetched(f"{DAY.folder}/{piece.manifest.files[0].name}") as path:
        assert path is not None
        return str(pq.read_metadata(path).created_by)


def loose(store: Store) -> list[str]:
    """Files of rows that no manifest names."""
    known = partition_of(store, DAY)
    named = {file.name for piece in known.pieces for file in piece.manifest.files}
    return [
        entry.name
        for entry in store.files("")
        if entry.name.rpartition("/")[2] not in named and "part" in entry.name.rpartition("/")[2]
    ]


def broken(file: pathlib.Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("an error", "UNKNOWN_TABLE"),
        ("a row less", "the file has 2999 rows"),
        ("another type", "it writes columns as"),
        ("a flipped bit", "cannot be read|the file has"),
        ("a name that is no text", "cannot be read"),
        ("another machine", "another place"),
        ("no file", "is not there"),
        ("a type without a rule", "a type whose hash"),
    ],
)
def test_what_the_database_does_wrong_is_written_by_the_recorder(
    client: Client, trades: str, tmp_path: pathlib.Path, what: str, why: str
) -> None:
    """Whatever it refuses, leaves out, changes or damages: one line says what, nothing of it stays, and the rows are
    archived the other way, all of them.
    """
    store = FolderStore(tmp_path)

    def instead(sql: str) -> str:
        writes = sql.startswith("INSERT INTO FUNCTION")
        match what:
            case "an error" if writes:
                return "DROP TABLE nothing_of_this_name"
            case "a row less" if writes:
                return sql.replace(" ORDER BY ", " AND _seq != 7 ORDER BY ")
            case "another type" if writes:
                return sql.replace("string_as_string = 0", "string_as_string = 1")
            case "another machine" if "RawBLOB" in sql:
                return "SELECT 'another machine'"
            case "no file" if writes:
                return "SELECT 1"
        return sql

    def after() -> None:
        for file in (tmp_path / DAY.folder).glob(".part-*"):
            if what == "a flipped bit":
                broken(file)
            else:
                file.write_bytes(file.read_bytes().replace(b"symbol", b"symb\xef\xff"))

    if what == "a type without a rule":
        client.command(f"ALTER TABLE {trades}.trades ADD COLUMN big Int128 DEFAULT _seq")
    told: list[str] = []
    damaged = what in ("a flipped bit", "a name that is no text")
    heard = Heard(client, instead, after if damaged else None)
    done = run(client, trades, store, export(client, trades, told, executor=heard))
    assert done.sums.rows == 3_000
    (line,) = told
    assert line.startswith("trades 2024-08-08: written by the recorder and not by the database: ")
    assert re.search(why, line), line
    assert "\n" not in line
    assert not written_by(store).startswith("ClickHouse")
    assert loose(store) == []
    assert check(store, DAY).faults == ()


def test_an_identity_that_is_there_twice_is_found_in_what_the_database_wrote(
    client: Client, trades: str, tmp_path: pathlib.Path
) -> None:
    """As where the recorder writes: nothing is archived of it."""
    fill(client, trades, 5, 6)
    told: list[str] = []
    with pytest.raises(VerifyError, match="_seq 5 is in the table twice"):
        run(client, trades, FolderStore(tmp_path), export(client, trades, told))
    assert told == []
    assert FolderStore(tmp_path).files("") == []


def test_late_rows_make_an_addendum_of_the_recorder(
    client: Client, trades: str, tmp_path: pathlib.Path
) -> None:
    """The database writes the first piece; what came since, this process."""
    store, told = FolderStore(tmp_path), list[str]()
    run(client, trades, store, export(client, trades, told))
    fill(client, trades, 3_000, 3_010)
    run(client, trades, store, export(client, trades, told))
    assert [piece.manifest.sums.rows for piece in partition_of(store, DAY).pieces] == [3_000, 10]
    assert check(store, DAY).faults == ()
    assert told == []


def test_what_the_database_wrote_is_restored_and_attached(
    backend: Backend, client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """Back in the table to the last bit; and read with live rows through one view."""
    with opened(client, backend.sink(database), database) as db:
        db.make()
        db.fill(0, 300)
        store, told = FolderStore(tmp_path), list[str]()
        run(client, database, store, export(client, database, told))
        assert written_by(store).startswith("ClickHouse")
        make_view(client, database, "trades", list(partitions(store, "trades")), store, ())
        assert db.differ(0, 300, "trades_with_archive") == 0
        db.drop()
        assert db.differ(0, 300, "trades_with_archive") == 0
        assert db.restore(store).inserted == 300
        assert db.differ(0, 300) == 0
        assert told == []


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with Bucket() as bucket:
        for name, value in bucket.variables().items():
            monkeypatch.setenv(name, value)
        yield bucket


@pytest.fixture
def way(client: Client, bucket: Bucket, database: str) -> Iterator[Callable[[str], str]]:
    """Makes a named collection of the database that leads to a root in the bucket."""
    made: list[str] = []

    def make(prefix: str) -> str:
        name = f"{database}_{len(made)}"
        url = f"http://127.0.0.1:{bucket.port}/{NAME}/{prefix}/"
        client.command(
            f"CREATE NAMED COLLECTION {name} AS url = '{url}', access_key_id = 'server-key', "
            "secret_access_key = 'secret-of-the-server'"
        )
        made.append(name)
        return name

    yield make
    for name in made:
        client.command(f"DROP NAMED COLLECTION {name}")


def test_into_a_bucket_the_database_goes_its_own_way(
    client: Client, trades: str, way: Callable[[str], str], tmp_path: pathlib.Path
) -> None:
    """Through a named collection: equal rows and sums, and in no statement or line is a credential, neither the
    recorder's nor the database's.
    """
    store = open_store(f"s3://{NAME}/some/prefix", spool=tmp_path / "spool")
    heard, told = Heard(client), list[str]()
    collection = way("some/prefix")
    done = run(client, trades, store, export(client, trades, told, collection=collection, executor=heard))
    assert told == []
    assert written_by(store).startswith("ClickHouse")
    ours = FolderStore(tmp_path / "ours")
    assert done.sums == run(client, trades, ours).sums
    assert _equal(rows_of(store), rows_of(ours))
    assert check(store, DAY).faults == ()
    assert loose(store) == []
    assert not any(".probe" in entry.name for entry in store.files(""))
    assert any(f"s3({collection}, filename = " in sql for sql in heard.statements)
    for sql in heard.statements:
        assert "secret" not in sql
        assert "key" not in sql


@pytest.mark.parametrize("fault", ["no collection", "unknown", "elsewhere", "nobody there"])
def test_without_a_way_into_the_bucket_the_recorder_writes(
    client: Client, trades: str, way: Callable[[str], str], tmp_path: pathlib.Path, fault: str
) -> None:
    """One line says why, and no credential is in it."""
    store = open_store(f"s3://{NAME}/some/prefix", spool=tmp_path / "spool")
    collection: str | None = way("other/prefix")
    if fault in ("no collection", "unknown"):
        collection = None if fault == "no collection" else "nothing_of_this_name"
    if fault == "nobody there":
        client.command(f"ALTER NAMED COLLECTION {collection} SET url = 'http://127.0.0.1:1/{NAME}/x/'")
    told: list[str] = []
    executor = Quick(client)
    assert run(client, trades, store, export(client, trades, told, collection=collection, executor=executor))
    (line,) = told
    assert "written by the recorder" in line
    assert "secret" not in line
    assert "server-key" not in line
    assert not written_by(store).startswith("ClickHouse")
    assert check(store, DAY).faults == ()


class Quick(ClientExecutor):
    """Has the engine give up a bucket soon."""

    def query(self, sql: str, parameters: Any = None) -> Any:
        """As the client."""
        return super().query(f"{sql} SETTINGS s3_retry_attempts = 1" if " s3(" in sql else sql, parameters)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_run_that_stopped_anywhere_is_completed(
    client: Client, database: str, way: Callable[[str], str], tmp_path: pathlib.Path, after: bool
) -> None:
    """Before and after every call to the store: what it left counts for nothing, and the next run completes it."""
    with_rows(client, database)

    def once(store: Store, collection: str) -> None:
        told: list[str] = []
        run(client, database, store, export(client, database, told, collection=collection))
        assert told == []

    counted = Stopping(open_store(f"s3://{NAME}/counted", spool=tmp_path))
    once(counted, way("counted"))
    assert counted.made > 5
    for stop_at in range(counted.made):
        root, collection = f"s3://{NAME}/{stop_at}", way(str(stop_at))
        store = open_store(root, spool=tmp_path)
        with pytest.raises(Stopped):
            once(Stopping(store, stop_at, after=after), collection)
        once(store, collection)
        assert partition_of(store, DAY).sums.rows == 50, stop_at
        assert partition_of(store, DAY).verified
        assert check(store, DAY).faults == ()


def with_rows(client: Client, database: str) -> None:
    """A small table."""
    client.command(
        f"CREATE TABLE {database}.trades (ts_local DateTime64(9, 'UTC'), symbol String, _log UInt64, _seq UInt64) "
        "ENGINE = MergeTree PARTITION BY toDate(ts_local) ORDER BY (symbol, ts_local)"
    )
    client.command(
        f"INSERT INTO {database}.trades SELECT toDateTime64('2024-08-08 12:00:00', 9, 'UTC'), 'S', 1, number "
        "FROM numbers(50)"
    )


@pytest.mark.parametrize(
    ("way_", "embedded", "folder", "collection", "expected"),
    [
        ("auto", False, False, "archive", True),
        ("auto", False, False, None, False),
        ("auto", False, True, "archive", False),
        ("auto", True, False, "archive", False),
        ("server", True, True, None, True),
        ("client", False, False, "archive", False),
    ],
)
def test_by_itself_the_database_writes_where_it_has_a_way_of_its_own(
    way_: str, embedded: bool, folder: bool, collection: str | None, expected: bool
) -> None:
    """And where it was told to; never where it was told not to."""
    assert by_database(way_, embedded=embedded, folder=folder, collection=collection) is expected


class Unheard(ClientExecutor):
    """The answer to a file that is to be written is lost; `late` is what the database is at then."""

    late = ""

    def command(self, sql: str) -> object:
        """Nothing yet."""
        self.late = sql
        raise ConnectionError("the connection was lost")


def test_an_upload_that_ends_after_it_was_given_up_changes_nothing(
    client: Client, trades: str, way: Callable[[str], str], tmp_path: pathlib.Path
) -> None:
    """The recorder writes under another name: what a database that was not heard any more completes later lies
    beside it, and no manifest names it.
    """
    store, told = open_store(f"s3://{NAME}/late", spool=tmp_path / "spool"), list[str]()
    unheard = Unheard(client)
    done = run(client, trades, store, export(client, trades, told, collection=way("late"), executor=unheard))
    assert len(told) == 1
    # It looked for a file of that name when it began, and found none.
    client.command(f"{unheard.late}, s3_truncate_on_insert = 1")
    assert len(loose(store)) == 1
    assert check(store, DAY).faults == ()
    assert done.sums.rows == 3_000


class Refusing(FolderStore):
    """A store that cannot take or give what another wrote, as of another user, or too large for the disk."""

    def __init__(self, root: pathlib.Path, call: str):
        super().__init__(root)
        self._call = call

    def _refused(self, call: str, name: str) -> None:
        if call == self._call and name.endswith(".parquet"):
            self._call = ""
            raise StoreError(f"{name}: Permission denied; see to the folder, and run again")

    def put(self, name: str, draft: pathlib.Path) -> None:
        self._refused("put", name)
        super().put(name, draft)

    @contextlib.contextmanager
    def fetched(self, name: str) -> Iterator[pathlib.Path | None]:
        self._refused("fetched", name)
        with super().fetched(name) as path:
            yield path


@pytest.mark.parametrize("call", ["put", "fetched"])
def test_what_the_store_does_not_take_of_the_database_is_written_by_the_recorder(
    client: Client, trades: str, tmp_path: pathlib.Path, call: str
) -> None:
    """A file that only the database's user may read, or that is too large to be fetched, is no end of the run."""
    store, told = Refusing(tmp_path, call), list[str]()
    assert run(client, trades, store, export(client, trades, told)).sums.rows == 3_000
    (line,) = told
    assert "Permission denied" in line
    assert loose(store) == []
    assert check(store, DAY).faults == ()
