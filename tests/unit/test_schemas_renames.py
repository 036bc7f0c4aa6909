"""Laws of renames: rows under any older name find their column, and what cannot be told apart is refused at load."""

from __future__ import annotations

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.columns import Name, TimeNs, UInt32
from schemas.errors import PackError
from schemas.pack import Pack
from schemas.policy import Durability, Overflow, Partition, TablePolicy
from schemas.renames import renamed
from schemas.table import Row, table

POLICY = TablePolicy(
    durability=Durability.WAL,
    overflow=Overflow.SPILL,
    partition=Partition.DAY,
    order_by=("ts_local",),
    keep_days=9,
)


class Thing(Row, kw_only=True):
    """A thing."""

    ts_local: TimeNs = 0
    run_id: Name = ""
    c: UInt32
    d: UInt32 = 0


def pack(folder: pathlib.Path, *texts: str) -> Pack:
    for number, text in enumerate(texts, start=1):
        (folder / f"{number:04}_step.sql").write_text(text)
    return Pack("mine", folder, (table("things", Thing, POLICY),))


ALTER = "ALTER TABLE {{db}}.things "


def add(new: str, old: str) -> str:
    return f"{ALTER}ADD COLUMN IF NOT EXISTS {new} UInt32 DEFAULT {old}"


def test_lines_and_renames_come_in_their_order(tmp_path: pathlib.Path) -> None:
    """A line before or within its ALTER TABLE, RENAME COLUMN by itself or beside its line; what only looks like one,
    in a text or in prose, is none."""
    found = pack(
        tmp_path,
        "SELECT '-- renamed: x -> y'; -- renamed columns: none",
        f"SELECT 1;\n-- renamed: a -> b\n{add('b', 'a')};\n"
        + "ALTER TABLE {{db}}.other RENAME COLUMN IF EXISTS d TO e",
        f"{ALTER}\n  -- renamed: b -> c\n  RENAME COLUMN IF EXISTS b TO c",
        f"{ALTER} RENAME COLUMN IF EXISTS `e` TO `d`, DROP COLUMN IF EXISTS f",
    ).renames
    assert found == {"things": (("a", "b"), ("b", "c"), ("e", "d"))}


def test_a_column_that_was_dropped_later_needs_no_field(tmp_path: pathlib.Path) -> None:
    """A released migration never changes, and what it says of a column that is gone stays."""
    found = pack(tmp_path, f"-- renamed: a -> b\n{add('b', 'a')}", f"{ALTER} DROP COLUMN IF EXISTS b").renames
    assert found == {"things": (("a", "b"),)}


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (("-- renamed: a to c\n" + add("c", "a"),), "line 1: .*expected '-- renamed: old -> new'"),
        (("-- renamed: a -> b c\n" + add("c", "a"),), "expected '-- renamed: old -> new'"),
        ((add("c", "a") + "; -- renamed: a -> c",), "line 1: .*a line of its own"),
        ((add("c", "a") + ";\n-- renamed: a -> c",), "line 2: .*stands before no ALTER TABLE"),
        (("-- renamed: a -> c\nSELECT 1",), "line 1: .*before the ALTER TABLE that it is of"),
        (("-- renamed: a -> x\n" + add("x", "a"),), "row class has no field x"),
        (
            (ALTER + "RENAME COLUMN IF EXISTS a TO x",),
            "line 1: a of things is renamed to x, and its row class",
        ),
        (
            ("-- renamed: a -> c\n-- renamed: a -> d\n" + add("c", "a"),),
            "line 2: a of things is renamed twice, before at mine/0001_step, line 1",
        ),
        (
            ("-- renamed: a -> c\n-- renamed: b -> c\n" + add("c", "a"),),
            "two columns of things are renamed to c",
        ),
        (("-- renamed: c -> c\n" + add("c", "a"),), "renamed to itself"),
        (
            tuple(ALTER + f"RENAME COLUMN IF EXISTS {a} TO {b}" for a, b in ("ct", "dc", "td")),
            r"rename columns that it has now \(.*\), so rows that were kept",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_with_a_rename_is_said(
    tmp_path: pathlib.Path, texts: tuple[str, ...], says: str
) -> None:
    """Where it stands, and what to do; the pack is refused before anything is run."""
    with pytest.raises(PackError, match=says):
        _ = pack(tmp_path, *texts).migrations


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), max_size=8), st.data())
def test_no_column_is_lost_or_joined(renames: list[tuple[str, str]], data: st.DataObject) -> None:
    """Whatever was renamed: as many columns as before, no two of one name."""
    names = data.draw(st.lists(st.sampled_from("abcd"), unique=True))
    now = renamed(names, renames)
    assert len(now) == len(names) == len(set(now))
