"""A database that is killed while it writes a partition's file, in a folder and in a bucket."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import clickhouse_connect
import pyarrow.parquet as pq
import pytest
from harness.bucket import NAME, Bucket
from harness.dev_server_command import Started, dev_server
from harness.restoring import DAY, Asked

from recorder.retaining.source import TableSource
from retention.archive import FolderStore, Limits, Store, check, open_store, partition_of, write_partition
from retention.archive.server_export import ServerExport
from schemas.executor import ClientExecutor

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

ROWS = 400_000


@contextlib.contextmanager
def server(folder: pathlib.Path) -> Iterator[tuple[Started, Client]]:
    with (
        dev_server(folder) as started,
        contextlib.closing(clickhouse_connect.get_client(dsn=started.url)) as client,
    ):
        yield started, client


def fill(client: Client) -> None:
    client.command(
        "CREATE TABLE trades (ts_local DateTime64(9, 'UTC'), symbol String, payload String, _log UInt64, _seq UInt64) "
        "ENGINE = MergeTree PARTITION BY toDate(ts_local) ORDER BY (symbol, ts_local)"
    )
    client.command(
        "INSERT INTO trades SELECT toDateTime64('2024-08-08 12:00:00', 9, 'UTC') + number % 1000, "
        "toString(number % 7), hex(sipHash128(number)), 1, number "
        f"FROM numbers({ROWS})"
    )


def run(
    client: Client, store: Store, told: list[str], executor: Any = None, collection: str | None = None
) -> None:
    source = TableSource(Asked(client), "default", DAY)
    exporter = ServerExport(
        executor or ClientExecutor(client),
        DAY,
        rows_sql=source.rows_sql,
        order_by=source.order_by,
        columns=source.columns,
        schema=source.schema(),
        collection=collection,
        told=told.append,
    )
    write_partition(source, store, recorder_version="1.2.3", exporter=exporter)


class Killing(ClientExecutor):
    """Kills the server as soon as the file that it writes has bytes, or the upload has begun."""

    def __init__(self, client: Client, started: Started, begun: Any):
        super().__init__(client)
        self._started, self._begun = started, begun
        self.killed = False

    def command(self, sql: str) -> object:
        """A file that is written, to its killed end."""
        watching = threading.Thread(target=self._kill)
        watching.start()
        try:
            return super().command(sql)
        finally:
            watching.join()

    def _kill(self) -> None:
        deadline_s = time.monotonic() + 30
        while not self._begun():
            if time.monotonic() > deadline_s:
                return
            time.sleep(0.001)
        os.kill(int(str(self._started.ready["pid"])), signal.SIGKILL)
        self.killed = True


def test_a_file_that_a_killed_database_left_counts_for_nothing(tmp_path: pathlib.Path) -> None:
    """Killed in the middle of the file: no file of rows, no manifest and no receipt; the next run completes it."""
    store, told = FolderStore(tmp_path / "archive"), list[str]()

    def begun() -> bool:
        return any(file.stat().st_size for file in (store.root / DAY.folder).glob(".part-*"))

    with server(tmp_path) as (started, client):
        fill(client)
        killing = Killing(client, started, begun)
        with pytest.raises(Exception):  # noqa: B017 - the driver's, of a server that is gone
            run(client, store, told, killing)
        assert killing.killed
    assert len(told) == 1
    assert store.files("") == []
    told.clear()
    with server(tmp_path) as (_, client):
        run(client, store, told)
    assert told == []
    (piece,) = partition_of(store, DAY).pieces
    assert piece.manifest.sums.rows == ROWS
    assert check(store, DAY).faults == ()
    assert [path.name for path in (store.root / DAY.folder).iterdir() if path.name[0] == "."] == [".lock"]
    meta = pq.read_metadata(store.root / DAY.folder / piece.manifest.files[0].name)
    assert meta.created_by.startswith("ClickHouse")
    groups = [meta.row_group(number).num_rows for number in range(meta.num_row_groups)]
    assert max(groups) <= Limits().group_rows, "small enough to lead a reader to the few that he wants"
    assert min(groups[:-1]) > Limits().group_rows / 2


def test_an_upload_that_a_killed_database_left_is_never_seen(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed as the upload begins: the bucket has no file; the next run completes it."""
    with Bucket() as bucket:
        for name, value in bucket.variables().items():
            monkeypatch.setenv(name, value)
        store, told = open_store(f"s3://{NAME}/kept", spool=tmp_path / "spool"), list[str]()
        with server(tmp_path) as (started, client):
            fill(client)
            client.command(
                f"CREATE NAMED COLLECTION kept AS url = 'http://127.0.0.1:{bucket.port}/{NAME}/kept/', "
                "access_key_id = 'key', secret_access_key = 'word'"
            )
            before = bucket.methods["POST"]

            def begun() -> bool:
                # The probe is read before the file is written; an upload in parts begins with a POST.
                return bucket.methods["POST"] > before

            small = KillingUploads(client, started, begun)
            with pytest.raises(Exception):  # noqa: B017 - the driver's, of a server that is gone
                run(client, store, told, small, "kept")
            assert small.killed
        assert len(told) == 1
        assert [entry.name for entry in store.files("") if entry.name.endswith(".parquet")] == []
        told.clear()
        with server(tmp_path) as (_, client):
            run(client, store, told, collection="kept")
        assert told == []
        assert partition_of(store, DAY).sums.rows == ROWS
        assert check(store, DAY).faults == ()


class KillingUploads(Killing):
    """The same, of an upload in parts of 5 MiB."""

    def command(self, sql: str) -> object:
        """As `Killing`."""
        return super().command(
            f"{sql}, s3_min_upload_part_size = 5242880, s3_max_single_part_upload_size = 0"
        )
