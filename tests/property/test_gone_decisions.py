"""What is decided of rows that may have left their table, and what an archive says of them."""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
import tempfile
import threading
import time
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from harness.archives import DAY, NOON_NS, Rows, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder import Settings, archive_look
from recorder import elsewhere as elsewhere_module
from recorder.archive_look import RecorderArchive
from recorder.batch import NS_PER_DAY, Batch
from recorder.elsewhere import YOUNG_NS, Elsewhere, Gone, Mask, Ttl, Unanswered, old, sort_out
from recorder.sink.base import Sink
from retention.archive import FolderStore, Limits, write_partition
from retention.archive import found as found_module
from retention.archive.found import Known, Wanted, found_in
from retention.archive.layout import receipt_name
from retention.errors import ArchiveError, ManifestError, StoreError, VerifyError
from schemas.core.tables import PACK
from schemas.policy import Partition

TABLE = next(table for table in PACK.tables if table.name == "fills")
MASK = st.lists(st.booleans(), min_size=6, max_size=6).map(np.array)
DAYS = [0, 1, 10, 29, 31, 400]


@given(MASK, MASK, st.none() | MASK, st.permutations(DAYS), st.none() | st.just(30))
def test_each_row_has_one_fate(
    asked: Mask, moved: Mask, archived: Mask | None, ages: list[int], days: int | None
) -> None:
    """Only rows that were asked for have a fate, and one alone; found rows have not expired; where the archive does
    not say, every row that is not found is unknown and none has expired; else none is, and what is found nowhere has
    expired exactly where the TTL takes it.
    """
    now_ns = NOON_NS
    times_ns = np.array([now_ns - age * NS_PER_DAY for age in ages])
    ttl = Ttl(days, now_ns) if days is not None else None
    gone = sort_out(asked, moved, archived, times_ns, ttl, "why")
    fates = [gone.moved, gone.archived, gone.expired, gone.unknown]
    assert (sum(fate.astype(int) for fate in fates) <= asked).all()
    assert (gone.moved == (asked & moved)).all()
    nowhere = asked & ~moved
    if archived is None:
        assert (gone.unknown == nowhere).all()
        assert not (gone.expired | gone.archived).any()
        return
    nowhere &= ~archived
    aged = np.array([age > 30 for age in ages]) & (days is not None)
    assert not gone.unknown.any()
    assert (gone.archived == (asked & ~moved & archived)).all()
    assert (gone.expired == (nowhere & aged)).all()


def test_young_rows_have_not_left() -> None:
    """Who is younger than half a day was not dropped: that takes a day, by whoever's clock. A clock that is before the
    rows' own time is wrong, by years where a machine starts without one, and says nothing of their age.
    """
    ages_ns = [YOUNG_NS + 1, YOUNG_NS, 0, -YOUNG_NS, -YOUNG_NS - 1, -50 * 365 * NS_PER_DAY]
    aged = old(NOON_NS - np.array(ages_ns), NOON_NS)
    assert aged.tolist() == [True, False, False, False, True, True]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.sets(st.integers(0, 60), max_size=25), min_size=1, max_size=3),
    st.sets(st.integers(0, 2)),
    st.sets(st.integers(0, 80), min_size=1),
)
def test_an_archive_has_what_verified_pieces_have(
    late: list[set[int]], unverified: set[int], wanted: set[int]
) -> None:
    """The rows of pieces with a receipt are found, by identity, and no other, whatever addenda there are; rows of the
    same number and of another log are others.
    """
    with tempfile.TemporaryDirectory() as folder:
        store, source = FolderStore(pathlib.Path(folder)), Rows(rows(0, 0))
        have, pieces = set[int](), list[set[int]]()
        for coming in late:
            if not coming - have:
                continue
            pieces.append(coming - have)
            have |= coming
            source.table = pa.concat_tables([rows(0, 61).take(sorted(have))])
            write_partition(source, store, recorder_version="1", limits=Limits(group_rows=8))
        for number in unverified & set(range(len(pieces))):
            store.drop(receipt_name(DAY, number))
        expected = set().union(*(piece for n, piece in enumerate(pieces) if n not in unverified))
        asked = sorted(wanted)
        answer = found_in(store, DAY, Rows.database, of(asked))
        assert {seq for seq, there in zip(asked, answer, strict=True) if there} == wanted & expected
        assert not found_in(store, DAY, Rows.database, of(asked, log=1)).any()


def of(seqs: list[int], log: int = 2**63 + 7) -> Wanted:
    return Wanted(
        np.full(len(seqs), log, np.uint64), np.array(seqs, np.uint64), NOON_NS + np.array(seqs, np.int64)
    )


@pytest.fixture
def store(tmp_path: pathlib.Path) -> FolderStore:
    store = FolderStore(tmp_path / "archive")
    write_partition(Rows(rows(0, 1_000)), store, recorder_version="1", limits=Limits(group_rows=100))
    return store


def test_only_row_groups_of_their_time_are_read(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a partition those row groups are read that reach into the rows' times: here one of each symbol, and the one
    that has rows of both.
    """
    read, groups = list[int](), found_module._groups
    monkeypatch.setattr(
        found_module, "_groups", lambda *args: read.extend(found := groups(*args)) or found
    )  # fmt: skip
    assert found_in(store, DAY, Rows.database, of([500, 501, 502])).all()
    assert read == [3, 6, 8]
    assert not found_in(store, DAY, Rows.database, of([5_000])).any()
    assert read == [3, 6, 8]


def test_an_archive_that_is_not_whole_gives_no_answer(store: FolderStore) -> None:
    """A file that is missing, cut or broken, a manifest that is none, rows of another database: no answer."""
    with pytest.raises(ArchiveError, match="is of database trading, expected other"):
        found_in(store, DAY, "other", of([1]))
    (file,) = store.root.rglob("*.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(VerifyError, match=f"has {len(whole) - 1} bytes, expected {len(whole)}"):
        found_in(store, DAY, Rows.database, of([1]))
    file.write_bytes(bytes(len(whole)))
    with pytest.raises(VerifyError, match="cannot be read as Parquet"):
        found_in(store, DAY, Rows.database, of([1]))
    file.unlink()
    with pytest.raises(VerifyError, match="is missing"):
        found_in(store, DAY, Rows.database, of([1]))
    (manifest,) = store.root.rglob("manifest-*.json")
    manifest.write_bytes(b"{}")
    with pytest.raises(ManifestError):
        found_in(store, DAY, Rows.database, of([1]))


def test_what_was_read_is_known(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that needs nothing new opens no file; one that does reads that alone. What is kept has a bound, and
    the answers are the same. A file that is gone meanwhile is noticed all the same.
    """
    opens = list[str]()
    monkeypatch.setattr(
        FolderStore,
        "opened",
        lambda self, name, real=FolderStore.opened: opens.append(name) or real(self, name),
    )
    reads, known, identities_of = list[int](), Known(rows_max=400), found_module.identities_of
    monkeypatch.setattr(
        found_module, "identities_of", lambda read: reads.append(read.num_rows) or identities_of(read)
    )
    ask = partial(found_in, store, DAY, Rows.database, known=known)
    assert ask(of([500, 501])).all()
    assert (len(opens), len(reads), known.rows) == (1, 3, 300)
    assert ask(of([502, 2_000])).tolist() == [True, False]
    assert (len(opens), len(reads)) == (1, 3)
    assert ask(of([502, 700])).all()
    assert (len(opens), len(reads), known.rows) == (2, 4, 400)
    for _ in range(2):
        assert ask(of(list(range(1_100)))).sum() == 1_000
        assert known.rows == 400
    (file,) = store.root.rglob("*.parquet")
    file.unlink()
    with pytest.raises(VerifyError, match="is missing"):
        ask(of([502]))


# -- asking ---------------------------------------------------------------------------------------------------------


def batch(*seqs: int) -> Batch:
    return Batch("fills", rows(0, max(seqs) + 1).take(list(seqs)).combine_chunks().to_batches()[0], 0, True)


class Nobody:
    """Neither a database nor an archive: nobody may be asked."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was called")


def elsewhere(now_ns: int, archive: Any) -> Elsewhere:
    sink: Sink = Nobody()  # type: ignore[assignment]
    return Elsewhere(
        TABLE, sink, "trading", tier=False, archive=archive, ttl_days=None, now_ns=lambda: now_ns
    )


async def test_who_need_not_be_asked_is_not() -> None:
    """Rows that the table has, and rows of the last hours, are no question to an archive."""
    young, later = elsewhere(NOON_NS, Nobody()), elsewhere(NOON_NS + NS_PER_DAY, Nobody())
    assert not young.concerns(batch(1, 2), earlier=True)
    assert later.concerns(batch(1, 2), earlier=True)
    asked = later.absent(batch(1, 2), set(batch(1, 2).identities()))
    assert not asked.any()
    gone = await later.look(batch(1, 2), asked, earlier=True)
    assert not (gone.left | gone.unknown).any()


async def test_of_a_sealed_batch_a_partition_is_asked_for_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its rows reach over the age at which rows may have left: else some of a partition were sent and others left
    on the log, and the next start would find it there in part, and hold the table. Other partitions are none of it.
    """
    monkeypatch.setattr(elsewhere_module, "YOUNG_NS", 100)
    where = elsewhere(NOON_NS + 200, Nobody())
    over = batch(0, 99, 100, 101)
    assert where.absent(over, set()).tolist() == [True, True, False, False]
    assert where.absent(over, set(), sealed=True).all()
    there = set(over.only(np.array([False, False, True, False])).identities())
    assert where.absent(over, there, sealed=True).tolist() == [True, True, False, True]
    days = rows(0, 2)
    at = pa.array([NOON_NS - 40 * NS_PER_DAY, NOON_NS + 150], days.schema.field("ts_local").type)
    days = days.set_column(days.schema.get_field_index("ts_local"), days.schema.field("ts_local"), at)
    two = Batch("fills", days.combine_chunks().to_batches()[0], 0, True)
    assert where.absent(two, set(), sealed=True).tolist() == [True, False]


async def test_an_archive_that_gave_no_answer_is_let_be_for_a_while(
    tmp_path: pathlib.Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that fails is asked again until the patience is over, and for as long not again; then it is, and answers."""
    monkeypatch.setattr(archive_look, "BACKOFF", archive_look.Backoff(0.01, 0.01))
    archive = RecorderArchive(Settings(data_dir=tmp_path, database="trading"), patience_s=1.0)
    asked = np.array([True, True])
    calls = 0

    def away(folder: str) -> list[Any]:
        nonlocal calls
        calls += 1
        raise StoreError("nobody is there")

    with monkeypatch.context() as broken:
        broken.setattr(FolderStore, "files", lambda self, folder: away(folder))
        with pytest.raises(Unanswered, match=r"archive at .*nobody is there; see to the archive, then start"):
            await archive.found(TABLE, batch(1, 2), asked, others_wait=False)
        assert calls > 1
        before = calls
        with pytest.raises(Unanswered, match="nobody is there"):
            await archive.found(TABLE, batch(1, 2), asked, others_wait=False)
        assert calls == before
        # Somebody who has more patience than who gave it up asks, nevertheless.
        hurried = RecorderArchive(Settings(data_dir=tmp_path, database="trading"), patience_s=3.0)
        broken.setattr(archive_look, "HURRIED_S", 0.05)
        with pytest.raises(Unanswered):
            await hurried.found(TABLE, batch(1, 2), asked, others_wait=True)
        before = calls
        with pytest.raises(Unanswered):
            await hurried.found(TABLE, batch(1, 2), asked, others_wait=True)
        assert calls == before
        waits = asyncio.create_task(hurried.found(TABLE, batch(1, 2), asked, others_wait=False))
        while calls == before:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert not (await waits).any()
    monkeypatch.setattr(archive, "_failed", None)
    # A table partitioned by month: its archive has none of these.
    assert not (await archive.found(TABLE, batch(1, 2), asked, others_wait=False)).any()
    by_day = dataclasses.replace(TABLE, policy=dataclasses.replace(TABLE.policy, partition=Partition.DAY))
    assert (await archive.found(by_day, batch(1, 2_000), asked, others_wait=True)).tolist() == [True, False]


async def test_an_archive_that_hangs_takes_few_threads(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question that hangs is left to its thread, and so few hang at once; when they come back it is asked again."""
    go_on, began = threading.Event(), list[None]()

    def hangs(self: FolderStore, folder: str) -> list[Any]:
        began.append(None)
        go_on.wait()
        return []

    monkeypatch.setattr(FolderStore, "files", hangs)
    archive = RecorderArchive(Settings(data_dir=tmp_path, database="trading"), patience_s=0.01)
    asked = np.array([True])
    try:
        for _ in range(3 * archive_look.HUNG_MAX):
            with pytest.raises(Unanswered, match=r"does not answer within|4 questions to it hang"):
                await archive.found(TABLE, batch(1), asked, others_wait=False)
            monkeypatch.setattr(archive, "_failed", None)
        assert len(began) <= archive_look.HUNG_MAX
        assert len(archive._hung) == archive_look.HUNG_MAX
    finally:
        go_on.set()
    monkeypatch.setattr(archive, "_patience_s", 10.0)
    assert not (await archive.found(TABLE, batch(1), asked, others_wait=False)).any()


@pytest.mark.parametrize("slow", ["read", "identities_of"])
async def test_an_archive_that_goes_on_reading_is_waited_for(
    tmp_path: pathlib.Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    """Patience is for one that gives nothing: a slow one has as long as it takes, also while others wait for it."""
    where: Any = FolderStore if slow == "read" else found_module
    real, slept_s = getattr(where, slow), list[float]()

    def slowly(*args: Any) -> Any:
        slept_s.append(0.7)
        time.sleep(slept_s[-1])
        return real(*args)

    monkeypatch.setattr(where, slow, slowly)
    monkeypatch.setattr(archive_look, "HURRIED_S", 1.0)
    monkeypatch.setattr(archive_look, "KNOWN_S", 0.01)
    archive = RecorderArchive(Settings(data_dir=tmp_path, database="trading"), patience_s=1.0)
    by_day = dataclasses.replace(TABLE, policy=dataclasses.replace(TABLE.policy, partition=Partition.DAY))
    assert (await archive.found(by_day, batch(1, 2), np.array([True, True]), others_wait=True)).all()
    assert sum(slept_s) > 1.0
    while archive._known is not None:  # noqa: ASYNC110 - what was read is let go
        await asyncio.sleep(0.01)


async def test_a_damaged_archive_is_not_asked_again(tmp_path: pathlib.Path, store: FolderStore) -> None:
    """What does not pass by itself is told at once."""
    for manifest in store.root.rglob("manifest-*.json"):
        manifest.write_bytes(b"{}")
    by_day = dataclasses.replace(TABLE, policy=dataclasses.replace(TABLE.policy, partition=Partition.DAY))
    archive = RecorderArchive(Settings(data_dir=tmp_path, database="trading"), patience_s=3_600)
    where = elsewhere(NOON_NS + NS_PER_DAY, archive)
    where._table = by_day
    gone: Gone = await where.look(batch(1, 2), np.array([True, True]), earlier=True)
    assert gone.unknown.all()
    assert "bring it back from a copy" in gone.why
    assert "manifest-0000.json" in gone.why
