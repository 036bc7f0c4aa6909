"""An archive is known by its mark: another one in its place, or none, is refused before anything is read or written."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from harness.archives import DAY, Rows, rows
from harness.bucket import NAME, Bucket

from recorder import Settings
from recorder.archive_look import RecorderArchive
from recorder.archive_root import archive_store
from recorder.batch import Batch
from recorder.cli import main
from recorder.elsewhere import Mask, Unanswered
from retention.archive import FolderStore, Store, found, open_store, partition_of, place_of, write_partition
from retention.archive.marked import MARK, MarkedStore
from retention.errors import StoreError
from schemas.core.tables import PACK

OTHER = "is not the archive that was used here before"


@pytest.fixture(params=["folder", "bucket"])
def opened(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Store]]:
    """Opens the place of an archive, as each process does for itself."""
    if request.param == "folder":
        yield lambda: FolderStore(tmp_path / "archive")
        return
    with Bucket() as bucket:
        for name, value in bucket.variables().items():
            monkeypatch.setenv(name, value)
        yield lambda: open_store(f"s3://{NAME}/here", spool=tmp_path / "spool")


def marked(opened: Callable[[], Store], memory: pathlib.Path) -> MarkedStore:
    return MarkedStore(opened(), memory)


def archive(store: Store, stop: int = 100) -> int:
    done = write_partition(Rows(rows(0, stop)), store, recorder_version="1")
    return sum(receipt.sums.rows for receipt in done.new)


async def asked_for(settings: Settings) -> Mask:
    """Which of ten rows that are archived a recorder finds there."""
    table = next(table for table in PACK.tables if table.name == "fills")
    batch = Batch("fills", rows(0, 10).to_batches()[0], 0)
    looking = RecorderArchive(settings, patience_s=5.0)
    return await looking.found(table, batch, np.ones(10, np.bool_), others_wait=False)


def emptied(store: Store, *, but: str = "") -> None:
    for entry in store.files(""):
        if entry.name != but:
            store.drop(entry.name)


def test_an_archive_that_is_away_is_refused_by_whoever_reads_and_whoever_writes(
    opened: Callable[[], Store], tmp_path: pathlib.Path
) -> None:
    """Its place is empty: nothing of it is taken for "not archived", nothing is put there, and the error says the id
    and what to do. When it is back, all goes on."""
    assert archive(marked(opened, tmp_path / "memory")) == 100
    there = {entry.name: opened().read(entry.name) for entry in opened().files("")}
    emptied(opened())
    for use in (
        lambda store: partition_of(store, DAY),
        archive,
        lambda store: store.create("bars/market_data/20240808.json", b"{}"),
        lambda store: store.see(),
    ):
        with pytest.raises(StoreError, match=f"{OTHER}: expected {MARK} with id [0-9a-f]{{32}}, found none"):
            use(marked(opened, tmp_path / "memory"))
    assert opened().files("") == []
    for name, content in there.items():
        opened().create(name, content or b"")
    assert partition_of(marked(opened, tmp_path / "memory"), DAY).verified
    assert archive(marked(opened, tmp_path / "memory")) == 0


def test_another_archive_in_its_place_is_refused_until_it_is_meant(
    opened: Callable[[], Store], tmp_path: pathlib.Path
) -> None:
    """As when the wrong disk is mounted. With what is remembered removed, as the error says, it is the one."""
    archive(marked(opened, tmp_path / "memory"))
    emptied(opened())
    archive(marked(opened, tmp_path / "memory of another recorder"))
    with pytest.raises(StoreError, match=OTHER) as refused:
        partition_of(marked(opened, tmp_path / "memory"), DAY)
    (remembered,) = (tmp_path / "memory").glob("*.json")
    assert f"remove {remembered}" in str(refused.value)
    remembered.unlink()
    assert archive(marked(opened, tmp_path / "memory")) == 0


def test_an_archive_from_before_there_were_marks_gets_one_when_it_is_written_to(
    opened: Callable[[], Store], tmp_path: pathlib.Path
) -> None:
    """Who only reads changes nothing; the next run that writes, even nothing new, marks it."""
    archive(opened())
    assert partition_of(marked(opened, tmp_path / "memory"), DAY).verified
    assert (opened().read(MARK), (tmp_path / "memory").exists()) == (None, False)
    assert archive(marked(opened, tmp_path / "memory"), 120) == 20
    emptied(opened(), but="")
    with pytest.raises(StoreError, match=OTHER):
        archive(marked(opened, tmp_path / "memory"))


def test_recorders_that_share_an_archive_all_know_it_by_one_mark(
    opened: Callable[[], Store], tmp_path: pathlib.Path
) -> None:
    """The first one that writes makes the mark; whoever uses it after that remembers the same, by reading too."""
    archive(marked(opened, tmp_path / "one"))
    partition_of(marked(opened, tmp_path / "two"), DAY)
    archive(marked(opened, tmp_path / "three"), 130)
    ids = {
        json.loads(path.read_text())["id"]
        for path in tmp_path.glob("*/*.json")
        if path.parent.name != "archive"
    }
    assert ids == {json.loads(opened().read(MARK) or b"")["id"]}
    emptied(opened())
    for name in ("one", "two", "three"):
        with pytest.raises(StoreError, match=OTHER):
            archive(marked(opened, tmp_path / name))


def test_the_archive_goes_while_a_run_is_at_work(tmp_path: pathlib.Path) -> None:
    """The next partition is not begun in the empty folder that is left."""
    store = MarkedStore(FolderStore(tmp_path / "archive"), tmp_path / "memory")
    archive(store)
    shutil.move(tmp_path / "archive", tmp_path / "away")
    (tmp_path / "archive").mkdir()
    with pytest.raises(StoreError, match=OTHER):
        archive(store)
    assert list((tmp_path / "archive").iterdir()) == []


def test_where_nothing_is_archived_no_mark_is_made(tmp_path: pathlib.Path) -> None:
    """A run that only looks leaves neither an archive nor a memory of one."""
    store = MarkedStore(FolderStore(tmp_path / "archive"), tmp_path / "memory")
    assert not partition_of(store, DAY).verified
    store.drop("bars/market_data/20240808.json")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_remembered_is_told_and_keeps_nothing_from_being_archived(
    tmp_path: pathlib.Path,
) -> None:
    """One line says what follows; a mark that is none is refused, with what to do."""
    (tmp_path / "memory").write_text("no folder")
    told: list[str] = []
    root = FolderStore(tmp_path / "archive")
    assert archive(MarkedStore(root, tmp_path / "memory" / "below", told=told.append)) == 100
    assert told
    assert all("cannot be remembered" in line for line in told)
    (tmp_path / "archive" / MARK).write_text("{")
    with pytest.raises(StoreError, match="says no id of an archive"):
        archive(MarkedStore(root, tmp_path / "other"))


def test_commands_and_recorders_refuse_it(tmp_path: pathlib.Path) -> None:
    """`archive ls` and a recorder that asks whether rows are archived: neither says that they are not."""
    settings = Settings(data_dir=tmp_path, archive=tmp_path / "kept")
    assert archive(archive_store(settings)) == 100

    def ls() -> Result:
        variables = {"RECORDER_DATA_DIR": str(tmp_path), "RECORDER_ARCHIVE": str(tmp_path / "kept")}
        return CliRunner().invoke(main, ["archive", "ls"], env=variables)

    listed = ls()
    assert (listed.exit_code, "100" in listed.stdout) == (0, True)
    shutil.move(tmp_path / "kept", tmp_path / "away")
    refused = ls()
    assert (refused.exit_code, OTHER in " ".join(refused.stderr.split())) == (1, True)

    with pytest.raises(Unanswered, match=OTHER):
        asyncio.run(asked_for(settings))


def test_an_archive_that_goes_while_it_is_read_is_not_taken_for_one_without_rows(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk is unmounted between the look at its mark and that at its files."""
    settings = Settings(data_dir=tmp_path, archive=tmp_path / "kept", database="trading")
    write_partition(
        Rows(rows(0, 100), place_of("fills", "2024-08")), archive_store(settings), recorder_version="1"
    )
    assert asyncio.run(asked_for(settings)).all()
    look = found.found_in

    def away(*arguments: Any, **more: Any) -> Any:
        if (tmp_path / "kept").exists():
            shutil.move(tmp_path / "kept", tmp_path / "away")
        return look(*arguments, **more)

    monkeypatch.setattr(found, "found_in", away)
    with pytest.raises(Unanswered, match=OTHER):
        asyncio.run(asked_for(settings))


def test_what_cannot_be_remembered_is_told_once_and_keeps_nobody_from_reading(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The own disk takes no writing: it says so to whatever would change it, also to removing what is not there."""
    assert archive(marked(lambda: FolderStore(tmp_path / "kept"), tmp_path / "of-another")) == 100
    lines: list[str] = []
    store = MarkedStore(FolderStore(tmp_path / "kept"), tmp_path / "memory", told=lines.append)
    (tmp_path / "memory").mkdir()

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    opened = pathlib.Path.open
    monkeypatch.setattr(pathlib.Path, "unlink", refused)
    monkeypatch.setattr(
        pathlib.Path,
        "open",
        lambda path, mode="r", *more: refused() if "w" in mode else opened(path, mode, *more),
    )
    for _ in range(3):
        store.see()
    (line,) = lines
    assert "cannot be remembered" in line
