"""Laws of `recorder wal`: what it says of a log is so, and what it changes is what it showed."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from harness.faulty_files import Unreadable

from recorder.cli import main
from wal import names
from wal.checkpoint import Checkpoint, CheckpointFile
from wal.commit import GroupCommit
from wal.options import LogOptions
from wal.places import Range
from wal.seals import Seal, pack_seal, pack_void
from wal.segment import Segment
from wal.writer import LogWriter

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "wal.md"
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}
SMALL = LogOptions(segment_bytes_min=16_384, segment_bytes_max=16_384, codec=None)
BEGAN_NS = 1_723_118_400_000_000_000
SCHEMA = pa.schema(
    [
        pa.field("ts_local", pa.timestamp("ns", tz="UTC"), nullable=False),
        pa.field("price", pa.decimal128(38, 18)),
        pa.field("lots", pa.decimal128(10, 0)),
        pa.field("payload", pa.binary()),
        pa.field("size", pa.float64()),
        pa.field("tags", pa.map_(pa.string(), pa.string())),
        pa.field("_log", pa.uint64(), nullable=False),
        pa.field("_seq", pa.uint64(), nullable=False),
    ]
)
NASTY = [
    {"price": Decimal("61800.200000000000000001"), "payload": b"\xff\x00", "size": float("nan")},
    {"price": Decimal("-1E-18"), "payload": "ü".encode(), "size": float("-inf"), "tags": {"a": "b"}},
    {"price": Decimal("1000"), "lots": Decimal(1000), "payload": b"", "size": 0.1},
    {},
]
SHOWN = [
    {"price": "61800.200000000000000001", "payload": {"base64": "/wA="}, "size": "nan", "tags": None},
    {"price": "-0.000000000000000001", "payload": "ü", "size": "-inf", "tags": {"a": "b"}},
    {"price": "1000", "lots": "1000", "payload": "", "size": 0.1, "tags": None},
    {"price": None, "payload": None, "size": None, "tags": None},
]


def batch(first: int, rows: int) -> pa.RecordBatch:
    """Rows a nanosecond apart, whose values go through the nasty ones."""
    made = [
        {**NASTY[n % len(NASTY)], "ts_local": BEGAN_NS + n, "_log": 2**64 - 1, "_seq": n}
        for n in range(first, first + rows)
    ]
    return pa.RecordBatch.from_pylist(made, SCHEMA)


def line(n: int) -> dict[str, Any]:
    shown = {"lots": None, **SHOWN[n % len(SHOWN)]}
    return {"ts_local": BEGAN_NS + n, **shown, "_log": 2**64 - 1, "_seq": n}


@contextlib.contextmanager
def writing(folder: pathlib.Path, table: str = "fills", schema: pa.Schema = SCHEMA) -> Iterator[LogWriter]:
    """A log that is being written."""
    commit = GroupCommit(group_ms=1)
    writer = LogWriter.open(folder / table, table, schema, commit=commit, options=SMALL)
    try:
        yield writer
    finally:
        assert writer.close(30)
        commit.close(30)


def write(folder: pathlib.Path, table: str = "fills", frames: int = 4, rows: int = 50) -> int:
    """A log of frames of so many rows each, and its epoch. Segments are so small that there are several."""
    with writing(folder, table) as writer:
        for n in range(frames):
            writer.wait(writer.append(batch(n * rows, rows)).mark, 30)
        return writer.epoch


def run(*arguments: str | pathlib.Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["wal", *map(str, arguments)], input=stdin)


def done(*arguments: str | pathlib.Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def told(*arguments: str | pathlib.Path) -> Any:
    return json.loads(done(*arguments, "--json"))


def lines(*arguments: str | pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(one) for one in done("cat", *arguments).splitlines()]


def refused(code: int, *arguments: str | pathlib.Path) -> str:
    """The one line of an error."""
    result = run(*arguments)
    assert result.exit_code == code, result.output
    (said,) = result.stderr.splitlines()
    assert said.startswith("error: ")
    return said


def segments(folder: pathlib.Path, table: str = "fills") -> list[pathlib.Path]:
    return [path for _, path in names.segments([folder / table])]


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file and its bytes; what stands in LOCK is nobody's business."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != names.LOCK]
    return {str(path): path.read_bytes() for path in files}


def break_payload(path: pathlib.Path, frame: int) -> int:
    """Change one byte of a frame's payload; where the frame begins."""
    with Segment.open(path) as segment:
        found = [item for item in segment.scan() if hasattr(item, "header")]
    at = found[frame].offset
    with path.open("r+b") as file:
        file.seek(at + 40)
        byte = file.read(1)
        file.seek(at + 40)
        file.write(bytes([byte[0] ^ 1]))
    return int(at)


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    for name in list(os.environ):
        if name.startswith("RECORDER_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Where logs of these tests are: in the data folder, as a recorder has them."""
    return tmp_path / "data" / "wal"


# -- ls -----------------------------------------------------------------------------------------------------------


def test_ls_counts_rows_and_what_the_checkpoint_says_of_them(folder: pathlib.Path) -> None:
    """Rows are settled, confirmed or open, each of them one of these; other epochs' places do not count."""
    epoch = write(folder)
    checkpoint = Checkpoint(settled=(Range(epoch, 0, 70), Range(epoch ^ 1, 0, 1_000)))
    checkpoint = checkpoint.confirm([Range(epoch, 70, 100)], at_ns=BEGAN_NS, server="s")
    CheckpointFile(folder / "fills").write(checkpoint)
    write(folder, "orders", frames=1)
    fills, orders = told("ls")
    assert [fills[key] for key in ("table", "rows", "settled", "confirmed", "open")] == [
        "fills",
        200,
        70,
        30,
        100,
    ]
    assert (orders["table"], orders["rows"], orders["open"]) == ("orders", 50, 50)
    assert fills["epochs"] == [f"{epoch:016x}"]
    assert (fills["first_ns"], fills["last_ns"]) == (BEGAN_NS, BEGAN_NS + 199)
    assert sum(one["rows"] for one in fills["segments"]) == 200
    assert fills["bytes"] == sum(path.stat().st_size for path in segments(folder))
    shown = done("ls")
    assert re.search(r"fills +\d+ .* 200 +70 +30 +100 +0 +2024-08-08 12:00:00", shown), shown
    assert len(re.findall(r"^ +fills ", done("ls", "fills", "--segments"), re.M)) == len(segments(folder))


def test_ls_names_who_writes_while_somebody_does(folder: pathlib.Path) -> None:
    """By process, and nobody else before or after; its lock is not touched."""
    with writing(folder) as writer:
        writer.wait(writer.append(batch(0, 3)).mark, 30)
        (fills,) = told("ls")
        assert (fills["rows"], fills["damage"]) == (3, [])
        assert f"process {os.getpid()} " in fills["writer"]
    assert told("ls")[0]["writer"] is None


def test_a_folder_of_one_log_is_a_log(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """--dir takes it too, wherever it was copied, and whatever it is called there."""
    write(folder)
    (folder / "fills").rename(tmp_path / "rescued")
    assert told("ls", "--dir", tmp_path / "rescued")[0]["rows"] == 200
    assert told("verify", "--dir", tmp_path / "rescued")["logs"][0]["rows"] == 200
    assert told("repair", "--dir", tmp_path / "rescued")["logs"][0]["damage"] == []


def test_a_log_in_two_folders_is_one(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """With --second-dir all commands see what went to the second folder; without, it is missing and told."""
    write(folder)
    first, moved, *_ = segments(folder)
    second = tmp_path / "second"
    (second / "fills").mkdir(parents=True)
    moved.rename(second / "fills" / moved.name)
    assert [row["_seq"] for row in lines("fills", "--second-dir", second)] == list(range(200))
    assert told("ls", "--second-dir", second)[0]["rows"] == 200
    assert told("verify", "--second-dir", second)["logs"][0]["whole"]
    assert " folder " in done("ls", "--segments", "--second-dir", second)
    assert " folder " not in done("ls", "--segments")
    assert run("verify").exit_code == 1
    assert first.exists()


def test_a_folder_that_cannot_be_listed_hides_no_other(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """As when its disk fails: `ls` and `verify` name it and go on with the other; nobody knows what it holds."""
    write(folder)
    second = tmp_path / "second"
    second.mkdir()
    (second / "fills").write_bytes(b"no folder")
    (listed,) = told("ls", "--second-dir", second)
    assert listed["rows"] == 200
    result = run("verify", "--second-dir", second, "--json")
    assert result.exit_code == 1
    (verified,) = json.loads(result.stdout)["logs"]
    assert verified["rows"] == 200
    for found in (listed, verified):
        assert [(one["harm"], one["rows"]) for one in found["damage"]] == [("unreadable", None)]
        assert found["damage"][0]["file"] == str(second / "fills")


# -- verify -------------------------------------------------------------------------------------------------------


def test_verify_finds_a_log_whole(folder: pathlib.Path) -> None:
    """Exit code 0, and the rows that were appended."""
    write(folder)
    found = told("verify")
    assert not found["lost"]
    assert [(log["rows"], log["whole"]) for log in found["logs"]] == [(200, True)]
    assert "fills: 200 rows in 4 frames of" in done("verify")


def test_verify_says_what_is_wrong_where(folder: pathlib.Path) -> None:
    """One line for one changed byte, with segment, offset and rows; exit code 1, and other logs are read too."""
    write(folder)
    write(folder, "orders")
    at = break_payload(segments(folder)[0], 0)
    result = run("verify")
    assert result.exit_code == 1
    first, *_, last = result.stdout.splitlines()
    assert f"000000000001.wal at {at}" in first
    assert "50 rows: a frame whose payload is not what was written" in first
    assert last.startswith("orders: 200 rows")
    found = json.loads(run("verify", "fills", "--json").stdout)
    assert found["lost"]
    (damage,) = found["logs"][0]["damage"]
    assert (damage["harm"], damage["offset"], damage["rows"], damage["loses"]) == ("payload", at, 50, True)


def test_verify_of_a_broken_preamble_loses_nothing(folder: pathlib.Path) -> None:
    """There is another one: it is told, with exit code 0."""
    write(folder)
    with segments(folder)[0].open("r+b") as file:
        file.write(b"\0" * 100)
    assert "nothing lost" in done("verify")


# -- cat ----------------------------------------------------------------------------------------------------------


def test_cat_prints_every_row_once_and_every_value_whole(folder: pathlib.Path) -> None:
    """Nanoseconds, all digits of decimals, bytes, floats that JSON has not, numbers of 64 bits."""
    write(folder)
    assert lines("fills") == [line(n) for n in range(200)]


def test_cat_in_iso_keeps_the_nanoseconds(folder: pathlib.Path) -> None:
    """As text, in UTC."""
    write(folder, frames=1, rows=2)
    assert [row["ts_local"] for row in lines("--iso")] == [
        "2024-08-08T12:00:00.000000000Z",
        "2024-08-08T12:00:00.000000001Z",
    ]


FILTERS = {
    "limit": (["--limit", "3"], range(3)),
    "none": (["--limit", "0"], range(0)),
    "from": (["--from", "190"], range(190, 200)),
    "to": (["--from", "49", "--to", "51"], range(49, 51)),
    "since": (["--since", str(BEGAN_NS + 195)], range(195, 200)),
    "until": (["--until", "2024-08-08 12:00:00.000000003"], range(3)),
    "zone": (["--since", "2024-08-08T14:00:00.000000199+02:00"], range(199, 200)),
    "fraction": (["--since", "2024-08-08T12:00:00.5"], range(0)),
    "both": (["--since", "2024-08-08", "--until", "2024-08-08T12:00"], range(0)),
    "across": (["--since", str(BEGAN_NS + 40), "--from", "45", "--limit", "10"], range(45, 55)),
}


@pytest.mark.parametrize(("options", "wanted"), FILTERS.values(), ids=FILTERS)
def test_cat_prints_what_is_asked_for(
    folder: pathlib.Path, options: list[str], wanted: Sequence[int]
) -> None:
    """By time, by sequence, by number: these rows and no others, across frames and segments."""
    write(folder)
    assert [row["_seq"] for row in lines("fills", *options)] == list(wanted)


def test_cat_tells_openings_apart(folder: pathlib.Path) -> None:
    """--epoch in either form that is seen somewhere, and --places says which it was."""
    first, second = write(folder, frames=1), write(folder, frames=1, rows=7)
    for form in (f"{second:016x}", *([str(second)] if len(str(second)) != 16 else [])):
        found = lines("fills", "--epoch", form, "--places")
        assert [(one["epoch"], one["sequence"]) for one in found] == [(f"{second:016x}", n) for n in range(7)]
        assert [one["row"] for one in found] == [line(n) for n in range(7)]
    assert len(lines("fills", "--epoch", f"{first:016x}")) == 50


def test_cat_goes_on_beside_damage(folder: pathlib.Path) -> None:
    """The rows of other frames are printed; what is lost is told, and the exit code is 1."""
    write(folder, frames=10, rows=20)
    break_payload(segments(folder)[0], 1)
    result = run("cat", "fills")
    assert result.exit_code == 1
    found = [json.loads(one)["_seq"] for one in result.stdout.splitlines()]
    assert found == [*range(20), *range(40, 200)]
    assert "20 rows: a frame whose payload is not what was written" in result.stderr


def test_cat_shows_seals_and_voids(folder: pathlib.Path) -> None:
    """In their order, instead of rows."""
    with writing(folder) as writer:
        writer.append(batch(0, 5))
        ranges = (Range(writer.epoch, 0, 5),)
        seal = Seal("t-1", ranges, 5, BEGAN_NS, BEGAN_NS + 4, {"shard": 1})
        writer.append_seal(pack_seal(seal))
        writer.append_void(pack_void(["t-1"]))
        epoch = f"{writer.epoch:016x}"
    sealed, void = lines("fills", "--seals")
    assert sealed["kind"] == "seal"
    assert (sealed["token"], sealed["rows"], sealed["about"]) == ("t-1", 5, {"shard": 1})
    assert (sealed["ranges"], sealed["min_ns"]) == ([[epoch, 0, 5]], BEGAN_NS)
    assert (void["kind"], void["tokens"]) == ("void", ["t-1"])


def started(*arguments: str | pathlib.Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "recorder", "wal", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT,
    )  # fmt: skip


def test_cat_follows_what_is_written_until_interrupted(folder: pathlib.Path) -> None:
    """Rows that come later are printed as they come, over segments; Ctrl-C ends it quietly."""
    with writing(folder) as writer:
        writer.wait(writer.append(batch(0, 10)).mark, 30)
        with started("cat", "fills", "--follow", "--dir", folder) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            for n in range(0, 1_000, 10):
                if n:
                    writer.append(batch(n, 10))
                for seq in range(n, n + 10):
                    assert json.loads(process.stdout.readline())["_seq"] == seq
            process.send_signal(signal.SIGINT)
            assert (process.stdout.read(), process.stderr.read()) == (b"", b"")
        assert process.returncode == 0
    assert len(segments(folder)) > 2


def test_cat_ends_quietly_when_its_reader_does(folder: pathlib.Path) -> None:
    """As in `| head -1`: exit code 1, and nothing on standard error."""
    write(folder, frames=8, rows=1_000)
    with started("cat", "fills", "--dir", folder) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


# -- export -------------------------------------------------------------------------------------------------------


def test_export_writes_the_same_rows(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A Parquet file a table, every value and type as it was, in order; nothing else is left."""
    write(folder)
    write(folder, "orders", frames=1)
    found = told("export", "--out", tmp_path / "out")
    assert [(one["table"], one["rows"]) for one in found] == [("fills", 200), ("orders", 50)]
    assert sorted(os.listdir(tmp_path / "out")) == ["fills.parquet", "orders.parquet"]
    table = pq.read_table(tmp_path / "out" / "fills.parquet")
    expected = pa.Table.from_batches([batch(0, 200)])
    assert table.schema.remove_metadata() == expected.schema
    # NaN is not equal to itself: as texts.
    assert list(map(str, table.to_pylist())) == list(map(str, expected.to_pylist()))


def test_export_of_two_schemas_makes_two_files(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Rows of an older schema are not forced into the newer one."""
    write(folder, frames=1)
    wider = SCHEMA.append(pa.field("extra", pa.int64()))
    with writing(folder, schema=wider) as writer:
        rows = [{**row, "extra": 1} for row in batch(0, 3).to_pylist()]
        writer.append(pa.RecordBatch.from_pylist(rows, wider))
    found = told("export", "fills", "--out", tmp_path / "f.parquet")
    assert [(pathlib.Path(one["file"]).name, one["rows"]) for one in found] == [
        ("f.parquet", 50),
        ("f-2.parquet", 3),
    ]
    assert pq.read_table(tmp_path / "f-2.parquet").column("extra").to_pylist() == [1, 1, 1]


def test_export_replaces_nothing_unasked(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A file that is there stays as it is, unless --force is given; nothing half-written stays."""
    write(folder)
    (tmp_path / "fills.parquet").write_bytes(b"mine")
    assert "--force" in refused(1, "export", "fills")
    assert (tmp_path / "fills.parquet").read_bytes() == b"mine"
    assert not list(tmp_path.glob("*.part"))
    done("export", "fills", "--force")
    assert pq.read_table(tmp_path / "fills.parquet").num_rows == 200


def test_export_that_fails_leaves_nothing_behind(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Where the second of two files cannot be written, the first is not there either, whole or in part."""
    write(folder, frames=1)
    with writing(folder, schema=SCHEMA.append(pa.field("extra", pa.int64()))) as writer:
        writer.append(batch(0, 1).append_column("extra", pa.array([1])))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "fills-2.parquet").write_bytes(b"mine")
    assert "fills-2.parquet is there already" in refused(1, "export", "--out", "out")
    assert os.listdir(tmp_path / "out") == ["fills-2.parquet"]


def test_export_of_a_damaged_log_keeps_the_rest(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The sound rows are in the file, and the exit code says that it is not all."""
    write(folder)
    break_payload(segments(folder)[0], 0)
    result = run("export", "fills")
    assert result.exit_code == 1
    assert "rows are lost" in result.stderr
    assert pq.read_table(tmp_path / "fills.parquet").num_rows == 150


# -- repair -------------------------------------------------------------------------------------------------------


def test_repair_shows_first_and_then_does_it(folder: pathlib.Path) -> None:
    """Without --yes no byte changes; with it, the broken tail is set aside and cut off, and no sound row is lost."""
    write(folder)
    last = segments(folder)[-1]
    whole = last.read_bytes()
    with last.open("ab") as file:
        file.write(b"\xd7RF\x1atorn")
    (folder / "fills" / names.new_name(9)).write_bytes(b"\0" * 100)
    before = contents(folder)
    shown = run("repair")
    assert shown.exit_code == 0
    assert contents(folder) == before
    assert f"{names.segment_name(len(segments(folder)))} at {len(whole)}, 8 bytes" in shown.stdout
    assert "000000000009.wal.new: would be removed" in shown.stdout
    assert "--yes does it" in shown.stderr
    done("repair", "--yes")
    assert last.read_bytes() == whole
    assert (
        folder / "fills" / names.broken_name(len(segments(folder)), len(whole))
    ).read_bytes() == b"\xd7RF\x1atorn"
    assert not names.unfinished([folder / "fills"])
    assert lines("fills") == [line(n) for n in range(200)]
    assert "nothing to repair" in done("repair", "--yes")


@pytest.mark.parametrize(
    "command", [["repair", "--yes"], ["drop", "fills", "--upto", "1", "--yes"]], ids=lambda c: c[0]
)
def test_what_changes_a_log_needs_it_alone(folder: pathlib.Path, command: list[str]) -> None:
    """While somebody writes it is refused, and says who that is."""
    write(folder)
    with writing(folder):
        before = contents(folder)
        said = refused(1, *command)
        assert f"process {os.getpid()} " in said
        assert contents(folder) == before


# -- drop ---------------------------------------------------------------------------------------------------------


def test_drop_refuses_rows_that_are_not_settled(folder: pathlib.Path) -> None:
    """Whatever --yes says; confirmed is not settled. --even-unsettled drops them."""
    epoch = write(folder)
    checkpoint = Checkpoint(settled=(Range(epoch, 0, 10),)).confirm(
        [Range(epoch, 10, 200)], at_ns=1, server="s"
    )
    CheckpointFile(folder / "fills").write(checkpoint)
    rows = told("ls")[0]["segments"][0]["rows"]
    before = contents(folder)
    assert f"would lose {rows - 10} rows" in refused(1, "drop", "fills", "--upto", "1", "--yes")
    assert contents(folder) == before
    done("drop", "fills", "--upto", "1", "--yes", "--even-unsettled")
    assert not segments(folder)[0].name.startswith("000000000001")
    assert [row["_seq"] for row in lines("fills")] == list(range(rows, 200))


def test_drop_removes_what_is_settled_after_asking(folder: pathlib.Path) -> None:
    """Where nobody can be asked it shows what would go, and goes no further without --yes."""
    epoch = write(folder)
    CheckpointFile(folder / "fills").write(Checkpoint(settled=(Range(epoch, 0, 200),)))
    result = run("drop", "fills", "--upto", "1")
    assert result.exit_code == 2
    assert "000000000001.wal" in result.stdout
    assert "say --yes" in result.stderr
    last = len(segments(folder))
    assert f"segment {last} is the last" in refused(2, "drop", "fills", "--upto", str(last), "--yes")
    found = told("drop", "fills", "--upto", str(last - 1), "--yes")
    assert found["done"]
    assert [file["unsettled"] for file in found["files"]] == [0] * (last - 1)
    assert [path.name for path in segments(folder)] == [names.segment_name(last)]
    assert told("verify")["logs"][0]["whole"]


def test_drop_of_a_segment_that_cannot_be_read_needs_agreement(folder: pathlib.Path) -> None:
    """Nobody knows what is in it, so it counts as not settled."""
    epoch = write(folder)
    CheckpointFile(folder / "fills").write(Checkpoint(settled=(Range(epoch, 0, 200),)))
    path = segments(folder)[0]
    path.write_bytes(b"\x89RWAL\r\n\x1a\x01\0" + bytes(20_000))
    assert "an unknown number in 000000000001.wal" in refused(1, "drop", "fills", "--upto", "1", "--yes")
    done("drop", "fills", "--upto", "1", "--yes", "--even-unsettled")
    assert not path.exists()


@pytest.mark.parametrize("whole", [True, False], ids=["none of it", "not its end"])
def test_drop_of_what_the_disk_does_not_give_needs_agreement(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """Rows may be there that nobody has seen, also where all that were seen are settled."""
    epoch = write(folder)
    CheckpointFile(folder / "fills").write(Checkpoint(settled=(Range(epoch, 0, 200),)))
    path = segments(folder)[0]
    with Segment.open(path) as segment:
        *_, last = segment.scan()
    Unreadable(monkeypatch).refuse(path, *([] if whole else [last.offset]))
    assert "an unknown number in 000000000001.wal" in refused(1, "drop", "fills", "--upto", "1", "--yes")
    assert path.exists()
    done("drop", "fills", "--upto", "1", "--yes", "--even-unsettled")
    assert not path.exists()


def test_drop_leaves_files_of_others_alone(folder: pathlib.Path) -> None:
    """A segment of a later version is no segment of ours to remove."""
    write(folder)
    path = segments(folder)[0]
    path.write_bytes(b"\x89RWAL\r\n\x1a\x09\0" + bytes(20_000))
    result = run("drop", "fills", "--upto", "1", "--yes", "--even-unsettled")
    assert "it stays" in result.stderr
    assert path.exists()


def test_drop_broken_removes_what_was_set_aside_and_nothing_else(folder: pathlib.Path) -> None:
    """Segments stay as they are."""
    write(folder)
    aside = folder / "fills" / names.broken_name(1, 8_192)
    aside.write_bytes(b"broken")
    assert told("ls")[0]["broken"] == [str(aside)]
    before = contents(folder)
    done("drop", "fills", "--broken", "--yes")
    del before[str(aside)]
    assert contents(folder) == before
    assert "nothing to drop" in run("drop", "fills", "--broken", "--yes").stderr


def test_the_end_of_a_dead_log_is_not_taken_for_what_is_being_written(folder: pathlib.Path) -> None:
    """A broken header of the very last frame is told by all who read it, once nobody writes any more."""
    write(folder)
    last = segments(folder)[-1]
    with Segment.open(last) as segment:
        *_, frame = [item for item in segment.scan() if hasattr(item, "header")]
    with last.open("r+b") as file:
        file.seek(frame.offset + 20)
        file.write(b"\xff")
    for command in (["verify"], ["cat", "fills"], ["export", "fills"]):
        result = run(*command)
        assert result.exit_code == 1, command
        assert f"{last.name} at {frame.offset}" in result.output, command
    assert told("ls")[0]["damage"][0]["harm"] == "torn_tail"
    assert run("cat", "fills", "--limit", "10").exit_code == 0


def test_rows_without_a_time_are_not_chosen_by_time(folder: pathlib.Path) -> None:
    """It is refused, and says how else to choose."""
    schema = pa.schema([pa.field("n", pa.int64())])
    with writing(folder, schema=schema) as writer:
        writer.append(pa.RecordBatch.from_pydict({"n": [1]}, schema))
    assert "no ts_local" in refused(1, "cat", "fills", "--since", "2024-08-08")
    assert lines("fills") == [{"n": 1}]
    assert told("ls")[0]["first_ns"] is None


# -- wrong use ----------------------------------------------------------------------------------------------------


WRONG: Mapping[str, tuple[int, list[str], str]] = {
    "nowhere": (1, ["ls", "--dir", "nowhere"], "there are no logs at"),
    "empty": (1, ["ls", "--dir", "."], "holds no log"),
    "table": (2, ["cat", "fill"], 'did you mean "fills"?'),
    "several": (2, ["cat"], "there are 2 logs; name one: fills, orders"),
    "time": (2, ["cat", "fills", "--since", "yesterday"], "is no time"),
    "epoch": (2, ["cat", "fills", "--epoch", "0"], "is no epoch"),
    "one file": (2, ["export", "--out", "all.parquet"], "is one file, and there are 2 logs"),
    "what": (2, ["drop", "fills"], "say what goes"),
    "both": (2, ["drop", "fills", "--upto", "1", "--broken"], "say what goes"),
    "dir": (2, ["ls", "--dir", ""], "it is empty"),
}


@pytest.mark.parametrize(("code", "arguments", "said"), WRONG.values(), ids=WRONG)
def test_wrong_use_is_told_in_a_line(
    folder: pathlib.Path, code: int, arguments: list[str], said: str
) -> None:
    """With the remedy, for people and for programs."""
    write(folder, frames=1, rows=1)
    write(folder, "orders", frames=1, rows=1)
    assert said in refused(code, *arguments)
    result = run(*arguments, "--json")
    assert result.exit_code == code
    assert said in json.loads(result.stderr)["error"]


# -- the page -----------------------------------------------------------------------------------------------------


def test_the_page_reads_a_segment_without_the_package(folder: pathlib.Path) -> None:
    """The example of docs/wal.md, as it stands there, with pyarrow and struct alone."""
    (example,) = [
        found for found in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "struct" in found
    ]
    assert "import wal" not in example
    assert "from wal" not in example
    assert len(example.splitlines()) <= 32
    epoch = write(folder)
    result = subprocess.run(
        [sys.executable, "-c", example, *segments(folder)],
        capture_output=True,
        text=True,
        check=True,
        env=ENVIRONMENT,
    )
    found = [one.split() for one in result.stdout.splitlines()]
    assert {int(one[0], 16) for one in found} == {epoch}
    assert [int(one[1]) for one in found] == [0, 50, 100, 150]
    assert [int(one[2]) for one in found] == [50] * 4
