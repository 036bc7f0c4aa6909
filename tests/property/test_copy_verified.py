"""What is remembered of verified partitions, whatever became of the file: never more than was verified."""

from __future__ import annotations

import json
import pathlib
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.copying import Part, Span, Verified, verified
from recorder.copying.verified import Prints

KEY = "fills/1/None/None"
KEPT = {"rows": 1, "extra": 0, "source_doubled": 0}


def part(number: int) -> Part:
    return Part("fills", str(number), 1, 1, 1, 1)


def prints(version: int) -> Prints:
    return Prints(f"source {version}", f"target {version}")


def recalled(memory: Verified, number: int, version: int) -> bool:
    return memory.recall(part(number), Span(), prints(version)) is not None


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=12),
    st.integers(0, 400),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=4),
)
def test_a_file_that_was_cut_anywhere_says_nothing_that_was_not_kept(
    first: list[tuple[int, int]], cut: int, second: list[tuple[int, int]]
) -> None:
    """Kept, cut at any byte, opened and kept again: what is recalled was kept; of what was kept after the cut the last
    is recalled."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "new" / "one.jsonl"
        memory = Verified(path)
        for number, version in first:
            memory.keep(part(number), Span(), prints(version), KEPT)
        path.write_bytes(path.read_bytes()[:cut])
        memory = Verified(path)
        for number, version in second:
            memory.keep(part(number), Span(), prints(version), KEPT)
        memory = Verified(path)
        last = dict(second)
        for number in range(6):
            for version in range(4):
                if number in last:
                    assert recalled(memory, number, version) == (last[number] == version)
                elif recalled(memory, number, version):
                    assert (number, version) in first


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", '{"format": 1, "partitions": {}}', '{"format": 2}\n[]\n',
        '{"format": 2}\n' + json.dumps({"key": KEY}),
        '{"format": 2}\n' + json.dumps({"key": KEY, "source": "source 1", "target": "target 1", "kept": {}}),
        "\x00" * 50,
    ],
)  # fmt: skip
def test_a_file_of_something_else_is_as_none(tmp_path: pathlib.Path, content: str) -> None:
    """It says nothing, and is written anew."""
    path = tmp_path / "one.jsonl"
    path.write_text(content)
    memory = Verified(path)
    assert not recalled(memory, 1, 1)
    memory.keep(part(1), Span(), prints(1), KEPT)
    assert recalled(Verified(path), 1, 1)


def test_a_file_that_cannot_be_written_ends_nothing_and_is_told_once(tmp_path: pathlib.Path) -> None:
    """The copy goes on, knows what it verified itself, and says why the next run will not."""
    (tmp_path / "file").write_text("")
    told: list[str] = []
    memory = Verified(tmp_path / "file" / "one.jsonl", told.append)
    memory.keep(part(1), Span(), prints(1), KEPT)
    memory.keep(part(2), Span(), prints(1), KEPT)
    assert recalled(memory, 1, 1)
    assert len(told) == 1
    assert "one.jsonl: " in told[0]


def test_the_file_is_bounded_and_a_partition_costs_a_line(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept again and again, or in ever new spans, does not make it grow for ever; the newest are remembered."""
    monkeypatch.setattr(verified, "MOST", 10)
    path = tmp_path / "one.jsonl"
    Verified(path).keep(part(0), Span(), prints(0), KEPT)
    before = path.stat()
    memory = Verified(path)
    memory.keep(part(0), Span(), prints(1), KEPT)
    assert path.stat().st_ino == before.st_ino  # added to, not written anew
    for number in range(30):
        memory.keep(part(number), Span(), prints(2), KEPT)
    memory = Verified(path)
    assert len(path.read_bytes().splitlines()) == 11
    assert [number for number in range(30) if recalled(memory, number, 2)] == list(range(20, 30))
