"""Laws of the parts of `recorder export` that need no database: the file, the rows of CSV, the words of wrong use."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import pathlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from recorder.cli import main
from recorder.cli.errors import Failure
from recorder.cli.export_columns import columns_of, exact, schema_of
from recorder.cli.export_file import NewFile
from recorder.cli.export_forms import CsvRows, csv_line
from recorder.cli.export_source import Asked, source_of
from recorder.settings import Settings

# -- rows of CSV --


@given(st.lists(st.lists(st.text(), min_size=1, max_size=3), max_size=6), st.data())
def test_rows_are_counted_wherever_pieces_are_cut(table: list[list[str]], data: st.DataObject) -> None:
    """As many as there are, whatever stands in them: quotes, commas, line ends."""
    content = b"".join(csv_line(row) for row in table)
    rows = CsvRows()
    at = 0
    while at < len(content):
        step = data.draw(st.integers(1, 7))
        rows.add(content[at : at + step])
        at += step
    rows.add(b"")
    assert rows.rows == len(table)


@given(st.lists(st.text(st.characters(blacklist_categories=("Cs",))), min_size=1))
def test_a_header_is_read_back(names: list[str]) -> None:
    """Any name, by any reader of RFC 4180."""
    assert next(csv.reader(io.StringIO(csv_line(names).decode(), newline=""))) == names


# -- the file --


def test_it_has_its_name_when_it_is_complete_and_synced(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First its content is on disk, then it is renamed, then the folder is synced; before, nothing has the name."""
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(fd: int) -> None:
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "content")
        fsync(fd)

    def renamed(old: pathlib.Path, new: pathlib.Path) -> None:
        steps.append("name")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    target = tmp_path / "x"
    with NewFile(target, force=False) as file:
        assert file.write(b"abc") == 3
        assert not target.exists()
        file.complete()
        assert target.read_bytes() == b"abc"
    assert steps == ["content", "name", "folder"]
    assert [one.name for one in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_leaving_early_removes_it(tmp_path: pathlib.Path, error: type[BaseException]) -> None:
    """Whatever ends it before it is complete; and what is written after that goes nowhere, without an error."""
    with contextlib.suppress(error), NewFile(tmp_path / "x", force=False) as file:
        file.write(b"abc")
        raise error
    assert file.write(b"the end of a file") == 17
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_came_meanwhile_is_not_replaced(tmp_path: pathlib.Path) -> None:
    """Without --force the one that is there stays, also where it was not there at the beginning."""
    with NewFile(tmp_path / "x", force=False) as file:
        (tmp_path / "x").write_bytes(b"another's")
        with pytest.raises(Failure, match="is there already"):
            file.complete()
    assert (tmp_path / "x").read_bytes() == b"another's"
    assert [one.name for one in tmp_path.iterdir()] == ["x"]


def test_a_short_write_is_gone_on_with(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may take a part of what it is given; all of it is in the file, once."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    with NewFile(tmp_path / "x", force=False) as file:
        file.write(b"0123456789")
        assert file.tell() == 10
        file.complete()
    assert (tmp_path / "x").read_bytes() == b"0123456789"


# -- columns --


def _one(array: pa.Array, clickhouse: str, binary: bool = False) -> pa.Array:
    columns = columns_of(
        pa.schema([("x", array.type)]), {"x": clickhouse}, frozenset({"x"} if binary else ())
    )
    return exact(pa.record_batch([array], ["x"]), columns, schema_of(columns)).column(0)


@given(st.lists(st.binary(max_size=20) | st.none(), max_size=20))
def test_strings_keep_every_byte_or_are_text(values: list[bytes | None]) -> None:
    """ClickHouse calls bytes text in Arrow. As binary all 256 values stay; as text it is UTF-8, or refused."""
    told_text = pa.array(values, pa.binary()).view(pa.string())
    assert _one(told_text, "Nullable(String)", binary=True).to_pylist() == values
    try:
        texts = [value.decode() if value is not None else None for value in values]
    except UnicodeDecodeError:
        with pytest.raises(Failure, match="--binary x"):
            _one(told_text, "Nullable(String)")
    else:
        assert _one(told_text, "LowCardinality(Nullable(String))").to_pylist() == texts


@given(st.lists(st.integers(0, 2**32 - 1) | st.none(), max_size=20))
def test_moments_are_exact_over_the_whole_range(seconds: list[int | None]) -> None:
    """A DateTime comes as a number without a sign, up to 2106, and leaves as that moment in its zone."""
    moments = _one(pa.array(seconds, pa.uint32()), "Nullable(DateTime('Europe/Zurich'))")
    assert moments.type == pa.timestamp("s", tz="Europe/Zurich")
    assert moments.cast(pa.int64()).to_pylist() == seconds


@pytest.mark.parametrize(
    ("array", "clickhouse", "expected"),
    [
        (pa.array([-1, 2, None], pa.int8()), "Nullable(Enum8('a, (b' = -1, 'c = 3' = 2))", ["a, (b", "c = 3", None]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), "LowCardinality(String)", ["a", "b", "a"]),
        (pa.array([19_943], pa.uint16()), "Date", ["2024-08-08"]),
        (pa.array([(-5).to_bytes(16, "little", signed=True)], pa.binary(16)), "Int128", ["-5"]),
        (pa.array([1], pa.uint32()), "UInt32", ["1"]),
    ],
)  # fmt: skip
def test_types_of_other_servers(array: pa.Array, clickhouse: str, expected: list[str | None]) -> None:
    """What a server writes as numbers, bytes or dictionaries is what ClickHouse says it is."""
    found = _one(array, clickhouse).to_pylist()
    assert [value if value is None else str(value) for value in found] == expected


def test_two_columns_of_one_name_are_refused() -> None:
    """A file in which a name means two things is read as one or the other, or not at all."""
    with pytest.raises(Failure, match='"x"'):
        columns_of(pa.schema([("x", pa.int8()), ("y", pa.int8()), ("x", pa.int8())]), {}, frozenset())


# -- types --


def _engine(fault: str) -> Any:
    def stream(sql: str, clickhouse_format: str) -> Iterator[bytes]:
        raise Failure(fault)
        yield b""

    return SimpleNamespace(refuse_own_output=lambda sql: None, stream=stream)


def test_types_that_could_not_be_asked_are_not_guessed() -> None:
    """Without them enumerations would leave as numbers; only of what is no SELECT does nobody tell them."""
    with pytest.raises(Failure, match="was lost"):
        source_of(_engine("the connection was lost"), Asked("SELECT 1"), Settings())
    assert (
        source_of(_engine("Syntax error (code 62, SYNTAX_ERROR)"), Asked("SHOW TABLES"), Settings()).types
        == {}
    )


# -- wrong use --


@pytest.mark.parametrize(
    ("out", "force", "code", "words"),
    [
        ("there", False, 1, "replace it with --force"),
        (".", True, 2, "is a folder"),
        ("/dev/null", True, 2, "no file that could be replaced"),
        ("none/x", False, 1, "there is no folder"),
        ("there/x", True, 1, "there is no folder"),
    ],
)
def test_places_that_are_refused(
    tmp_path: pathlib.Path, out: str, force: bool, code: int, words: str
) -> None:
    """Before a database is opened: what is there already, folders, devices, folders that are not there."""
    (tmp_path / "there").write_bytes(b"old")
    options = ["--out", str(tmp_path / out), *(["--force"] if force else [])]
    found = CliRunner().invoke(main, ["--data-dir", str(tmp_path), "export", "csv", "SELECT 1", *options])
    assert found.exit_code == code
    assert words in found.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["there"]
    assert (tmp_path / "there").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--table", "fills", "SELECT 1"], "either SQL or --table"),
        (["SELECT 1", "--since", "2024-08-08"], "go with --table"),
        (["--table", "fills", "--since", "2024-08-08", "--until", "2024-08-07"], "not after --since"),
        (["--table", "fills", "--since", "yesterday"], "is no time"),
        ([], "give the SQL"),
    ],
)
def test_wrong_use_is_one_line(tmp_path: pathlib.Path, arguments: list[str], words: str) -> None:
    """Exit code 2, what is wrong, no file, and no database is opened."""
    for form in ("parquet", "arrow", "csv"):
        found = CliRunner().invoke(main, ["export", form, *arguments, "--out", str(tmp_path / "x")])
        assert found.exit_code == 2
        assert words in found.stderr
        assert len(found.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
