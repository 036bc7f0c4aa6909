"""The archive in a bucket that answers 5xx, loses answers, is slow and cuts uploads."""

from __future__ import annotations

import fcntl
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from harness.archives import DAY, Rows, Stopped, Stopping, archived, in_order, rows
from harness.bucket import NAME, Bucket
from harness.tcp_proxy import TcpProxy

from retention.archive import Archived, Limits, Store, check, open_store, partition_of, s3, write_partition
from retention.archive.found import Wanted, found_in
from retention.archive.rowhash import identities_of
from retention.archive.s3 import S3Store
from retention.errors import StoreError

ROOT = f"s3://{NAME}/some/prefix"
SMALL = Limits(group_rows=64, file_bytes=4_000)


def run(source: Rows, store: Store, limits: Limits = SMALL) -> Archived:
    return write_partition(source, store, recorder_version="1.2.3", limits=limits)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with Bucket() as bucket:
        for name, value in bucket.variables().items():
            monkeypatch.setenv(name, value)
        yield bucket


@pytest.fixture
def store(bucket: Bucket, tmp_path: pathlib.Path) -> Store:
    return open_store(ROOT, spool=tmp_path / "spool")


@pytest.fixture
def through(
    bucket: Bucket, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[TcpProxy, S3Store]]:
    """A proxy before the bucket, and a store that asks again a few times, however slow this machine is."""
    with TcpProxy(("127.0.0.1", bucket.port)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        yield proxy, S3Store(ROOT, tmp_path / "spool", retries=3, retry_s=60.0, timeout_s=60.0)


def large() -> Rows:
    """Some 11 MiB that do not compress, in one file: an upload of several parts."""
    random = np.random.default_rng(1)
    table = rows(0, 1_100)
    payload = pa.array([random.bytes(10_000) for _ in range(table.num_rows)], pa.binary())
    return Rows(
        table.set_column(table.schema.get_field_index("payload"), table.schema.field("payload"), payload)
    )


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 5 * 2**20)


def test_a_bucket_holds_what_a_folder_would(bucket: Bucket, store: Store, tmp_path: pathlib.Path) -> None:
    """Archive, archive again, late rows; nothing is left on the local disk."""
    source = Rows(rows(0, 200))
    assert len(run(source, store).new) == 1
    assert archived(store).equals(source.table)
    before = store.files("")
    assert run(source, store).new == ()
    source.table = rows(0, 230)
    assert [receipt.sums.rows for receipt in run(source, store).new] == [30]
    assert archived(store).equals(source.table)
    assert set(before) < set(store.files(""))
    assert check(store, DAY).faults == ()
    assert all(name.name.startswith("table=fills/date=2024-08-08/") for name in before)
    assert list((tmp_path / "spool").rglob("*")) == []


@pytest.mark.parametrize("done", [False, True], ids=["not done", "done, answer lost"])
def test_requests_that_fail_now_and_then_change_nothing(bucket: Bucket, store: Store, done: bool) -> None:
    """Every third request fails, before or after it was done: each row is there once, and a second run adds nothing."""
    bucket.fail_every(3, done=done)
    source = Rows(rows(0, 200))
    run(source, store)
    assert run(source, store).new == ()
    assert bucket.failed > 5
    bucket.fail_every(0)
    assert archived(store).equals(source.table)
    assert check(store, DAY).faults == ()
    assert partition_of(store, DAY).verified
    assert partition_of(store, DAY).loose == ()


@pytest.mark.usefixtures("small_parts")
def test_cut_uploads_are_repeated(through: tuple[TcpProxy, S3Store], bucket: Bucket) -> None:
    """Connections that are cut in the middle of parts cost time and no row."""
    proxy, store = through
    source = large()
    proxy.cut_after(3_000_000, "to_server")
    run(source, store, Limits())
    assert proxy.cuts == 1
    assert bucket.methods["POST"] >= 2, "an upload in parts was begun and completed"
    assert archived(store).equals(in_order(source.table))


@pytest.mark.usefixtures("small_parts")
def test_an_unfinished_upload_is_never_seen(
    through: tuple[TcpProxy, S3Store], tmp_path: pathlib.Path
) -> None:
    """An upload whose network went away is no file; the run says so, and the next one completes it."""
    proxy, store = through
    source = large()
    folder = f"{ROOT}/{DAY.folder}"

    class Unplugged(S3Store):
        def put(self, name: str, draft: pathlib.Path) -> None:
            proxy.cut_after(7_000_000, "to_server")
            try:
                super().put(name, draft)
            finally:
                cut.append(proxy.cuts)

    cut: list[int] = []
    away = Unplugged(ROOT, tmp_path, retries=0, retry_s=1.0, timeout_s=60.0)
    with pytest.raises(StoreError, match=folder):
        run(source, away, Limits())
    assert cut == [1]
    assert store.files("") == []
    run(source, store, Limits())
    assert archived(store).equals(in_order(source.table))


def test_a_slow_store_is_waited_for(through: tuple[TcpProxy, S3Store]) -> None:
    """A store that takes its time is no store that fails."""
    proxy, store = through
    proxy.delay(0.02)
    source = Rows(rows(0, 100))
    run(source, store)
    assert archived(store).equals(source.table)


def test_nobody_there_is_told_and_leaves_nothing(
    through: tuple[TcpProxy, S3Store], tmp_path: pathlib.Path
) -> None:
    """An error of one line says which bucket, and what to look at; no secret is in it."""
    proxy, _ = through
    proxy.refuse()
    store = S3Store(ROOT, tmp_path, retries=1, retry_s=1.0, timeout_s=1.0)
    with pytest.raises(StoreError, match=r"s3://trading/some/prefix.*AWS_") as error:
        run(Rows(rows(0, 10)), store)
    assert "\n" not in str(error.value)
    assert "not-a-secret" not in str(error.value)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_run_that_stopped_anywhere_is_completed_in_a_bucket_too(
    bucket: Bucket, tmp_path: pathlib.Path, after: bool
) -> None:
    """Before and after every call; files that nobody names stay a day, and are no part of the archive."""
    source = Rows(rows(0, 150))
    counted = Stopping(open_store(f"{ROOT}/counted", spool=tmp_path))
    run(source, counted)
    for stop_at in range(counted.made):
        store = open_store(f"{ROOT}/{stop_at}", spool=tmp_path)
        with pytest.raises(Stopped):
            run(source, Stopping(store, stop_at, after=after))
        run(source, store)
        assert archived(store).equals(source.table), stop_at
        assert check(store, DAY).faults == ()


def test_what_a_killed_run_left_on_the_local_disk_is_removed(store: Store, tmp_path: pathlib.Path) -> None:
    """A folder that no process holds goes with the next file; one that a process holds stays."""
    spool = tmp_path / "spool"
    left, held = spool / "archive-left", spool / "archive-held"
    for folder in (left, held):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"half")
    opened = os.open(held, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        run(Rows(rows(0, 50)), store)
        assert [path.name for path in spool.iterdir()] == ["archive-held"]
        with store.drafted("a") as one, store.drafted("b") as other:
            one.write_bytes(b"one")
            other.write_bytes(b"other")
            assert one.read_bytes() == b"one", "a draft of this process is its own"
    finally:
        os.close(opened)
    assert (held / "file").read_bytes() == b"half"


def test_of_two_writers_one_stands(bucket: Bucket, store: Store, tmp_path: pathlib.Path) -> None:
    """A second writer that wrote the manifest first wins; the first takes its files away and fails."""
    source = Rows(rows(0, 50))

    class Meanwhile(S3Store):
        def create(self, name: str, content: bytes) -> bool:
            if "manifest" in name and self.read(name) is None:
                run(source, store)
            return super().create(name, content)

    with pytest.raises(StoreError, match="meanwhile"):
        run(source, Meanwhile(ROOT, tmp_path))
    assert archived(store).equals(source.table)
    named = sum(len(piece.manifest.files) for piece in partition_of(store, DAY).pieces)
    assert sum(entry.name.endswith(".parquet") for entry in store.files("")) == named


@pytest.mark.parametrize(
    "root",
    [
        "gs://bucket/x",
        "s3://",
        "s3://user:word@bucket",
        "s3://bucket/x?key=word",
        "s3://bucket/x#1",
        "file:///a?b",
        "",
    ],
)
def test_what_is_no_place_is_refused(root: str, tmp_path: pathlib.Path) -> None:
    """With the kinds that there are, and without the password."""
    with pytest.raises(StoreError, match="s3://bucket/prefix") as error:
        open_store(root, spool=tmp_path)
    assert "word" not in str(error.value)


def test_of_a_bucket_only_identities_are_read(
    bucket: Bucket, store: Store, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks which rows a bucket has reads their identities where they lie, a little of a large file, though requests
    fail now and then; and hears of a bucket that is gone in the middle.
    """
    source, read = large(), list[int]()
    run(source, store, Limits())
    (size,) = (one.nbytes for one in store.files("") if one.name.endswith(".parquet"))
    whole = s3._Opened.read
    monkeypatch.setattr(
        s3._Opened, "read", lambda self, nbytes=-1: read.append(nbytes) or whole(self, nbytes)
    )
    wanted = source.table.slice(1_000, 100).to_batches()[0]
    times_ns = np.asarray(wanted["ts_local"].view(pa.int64()))
    logs, seqs = identities_of(wanted)
    none = Wanted(logs + np.uint64(1), seqs, times_ns)
    bucket.fail_every(3)
    assert found_in(store, DAY, Rows.database, Wanted(logs, seqs, times_ns)).all()
    assert not found_in(store, DAY, Rows.database, none).any()
    assert bucket.failed
    assert 0 < sum(read) < size / 20
    assert list((tmp_path / "spool").rglob("*")) == []
    bucket.fail_every(0)
    store = S3Store(ROOT, tmp_path / "spool", retries=0, timeout_s=5.0)
    monkeypatch.setattr(
        s3._Opened, "read", lambda self, nbytes=-1: bucket.fail_every(1) or whole(self, nbytes)
    )
    with pytest.raises(StoreError, match="see to the bucket"):
        found_in(store, DAY, Rows.database, none)
