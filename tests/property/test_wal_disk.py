"""Laws of what follows from how full a log's disk is."""

from __future__ import annotations

import dataclasses
import math
import pathlib

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal.commit import GroupCommit
from wal.disk import (
    KEEP_FREE_BYTES,
    MIB,
    DiskLimits,
    DiskUse,
    Level,
    Rate,
    Reserve,
    again_bytes,
    judge,
    reserve_fits,
    reserve_size,
    segment_size,
    space_of,
)
from wal.options import LogOptions
from wal.reader import LogReader
from wal.writer import LogWriter

SIZES = st.integers(0, 1 << 44)


@st.composite
def uses(draw: st.DrawFn) -> DiskUse:
    total = draw(st.integers(1, 1 << 44))
    freed = draw(st.booleans())
    return DiskUse(
        total_bytes=total,
        free_bytes=draw(st.integers(0, total)),
        log_bytes=draw(SIZES),
        reserve_bytes=0 if freed else draw(st.integers(0, 1 << 27)),
        reserve_freed=freed,
        bytes_per_s=draw(st.none() | st.floats(0, 1e10)),
    )


@st.composite
def limits(draw: st.DrawFn) -> DiskLimits:
    warning, emergency = sorted(draw(st.tuples(st.floats(0.01, 1), st.floats(0.01, 1))))
    return DiskLimits(
        warning_fraction=warning,
        emergency_fraction=emergency,
        quota_bytes=draw(st.none() | st.integers(1, 1 << 44)),
        min_minutes=draw(st.floats(0, 1e6)),
        keep_free_bytes=draw(st.integers(0, 1 << 30)),
    )


@given(uses(), limits(), st.sampled_from(Level), SIZES)
def test_less_room_is_never_milder(use: DiskUse, of: DiskLimits, before: Level, less: int) -> None:
    """Neither a disk with less free nor logs that take more, nor a higher rate."""
    level = judge(use, of, before).level
    fewer = dataclasses.replace(use, free_bytes=max(0, use.free_bytes - less))
    more = dataclasses.replace(use, log_bytes=use.log_bytes + less)
    assert judge(fewer, of, before).level >= level
    assert judge(more, of, before).level >= level
    faster = dataclasses.replace(use, bytes_per_s=(use.bytes_per_s or 0.0) + less)
    assert judge(faster, of, before).level >= level


@given(uses(), limits(), st.sampled_from(Level))
def test_a_level_stays_while_nothing_changes(use: DiskUse, of: DiskLimits, before: Level) -> None:
    """A second look at the same finds the same; and a level that was reached is never left more easily than reached."""
    found = judge(use, of, before)
    assert judge(use, of, found.level).level is found.level
    assert judge(use, of, Level.FULL).level >= judge(use, of, Level.OK).level


@given(uses(), limits())
def test_what_is_full_has_no_room_and_what_is_not_has(use: DiskUse, of: DiskLimits) -> None:
    """Room lies within the quota, and leaves others what is theirs; the reserve is freed only where there is one."""
    found = judge(use, of)
    assert (found.level is Level.FULL) == (found.room_bytes < 1)
    assert found.room_bytes <= max(0, use.free_bytes + use.reserve_bytes - of.keep_free_bytes)
    if of.quota_bytes is not None:
        assert found.room_bytes <= max(0, of.quota_bytes - use.log_bytes)
    if found.level is Level.RESERVE:
        assert use.reserve_bytes or use.reserve_freed


@pytest.mark.parametrize(
    ("taken", "reserve", "freed", "level"),
    [
        (50, 1, False, Level.OK),
        (80, 1, False, Level.WARNING),
        (90, 1, False, Level.EMERGENCY),
        (95.5, 1, False, Level.RESERVE),
        (94, 0, True, Level.RESERVE),
        (97, 1, False, Level.FULL),
        (95.5, 0, False, Level.FULL),
    ],
)
def test_the_steps_of_a_disk(taken: float, reserve: int, freed: bool, level: Level) -> None:
    """Of 1,000 MiB, a twentieth of which is left to others."""
    total = 1_000 * MIB
    free = int(total * (1 - taken / 100))
    use = DiskUse(
        total_bytes=total, free_bytes=free, log_bytes=0, reserve_bytes=reserve * 10 * MIB, reserve_freed=freed
    )
    assert judge(use, DiskLimits()).level is level


def test_a_large_disk_leaves_others_256_mib() -> None:
    """Whatever its share would be; what the engine on it needs is left to it, too."""
    use = DiskUse(total_bytes=1 << 43, free_bytes=KEEP_FREE_BYTES + 1, log_bytes=0)
    assert judge(use, DiskLimits()).room_bytes == 1
    assert judge(use, DiskLimits(keep_free_bytes=KEEP_FREE_BYTES + 1)).level is Level.FULL


@pytest.mark.parametrize(("rate", "minutes", "level"), [(None, None, Level.OK), (0.0, math.inf, Level.OK)])
def test_without_a_rate_nobody_says_how_long(rate: float | None, minutes: float | None, level: Level) -> None:
    """And none is warned of; of a log that is not written the room lasts for ever."""
    use = DiskUse(total_bytes=1 << 40, free_bytes=1 << 39, log_bytes=0, bytes_per_s=rate)
    found = judge(use, DiskLimits())
    assert (found.minutes, found.level) == (minutes, level)


def test_few_minutes_are_warned_of() -> None:
    """9 minutes of 10 wanted, with half of the disk free; 11 are enough."""
    free = 1 << 39
    room = free - KEEP_FREE_BYTES
    for minutes, level in ((9, Level.WARNING), (11, Level.OK)):
        use = DiskUse(total_bytes=1 << 40, free_bytes=free, log_bytes=0, bytes_per_s=room / (minutes * 60))
        found = judge(use, DiskLimits())
        assert found.level is level
        assert found.minutes == pytest.approx(minutes)
        assert ("lasts for 9.0 min" in found.why) == (minutes == 9)


@pytest.mark.parametrize(
    "wrong",
    [{"warning_fraction": 0.95}, {"emergency_fraction": 1.1}, {"warning_fraction": 0.0}, {"quota_bytes": 0}],
    ids=str,
)
def test_limits_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    """By the name of what is wrong."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DiskLimits(**wrong)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.floats(0, 1e9), st.floats(0.01, 60)), min_size=1))
def test_a_rate_lies_between_what_was_seen(steps: list[tuple[float, float]]) -> None:
    """And is none before it was seen for five seconds; what is even has its own rate."""
    rate = Rate()
    for per_s, seconds in steps:
        rate = rate.after(per_s * seconds, seconds)
    if sum(seconds for _, seconds in steps) < 4:
        assert rate.per_s is None
    if rate.per_s is not None:
        slowest, fastest = min(steps)[0], max(steps)[0]
        assert slowest * 0.999 - 1e-6 <= rate.per_s <= fastest * 1.001 + 1e-6


def test_a_rate_forgets() -> None:
    """Ten minutes after a burst it is nearly over; a look at the same moment changes nothing."""
    rate = Rate().after(1e9, 10)
    assert rate.per_s == 1e8
    assert rate.after(5, 0) == rate
    for _ in range(600):
        rate = rate.after(0, 1)
    assert rate.per_s is not None
    assert 0 < rate.per_s < 1e8 / 500


@given(SIZES, st.integers(0, 1 << 30), st.none() | st.integers(1, 1 << 44))
def test_reserve_and_segments_are_small_where_the_disk_is(total: int, wanted: int, quota: int | None) -> None:
    """And where the quota is."""
    most = min(total, total if quota is None else quota)
    assert reserve_size(wanted, total, quota) <= min(wanted, most // 8 if quota else total // 16)
    assert MIB <= segment_size(total, quota) <= max(MIB, most // 256)


@given(st.integers(1, 1 << 26), st.integers(0, 1 << 27))
def test_a_reserve_that_is_made_anew_is_not_freed_at_the_next_look(size: int, room: int) -> None:
    """However small it is: what is left beside it is as much as it takes to leave the level."""
    total = 1 << 50
    use = DiskUse(
        total_bytes=total, free_bytes=KEEP_FREE_BYTES + room - size, log_bytes=0, reserve_bytes=size
    )
    fits = reserve_fits(room, size, again_bytes(total, None))
    assert not fits or judge(use, DiskLimits(), Level.RESERVE).level < Level.RESERVE


def test_a_reserve_takes_its_place_and_gives_it_back(tmp_path: pathlib.Path) -> None:
    """At once, on the real disk; what a killed process left in the middle is made whole."""
    (tmp_path / "RESERVE").write_bytes(b"0" * 4_096)
    reserve = Reserve(tmp_path / "RESERVE")
    assert reserve.make(8 * MIB)
    assert reserve.nbytes >= 8 * MIB
    assert reserve.free() >= 8 * MIB
    assert (reserve.nbytes, reserve.free()) == (0, 0)
    assert not list(tmp_path.iterdir())


def test_a_reserve_that_does_not_fit_leaves_nothing(tmp_path: pathlib.Path) -> None:
    """And a folder that is not there is no error."""
    reserve = Reserve(tmp_path / "RESERVE")
    assert not reserve.make(2 * space_of(tmp_path)[0])
    assert not list(tmp_path.iterdir())
    assert not Reserve(tmp_path / "none" / "RESERVE").make(1)


def test_new_segments_spare_the_first_folder_while_they_are_told_to(tmp_path: pathlib.Path) -> None:
    """Those that have room go on; afterwards the first folder has the next one again, and nothing is missing."""
    schema = pa.schema([("n", pa.int64()), ("text", pa.string())])
    first, second = tmp_path / "first", tmp_path / "second"
    commit = GroupCommit(group_ms=1)
    options = LogOptions(segment_bytes_min=65_536, segment_bytes_max=65_536)
    writer = LogWriter.open(first, "t", schema, commit=commit, options=options, second=second)
    number = 0

    def write_segments() -> set[pathlib.Path]:
        nonlocal number
        before = {state.path for state in writer.segments()}
        for _ in range(8):
            rows = pa.record_batch([[number], ["x" * 40_000]], schema=schema)
            writer.wait(writer.append(rows).mark, 20)
            number += 1
        return {state.path.parent for state in writer.segments() if state.path not in before}

    assert write_segments() == {first}
    writer.spare_first(True)
    assert write_segments() == {second}
    writer.spare_first(False)
    assert write_segments() == {first}
    assert writer.close(20)
    commit.close(20)
    found = [contents.rows() for _, contents in LogReader([first, second]).entries()]
    assert [row for rows in found if rows is not None for row in rows["n"].to_pylist()] == list(range(number))
