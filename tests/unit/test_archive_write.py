"""Archiving a partition to a folder: what is written, what a second run does, and what any interruption leaves."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness.archives import DAY, SCHEMA, Rows, Stopped, Stopping, archived, in_order, receipts, rows
from harness.bucket import NAME, Bucket

from retention.archive import (
    Archived,
    FolderStore,
    Limits,
    Place,
    check,
    open_store,
    partition_of,
    partitions,
    place_of,
    write_partition,
)
from retention.archive.layout import probe_name
from retention.archive.store import Store
from retention.errors import ArchiveError, ManifestError, StoreError, VerifyError

SMALL = Limits(group_rows=64, group_bytes=1 << 20, file_bytes=4_000, late_rows=150, known_rows=200)
"""So that a few hundred rows make several files, and looking for late rows takes several portions and addenda."""


def run(source: Rows, store: Store, limits: Limits = SMALL) -> Archived:
    return write_partition(source, store, recorder_version="1.2.3", limits=limits, now_ns=lambda: 42)


@pytest.fixture
def store(tmp_path: pathlib.Path) -> FolderStore:
    return FolderStore(tmp_path / "archive")


def names(store: FolderStore) -> list[str]:
    """Every file below the root, hidden ones too."""
    return sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file())


def test_an_archive_holds_the_rows_sorted_with_manifest_and_receipt(store: FolderStore) -> None:
    """What is read back is what was given, in the table's order; the receipt says what it comes to."""
    source = Rows(rows(0, 500))
    done = run(source, store)
    assert archived(store).equals(in_order(source.table))
    (receipt,) = done.new
    assert done.receipts == done.new
    assert receipt.sums.rows == 500
    assert receipt.files > 1
    folder = store.root / "table=fills" / "date=2024-08-08"
    manifest = json.loads((folder / "manifest-0000.json").read_bytes())
    assert [column["clickhouse"] for column in manifest["columns"] if column["name"] == "side"] == [
        "Enum8('buy' = 0, 'sell' = 1)"
    ]
    files = [pq.ParquetFile(folder / one["name"]) for one in manifest["files"]]
    found = pa.concat_tables(file.read() for file in files).replace_schema_metadata(None)
    assert found.equals(pa.Table.from_batches(source.batches()))
    group = files[0].metadata.row_group(0)
    assert group.num_rows <= SMALL.group_rows
    assert group.column(1).statistics.has_min_max
    assert group.column(1).compression == "ZSTD"
    assert files[0].schema_arrow.metadata[b"recorder.table"] == b"fills"


def test_a_second_run_adds_nothing(store: FolderStore) -> None:
    """Neither a file nor a byte changes where the table has nothing new."""
    source = Rows(rows(0, 300))
    first = run(source, store)
    before = {name: (store.root / name).stat().st_mtime_ns for name in names(store)}
    again = run(source, store)
    assert again.new == ()
    assert again.receipts == first.receipts
    assert {name: (store.root / name).stat().st_mtime_ns for name in names(store)} == before


def test_rows_that_came_late_go_to_an_addendum_of_their_own(store: FolderStore) -> None:
    """Late rows make pieces with manifest and receipt; they hold only what earlier ones lack, and the next run none."""
    source = Rows(rows(0, 300))
    run(source, store)
    source.table = pa.concat_tables([rows(0, 350), rows(0, 5, log=9)])
    assert [receipt.sums.rows for receipt in run(source, store).new] != []
    assert archived(store).equals(in_order(source.table))
    assert run(source, store).new == ()
    known = partition_of(store, DAY)
    assert receipts(known) == [piece.manifest.piece for piece in known.pieces]
    assert known.sums.rows == 355


def test_late_rows_are_found_after_the_partition_was_dropped(store: FolderStore) -> None:
    """The archive keeps what the table no longer has, and takes what came since."""
    run(Rows(rows(0, 300)), store)
    late = Rows(rows(290, 310))
    assert sum(receipt.sums.rows for receipt in run(late, store).new) == 10
    assert archived(store).equals(rows(0, 310))
    assert run(late, store).new == ()


def test_a_row_that_the_table_has_twice_is_told(store: FolderStore) -> None:
    """A doubled identity makes the run fail and say so; it is never archived a second time."""
    source = Rows(rows(0, 100))
    run(source, store)
    source.table = pa.concat_tables([rows(0, 100), rows(7, 8)])
    with pytest.raises(VerifyError, match=r"101 rows.*twice"):
        run(source, store)
    assert archived(store).equals(rows(0, 100))


@pytest.mark.parametrize("archived_before", [0, 100], ids=["first", "addendum"])
@pytest.mark.parametrize("many", [120, 700], ids=["held", "in portions"])
def test_a_row_that_comes_twice_is_in_no_receipt(store: FolderStore, archived_before: int, many: int) -> None:
    """In the first piece and in an addendum, also with other values and far apart: told by its identity, not kept."""
    if archived_before:
        run(Rows(rows(0, archived_before)), store)
    before = names(store)
    good = rows(0, archived_before + many)
    other = good.slice(good.num_rows - 5, 1).set_column(1, SCHEMA.field("symbol"), pa.array([b"ZZZ"]))
    source = Rows(pa.concat_tables([good, other]))
    # Of many late rows the first addenda are whole, and stay.
    with pytest.raises(VerifyError, match=rf"_seq {good.num_rows - 5} is in the table twice.*DEDUPLICATE"):
        run(source, store)
    held = archived(store) if archived_before else rows(0, 0)
    assert good.num_rows - 5 not in held["_seq"].to_pylist()
    assert archived_before or [name for name in names(store) if not name.endswith(".lock")] == before
    source.table = good
    run(source, store)
    assert archived(store).equals(in_order(good))
    assert check(store, DAY).faults == ()


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_a_probe_that_a_killed_export_left_goes_with_the_next_run(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Of a moment ago too; another partition's, whose run may be at it now, stays."""
    with contextlib.ExitStack() as stack:
        store: Store = FolderStore(tmp_path / "archive")
        if kind == "bucket":
            bucket = stack.enter_context(Bucket())
            for name, value in bucket.variables().items():
                monkeypatch.setenv(name, value)
            store = open_store(f"s3://{NAME}/here", spool=tmp_path / "spool")
        left, other = (probe_name(place.folder) for place in (DAY, Place("fills", "2024-08-09")))
        for name in (left, other):
            store.create(name, b"token")
        run(Rows(rows(0, 10)), store)
        assert (store.read(left), store.read(other)) == (None, b"token")
        assert partition_of(store, DAY).verified


def test_nothing_is_archived_of_an_empty_partition(store: FolderStore) -> None:
    """No rows, no manifest: a receipt for nothing would let something go."""
    with pytest.raises(ArchiveError, match="no rows"):
        run(Rows(rows(0, 0)), store)
    assert list(partitions(store)) == []


def calls(tmp_path: pathlib.Path, before: pa.Table | None, after: pa.Table) -> int:
    """How many calls of the store a whole run makes."""
    folder = FolderStore(tmp_path / "counted")
    if before is not None:
        run(Rows(before), folder)
    counted = Stopping(folder)
    run(Rows(after), counted)
    return counted.made


@pytest.mark.parametrize("late", [False, True], ids=["first", "addendum"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_run_that_stopped_anywhere_is_completed_by_the_next(
    tmp_path: pathlib.Path, late: bool, after: bool
) -> None:
    """Before and after every call of the store: no receipt is untrue, and the next run has each row once."""
    first, whole = (rows(0, 100), rows(0, 260)) if late else (None, rows(0, 260))
    total = calls(tmp_path, first, whole)
    assert total > 10
    for stop_at in range(total):
        store = FolderStore(tmp_path / f"{stop_at}")
        if first is not None:
            run(Rows(first), store)
        with pytest.raises(Stopped):
            run(Rows(whole), Stopping(store, stop_at, after=after))
        for known in partitions(store):
            vouched = [piece for piece in known.pieces if piece.receipt is not None]
            if vouched:
                assert check(store, DAY).faults == ()
        run(Rows(whole), store)
        assert archived(store).equals(in_order(whole)), stop_at
        assert check(store, DAY).faults == ()
        known = partition_of(store, DAY)
        assert known.verified
        assert known.loose == ()
        assert [name for name in names(store) if name.endswith(".part")] == []


@pytest.mark.parametrize(
    "step",
    [
        "before draft",
        "before file",
        "after file",
        "before manifest",
        "after manifest",
        "before receipt",
        "after receipt",
    ],
)
def test_a_process_that_was_killed_is_followed_by_one_that_completes(store: FolderStore, step: str) -> None:
    """SIGKILL at each named step: the lock is free, drafts are gone, and the archive holds each row once."""
    child = pathlib.Path(__file__).parents[1] / "harness" / "archive_child.py"
    ended = subprocess.run([sys.executable, str(child), str(store.root), step], check=False, timeout=60)
    assert ended.returncode == -9
    if step in ("before draft", "before file"):
        assert [name for name in names(store) if name.endswith(".part")] != []
    source = Rows(rows(0, 300))
    run(source, store)
    assert archived(store).equals(source.table)
    assert check(store, DAY).faults == ()
    assert partition_of(store, DAY).verified
    assert [name for name in names(store) if name.endswith(".part")] == []
    assert run(source, store).new == ()


def test_two_writers_at_one_partition_are_one_at_a_time(store: FolderStore) -> None:
    """The second is told to wait, and the archive is what the first wrote."""
    source = Rows(rows(0, 50))
    with store.exclusive(DAY.folder), pytest.raises(StoreError, match="another process"):
        run(source, store)
    run(source, store)
    assert archived(store).equals(source.table)


class NoLock(FolderStore):
    """A store that can keep nobody out, as a bucket is."""

    def exclusive(self, folder: str):  # type: ignore[no-untyped-def]
        import contextlib

        return contextlib.nullcontext()


def test_without_a_lock_the_first_manifest_stands(tmp_path: pathlib.Path) -> None:
    """Of two writers that began together one fails and takes its files away; the other's archive is untouched."""
    store = NoLock(tmp_path)
    source = Rows(rows(0, 50))

    class Meanwhile(NoLock):
        def create(self, name: str, content: bytes) -> bool:
            if "manifest" in name and store.read(name) is None:
                run(source, store)
            return super().create(name, content)

    with pytest.raises(StoreError, match="meanwhile"):
        run(source, Meanwhile(tmp_path))
    assert archived(store).equals(source.table)
    assert partition_of(store, DAY).loose == ()


def damaged(path: pathlib.Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "missing":
        path.unlink()
        return
    if kind == "truncated":
        del content[-10:]
    else:
        content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["missing", "truncated", "flipped"])
def test_what_became_of_a_file_is_found(store: FolderStore, kind: str) -> None:
    """A file that is gone, cut or of another bit is told by name."""
    run(Rows(rows(0, 300)), store)
    path = sorted(store.root.rglob("*.parquet"))[1]
    damaged(path, kind)
    (fault,) = check(store, DAY).faults
    assert path.name in fault


class Lying(FolderStore):
    """A store that says it has what it was given, and has something else."""

    def __init__(self, root: pathlib.Path, kind: str):
        super().__init__(root)
        self._kind = kind

    def put(self, name: str, draft: pathlib.Path) -> None:
        super().put(name, draft)
        damaged(self.root / name, self._kind)


@pytest.mark.parametrize("kind", ["missing", "truncated", "flipped"])
def test_there_is_no_receipt_for_what_the_store_did_not_keep(store: FolderStore, kind: str) -> None:
    """Nothing but reading back can tell: the run fails, gives no receipt, and the next one makes it good."""
    source = Rows(rows(0, 300))
    with pytest.raises(VerifyError):
        run(source, Lying(store.root, kind))
    assert list(store.root.rglob("receipt-*")) == []
    run(source, store)
    assert archived(store).equals(source.table)
    assert check(store, DAY).faults == ()


def test_there_is_no_receipt_for_files_of_other_rows(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that are whole and hold one value wrong: the sum of the rows that the source gave tells."""
    from retention.archive import parquet

    class Wrong(pq.ParquetWriter):
        def write_table(self, table: pa.Table, row_group_size: int | None = None) -> None:
            place = table.schema.get_field_index("side")
            wrong = pa.array([None] * table.num_rows, pa.int8())
            super().write_table(table.set_column(place, table.schema.field(place), wrong), row_group_size)

    with monkeypatch.context() as patched:
        patched.setattr(parquet.pq, "ParquetWriter", Wrong)
        with pytest.raises(VerifyError, match="sum"):
            run(Rows(rows(0, 300)), store)
    assert list(store.root.rglob("receipt-*")) == []
    run(Rows(rows(0, 300)), store)
    assert archived(store).equals(rows(0, 300))


@pytest.mark.parametrize("kind", ["missing", "truncated", "flipped"])
def test_a_piece_without_a_receipt_that_is_untrue_is_written_anew(store: FolderStore, kind: str) -> None:
    """Damage between manifest and receipt costs the piece, and no row: the table still has them."""
    source = Rows(rows(0, 300))
    run(source, store)
    next(store.root.rglob("receipt-*")).unlink()
    damaged(sorted(store.root.rglob("*.parquet"))[0], kind)
    assert len(run(source, store).new) == 1
    assert archived(store).equals(source.table)
    assert check(store, DAY).faults == ()


@pytest.mark.parametrize("number", [0, 1], ids=["first", "addendum"])
def test_an_untrue_piece_is_kept_where_the_table_no_longer_has_its_rows(
    store: FolderStore, number: int
) -> None:
    """Rows went, and the receipt: what the other files hold is nowhere else, so nothing is removed."""
    run(Rows(rows(0, 300)), store)
    run(Rows(rows(0, 400)), store)
    next(store.root.rglob(f"receipt-{number:04d}.json")).unlink()
    path = sorted(store.root.rglob(f"part-{number:04d}-*.parquet"))[0]
    damaged(path, "flipped")
    before = names(store)
    with pytest.raises(VerifyError, match=rf"{path.name}.*nothing was changed"):
        run(Rows(rows(0, 250)), store)
    assert names(store) == before


@pytest.mark.parametrize("kind", ["missing", "truncated"])
def test_a_piece_with_a_receipt_is_never_replaced(store: FolderStore, kind: str) -> None:
    """The table may have dropped its rows for the receipt: a run changes nothing, and says what is wrong."""
    run(Rows(rows(0, 300)), store)
    path = sorted(store.root.rglob("*.parquet"))[0]
    damaged(path, kind)
    before = names(store)
    with pytest.raises(VerifyError, match=path.name):
        run(Rows(rows(0, 300)), store)
    assert names(store) == before


@pytest.mark.parametrize("name", ["manifest-0000.json", "receipt-0000.json"])
@pytest.mark.parametrize("kind", ["missing", "truncated", "flipped"])
def test_damaged_papers_stop_a_run_before_it_changes_anything(
    store: FolderStore, name: str, kind: str
) -> None:
    """Files that a receipt vouched for are kept when their manifest is gone; a lost receipt alone is given anew."""
    run(Rows(rows(0, 300)), store)
    damaged(next(store.root.rglob(name)), kind)
    before = names(store)
    if (name, kind) == ("receipt-0000.json", "missing"):
        assert len(run(Rows(rows(0, 300)), store).new) == 1
        return
    with pytest.raises(ManifestError):
        run(Rows(rows(0, 1)), store)
    assert names(store) == before
    (fault,) = check(store, DAY).faults
    assert "0000" in fault


def test_a_name_that_leads_nowhere_is_no_file(store: FolderStore) -> None:
    """A link without its target, or a file that went while the folder was read: missing, and told as that."""
    run(Rows(rows(0, 300)), store)
    path = sorted(store.root.rglob("*.parquet"))[0]
    path.unlink()
    path.symlink_to(store.root / "nowhere")
    (fault,) = check(store, DAY).faults
    assert f"{path.name}: is missing" in fault
    with pytest.raises(VerifyError, match=f"{path.name}: is missing"):
        run(Rows(rows(0, 300)), store)


def test_files_whose_papers_are_lost_are_not_whole(store: FolderStore) -> None:
    """Without manifest and receipt nothing says what the files should be: a fault, and not no rows that are fine."""
    run(Rows(rows(0, 300)), store)
    for papers in store.root.rglob("*.json"):
        papers.unlink()
    (fault,) = check(store, DAY).faults
    assert "no manifest" in fault


def test_copies_that_lie_beside_an_archive_are_let_be(store: FolderStore) -> None:
    """Files of the archive's own names, below a partition's folder or in one of a longer name, are not its own."""
    run(Rows(rows(0, 300)), store)
    folder = store.root / DAY.folder
    copies = [folder / "copy", folder.with_name(f"{folder.name}-old")]
    for copy in copies:
        copy.mkdir()
        for name in ("part-0007-0123abcd-000.parquet", "manifest-0007.json"):
            (copy / name).write_bytes(b"a copy")
    assert run(Rows(rows(0, 300)), store).new == ()
    assert [known.place for known in partitions(store)] == [DAY]
    assert check(store, DAY).faults == ()
    for copy in copies:
        assert len(list(copy.iterdir())) == 2


@pytest.mark.parametrize(
    "name", ["../../../precious.parquet", "part-0001-0123abcd-000.parquet", "notes.parquet"]
)
def test_a_manifest_leads_to_no_file_but_its_own(store: FolderStore, name: str) -> None:
    """A piece that is untrue is removed by the names in its manifest: one that names others is refused."""
    source = Rows(rows(0, 300))
    run(source, store)
    folder = store.root / DAY.folder
    (folder / "receipt-0000.json").unlink()
    manifest = json.loads((folder / "manifest-0000.json").read_bytes())
    manifest["files"][0]["name"] = name
    (folder / "manifest-0000.json").write_text(json.dumps(manifest))
    (folder / name).write_bytes(b"somebody's")
    before = names(store)
    with pytest.raises(ManifestError, match="manifest-0000"):
        run(source, store)
    assert names(store) == before
    assert (folder / name).read_bytes() == b"somebody's"


def test_partitions_go_by_the_names_of_people_and_of_clickhouse() -> None:
    """A day and a month, with dashes or without; anything else is refused."""
    assert place_of("fills", "20240808") == DAY == place_of("fills", "2024-08-08")
    assert place_of("fills", "202408").folder == "table=fills/month=2024-08"
    assert place_of("a/b", "202408").folder == "table=a%2Fb/month=2024-08"
    for wrong in ("", "2024", "today", "2024-08-08-1", "../x"):
        with pytest.raises(ArchiveError, match="2024-08-08"):
            place_of("fills", wrong)


@pytest.mark.skipif(
    not pathlib.Path("/proc/self/status").exists(), reason="no /proc to read peak memory from"
)
def test_memory_does_not_grow_with_the_partition(tmp_path: pathlib.Path) -> None:
    """A partition four times as large, 310 MiB of rows more, takes at most 120 MiB more at its peak."""
    child = pathlib.Path(__file__).parents[1] / "harness" / "archive_memory_child.py"
    peaks = []
    for batches in (30, 120):
        root = tmp_path / str(batches)
        command = [sys.executable, str(child), str(root), str(batches)]
        ended = subprocess.run(command, check=True, timeout=120, stdout=subprocess.PIPE, env=os.environ)
        shutil.rmtree(root)  # half a gigabyte, which pytest would keep
        peaks.append(int(ended.stdout))
    assert peaks[1] - peaks[0] < 120 * 2**20, peaks
