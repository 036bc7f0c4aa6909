"""When the disk is looked at, when it is in doubt, and what a look-up or an insert may rely on meanwhile."""

from __future__ import annotations

import logging
import os
import pathlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from recorder.sink import disk_doubt, parts, sound_parts
from recorder.sink.disk_doubt import LEAST_ROOM_BYTES
from recorder.sink.errors import Retryable
from recorder.sink.parts import CheckFailedError, Part
from recorder.sink.sound_parts import SoundParts, guard_of

T = ("d", "t")
CLIENT: Any = None
ROOM = 1 << 40
OTHER = ("d", "other")
PART = Part("d", "t", pathlib.Path("/nowhere"), "202601_3_3_0", "202601", active=True, rows=5, written_at_s=1)


class Disk:
    """The free space, and what the engine has and does."""

    free = ROOM
    writing = 0
    broken: tuple[Part, ...] = ()
    sound: tuple[Part, ...] = ()
    unchecked: tuple[Part, ...] = ()
    checked: list[str]
    since_s: list[float]
    aside: list[str]

    def __init__(self) -> None:
        self.checked, self.since_s, self.aside = [], [], []

    def fault_of(self, _: object, part: Part) -> str:
        self.checked.append(part.name)
        if part in self.unchecked:
            raise CheckFailedError("Code: 241. memory limit exceeded")
        return "torn" if part in self.broken else ""

    def written_since(self, _: object, moment_s: float) -> list[Part]:
        self.since_s.append(moment_s)
        return [*self.broken, *self.sound, *self.unchecked]

    def set_aside(self, _: object, part: Part) -> None:
        self.aside.append(part.name)
        self.broken = tuple(one for one in self.broken if one is not part)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(
        disk_doubt.os, "statvfs", lambda _: SimpleNamespace(f_bavail=disk.free // 4096, f_frsize=4096)
    )
    monkeypatch.setattr(parts, "fault_of", disk.fault_of)
    monkeypatch.setattr(parts, "written_since", disk.written_since)
    monkeypatch.setattr(parts, "writing_for", lambda *_: disk.writing)
    monkeypatch.setattr(parts, "set_aside", disk.set_aside)
    monkeypatch.setattr(parts, "stop_merges", lambda *_: None)
    monkeypatch.setattr(parts, "start_merges", lambda *_: None)
    return disk


@pytest.fixture
def guard(tmp_path: pathlib.Path) -> SoundParts:
    return SoundParts(tmp_path)


def inserting(guard: SoundParts, meanwhile: Callable[[], None]) -> None:
    with guard.inserting(CLIENT, T):
        meanwhile()


def reading(guard: SoundParts, meanwhile: Callable[[], None]) -> None:
    with guard.reading(CLIENT, T):
        meanwhile()


def call(guard: SoundParts) -> None:
    inserting(guard, lambda: None)
    reading(guard, lambda: None)


def test_with_room_nothing_is_asked_and_nobody_waited_for(disk: Disk, guard: SoundParts) -> None:
    """Also while another thread holds the lock."""
    with guard._lock:
        thread = threading.Thread(target=call, args=(guard,))
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
    assert disk.since_s == disk.checked == []


@pytest.mark.parametrize(
    ("kept", "enough"),
    [(0, LEAST_ROOM_BYTES), (LEAST_ROOM_BYTES, LEAST_ROOM_BYTES), (100 << 20, 50 << 20)],
)
def test_short_is_less_than_half_of_what_is_kept_free(
    disk: Disk, tmp_path: pathlib.Path, kept: int, enough: int
) -> None:
    """And less than `LEAST_ROOM_BYTES` however little that is."""
    guard = guard_of(tmp_path, kept)
    assert guard is guard_of(tmp_path, 0)
    disk.free = enough
    assert guard.disk.look()
    disk.free = enough - 4096
    assert not guard.disk.look()


def test_doubt_lasts_until_there_is_room_and_all_was_checked(disk: Disk, guard: SoundParts) -> None:
    """Each part is checked once, back to before the disk was last seen with room."""
    assert guard.disk.look()
    seen_s = guard.disk.last_room_s
    disk.sound = (PART,)
    disk.free = 0
    call(guard)
    call(guard)
    assert disk.checked == [PART.name]
    assert max(disk.since_s) <= seen_s - sound_parts.SLACK_S
    disk.free = ROOM
    assert not guard.disk.look()
    call(guard)
    assert guard.disk.look()
    asked = len(disk.since_s)
    call(guard)
    assert len(disk.since_s) == asked


def test_what_was_being_written_keeps_the_doubt(disk: Disk, guard: SoundParts) -> None:
    """A merge that ran while the disk was short may leave its part when there is room again."""
    disk.free, disk.writing = 0, 1
    call(guard)
    disk.free = ROOM
    call(guard)
    assert not guard.disk.look()
    disk.writing = 0
    call(guard)
    assert guard.disk.look()


def test_every_insert_under_way_is_told_of_a_part_set_aside(disk: Disk, guard: SoundParts) -> None:
    """Not only the one that found it."""

    def meanwhile() -> None:
        disk.free, disk.broken = 0, (PART,)
        with guard.reading(CLIENT, OTHER):
            pass
        assert disk.aside == [PART.name]
        disk.free = ROOM
        with guard.inserting(CLIENT, OTHER):
            pass
        assert guard.disk.look()

    with pytest.raises(Retryable, match="looked up and sent again"):
        inserting(guard, meanwhile)
    call(guard)


def test_a_look_up_gives_no_answer_when_parts_were_exchanged_meanwhile(disk: Disk, guard: SoundParts) -> None:
    """It may have seen the table without them."""

    def meanwhile() -> None:
        disk.free, disk.broken = 0, (PART,)
        with guard.reading(CLIENT, OTHER):
            pass

    with pytest.raises(Retryable, match="asked again"):
        reading(guard, meanwhile)
    reading(guard, lambda: None)


def test_a_table_that_cannot_be_read_is_checked_though_the_disk_had_room(
    disk: Disk, guard: SoundParts
) -> None:
    """An error of reading is one of the table's parts until it was seen to be none."""

    class ReadError(Exception):
        code = 246

    disk.broken = (PART,)
    with pytest.raises(Retryable, match="asked again"), guard.reading(CLIENT, T):
        raise ReadError
    assert disk.aside == [PART.name]
    with pytest.raises(ReadError), guard.reading(CLIENT, T):
        raise ReadError


def test_a_refusal_for_want_of_space_is_a_short_disk(disk: Disk, guard: SoundParts) -> None:
    """Whatever is free by the time it is looked at."""

    class FullError(Exception):
        code = 243

    with pytest.raises(FullError), guard.inserting(CLIENT, T):
        raise FullError
    assert not guard.disk.look()


def test_a_disk_that_cannot_be_looked_at_is_short(guard: SoundParts, tmp_path: pathlib.Path) -> None:
    """Nothing is known of it."""
    assert guard.disk.look()
    os.rmdir(tmp_path)
    assert not guard.disk.look()


def test_a_part_that_cannot_be_checked_holds_up_its_table_alone(disk: Disk, guard: SoundParts) -> None:
    """The others go on, broken ones are mended, and it is checked again until that succeeds."""
    call(guard)
    disk.free, disk.unchecked = 0, (PART,)
    disk.broken = (replace(PART, table="other", name="202601_1_1_0"),)
    for _ in range(2):
        with guard.reading(CLIENT, OTHER):
            pass
        with pytest.raises(
            Retryable, match=rf"d\.t: part {PART.name} of 5 rows.*could not be checked.*memory limit"
        ):
            call(guard)
        disk.free = ROOM
    assert disk.aside == ["202601_1_1_0"]
    assert not guard.disk.look()
    disk.unchecked, disk.sound = (), (PART,)
    call(guard)
    assert guard.disk.look()


def test_parts_that_break_again_and_again_hold_up_their_table_alone(
    disk: Disk, guard: SoundParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many rounds: the others go on, and the doubt stays."""
    call(guard)
    disk.free, disk.broken = 0, (PART,)
    monkeypatch.setattr(parts, "set_aside", lambda *_: None)
    with guard.reading(CLIENT, OTHER):
        pass
    with pytest.raises(Retryable, match=r"d\.t: .*broken still"):
        call(guard)
    assert not guard.disk.look()


def test_a_table_that_nothing_here_uses_is_told_of_and_left_alone(
    disk: Disk, guard: SoundParts, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, with its part and what to do; the disk is not in doubt for it."""
    caplog.set_level(logging.WARNING)
    disk.broken = (PART,)
    for free in (0, 0, ROOM):
        disk.free = free
        with guard.inserting(CLIENT, OTHER):
            pass
    assert guard.disk.look()
    assert disk.aside == []
    [told] = [record for record in caplog.records if PART.name in record.getMessage()]
    assert told.levelname == "WARNING"
    assert "d.t: part 202601_3_3_0 of 5 rows" in told.getMessage()
    assert "while the disk was full or nearly so" in told.getMessage()
    assert "ALTER TABLE `d`.`t` DETACH PART '202601_3_3_0'" in told.getMessage()


@pytest.mark.parametrize("unchecked", [False, True])
@pytest.mark.parametrize("use", [inserting, reading])
def test_what_was_left_alone_is_mended_before_the_first_call_for_its_table(
    disk: Disk,
    guard: SoundParts,
    monkeypatch: pytest.MonkeyPatch,
    use: Callable[[SoundParts, Callable[[], None]], None],
    unchecked: bool,
) -> None:
    """Broken or not checked: the doubt had ended, and no part is listed as written since."""
    disk.free, disk.broken = 0, (PART,)
    disk.unchecked = (PART,) if unchecked else ()
    with guard.inserting(CLIENT, OTHER):
        pass
    disk.free, disk.unchecked = ROOM, ()
    monkeypatch.setattr(parts, "written_since", lambda *_: [])
    with guard.inserting(CLIENT, OTHER):
        pass
    assert guard.disk.look()
    assert disk.aside == []
    use(guard, lambda: disk.aside.append("before the call"))
    assert disk.aside == [PART.name, "before the call"]
    assert guard.disk.look()


def test_a_table_used_for_the_first_time_while_its_part_is_checked_is_mended_first(
    disk: Disk, guard: SoundParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check began before the table was known to be used here, and ended the doubt."""
    threads: list[threading.Thread] = []

    def fault_of(client: object, part: Part) -> str:
        if not threads:
            meanwhile = threading.Thread(target=call, args=(guard,))
            meanwhile.start()
            threads.append(meanwhile)
            deadline = time.monotonic() + 30
            while T not in guard._ours and time.monotonic() < deadline:
                time.sleep(0.001)
        return disk.fault_of(client, part)

    monkeypatch.setattr(parts, "fault_of", fault_of)
    disk.broken = (PART,)
    guard.disk.begin(0.0)  # and the disk has room again
    with guard.reading(CLIENT, OTHER):
        pass
    threads[0].join(30)
    assert disk.aside == [PART.name]


@pytest.mark.parametrize("code", [60, 81, 232])
def test_a_part_that_is_gone_is_not_broken(code: int) -> None:
    """Nor is one whose table or database was dropped: nobody waits for it."""

    class GoneError(Exception):
        pass

    def query(*_: object, **__: object) -> None:
        error = GoneError()
        error.code = code  # type: ignore[attr-defined]
        raise error

    client: Any = SimpleNamespace(query=query)
    assert parts.fault_of(client, PART) == ""


@pytest.mark.parametrize(
    ("name", "made"),
    [("202601_3_3_0", False), ("202601_1_3_1", True), ("202601_3_3_0_9", True)],
)
def test_a_part_that_was_made_of_parts_is_known_by_its_name(name: str, made: bool) -> None:
    """Merged, or mutated."""
    assert replace(PART, name=name).made_of_parts is made


@pytest.mark.parametrize(
    ("name", "partition", "covered"),
    [
        ("202601_1_5_2", "202601", False),
        ("202601_1_5_1", "202601", True),
        ("202601_3_3_0", "202601", True),
        ("202601_3_6_1", "202601", False),
        ("202602_3_3_0", "202602", False),
        ("202601_1_5_2_7", "202601", False),
    ],
)
def test_a_part_covers_those_it_was_made_of(name: str, partition: str, covered: bool) -> None:
    """By partition, blocks, merges and mutation."""
    whole = replace(PART, name="202601_1_5_2")
    assert whole.covers(replace(PART, name=name, partition=partition)) is covered


@pytest.mark.parametrize("there", [(), (1,), (1, 2)])
def test_what_a_part_was_made_of_is_kept_whole_or_not_at_all(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, there: tuple[int, ...]
) -> None:
    """Of two parts of five rows; the links are the very files, and outlive them."""
    whole = replace(PART, folder=tmp_path, name="202601_1_2_1", rows=10)
    sources = [replace(PART, folder=tmp_path, name=f"202601_{n}_{n}_0", active=False) for n in there]
    (tmp_path / "detached").mkdir()
    for source in sources:
        (tmp_path / source.name).mkdir()
        (tmp_path / source.name / "count.txt").write_text(source.name)
    monkeypatch.setattr(parts, "_of_table", lambda *_: [whole, *sources])
    staged = parts.stage(CLIENT, whole)
    if len(there) < 2:
        assert staged is None
        assert list((tmp_path / "detached").iterdir()) == []
    else:
        assert staged is not None
        assert {file.read_text() for file in staged.glob("*/count.txt")} == {one.name for one in sources}
        assert parts.stage(CLIENT, whole) == staged
