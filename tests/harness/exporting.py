"""Tables to export with every kind of value in them, and processes that put them in and take them out."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa
from harness.backends import Place
from harness.ingest_files import COMMAND, child_environment

from schemas.columns import Column, Kind
from schemas.table import Table

ROWS = 60
DAY_NS = 1_723_075_200_000_000_000
EVERY_BYTE = bytes(range(256))

INSERT = """
import json, sys, clickhouse_connect, pyarrow as pa
from recorder.target import parse_target
target, database, *files = json.loads(sys.argv[1])
where = parse_target(target)
if where.embedded:
    client = clickhouse_connect.get_client(interface="chdb", path=where.path)
else:
    ((host, port),) = where.hosts
    client = clickhouse_connect.get_client(host=host, port=port)
for file in files:
    name = file.rpartition("/")[2].removesuffix(".in")
    rows = pa.ipc.open_file(pa.memory_map(file)).read_all()
    for part in (rows.slice(0, len(rows) // 2), rows.slice(len(rows) // 2)):
        client.insert_arrow(f"{database}.{name}", part)
client.close()
"""
SEVERAL = """
import json, sys
from recorder.cli import main
for arguments in json.loads(sys.argv[1]):
    main(arguments, standalone_mode=False)
"""


@dataclass(frozen=True)
class Exporting:
    """A folder, and a database; `run` runs the command in the one on the other."""

    folder: pathlib.Path
    place: Place

    def start(self, *arguments: str | pathlib.Path, **more: Any) -> subprocess.Popen[bytes]:
        """`recorder` with these arguments."""
        return subprocess.Popen(
            [*COMMAND, "--data-dir", str(self.folder / "data"), *map(str, arguments)],
            stdin=subprocess.DEVNULL, cwd=self.folder, env=child_environment(**self.place.variables),
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more},
        )  # fmt: skip

    def run(self, *arguments: str | pathlib.Path) -> subprocess.CompletedProcess[bytes]:
        """The same, to its end."""
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=100)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def export(self, *arguments: str | pathlib.Path) -> dict[str, Any]:
        """`recorder export` that succeeds; what it says of what it wrote."""
        done = self.run("export", *arguments, "--json")
        assert done.returncode == 0, done.stderr.decode()
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    def refused(self, *arguments: str | pathlib.Path, code: int = 1) -> str:
        """`recorder export` that fails; the line it says."""
        done = self.run("export", *arguments)
        assert done.returncode == code, (done.returncode, done.stderr.decode())
        *progress, line = done.stderr.decode().splitlines()
        assert all(told.startswith("exporting ") for told in progress)  # every ten seconds
        return line

    def export_all(self, commands: list[list[str]]) -> None:
        """Several commands in one process, one after the other."""
        self._python(SEVERAL, [["--data-dir", str(self.folder / "data"), "export", *one] for one in commands])

    def insert(self, tables: dict[str, pa.Table]) -> None:
        """Put these rows into tables of their names, in two parts a partition."""
        files = []
        for name, rows in tables.items():
            file = self.folder / f"{name}.in"
            with pa.ipc.new_file(file, rows.schema) as writer:
                writer.write_table(rows)
            files.append(str(file))
        self._python(INSERT, [self.place.target, self.place.database, *files])

    def _python(self, code: str, given: Any) -> None:
        done = subprocess.run(
            [sys.executable, "-c", code, json.dumps(given)], capture_output=True, text=True, check=False,
            timeout=100, cwd=self.folder, env=child_environment(**self.place.variables),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def rows_of(table: Table) -> pa.Table:
    """`ROWS` rows with the greatest, the least and the oddest values of each column, and NULL where it may be."""
    columns = [
        pa.array(_values(column), type=column.type.arrow)
        if column.name not in ("ts_local", "_seq")
        else pa.array([_own(column.name, n) for n in range(ROWS)], type=column.type.arrow)
        for column in table.all_columns
    ]
    return pa.Table.from_arrays(columns, names=[column.name for column in table.all_columns])


def _own(name: str, number: int) -> int:
    """Two days, to the nanosecond; and what tells rows apart."""
    return number if name == "_seq" else DAY_NS + (number % 2) * 86_400_000_000_000 + number * 1_000_003


def _values(column: Column) -> list[Any]:
    kind, bits = column.type.kind, column.type.bits
    odd: dict[Kind, list[Any]] = {
        Kind.TIME: [0, 1, DAY_NS + 123_456_789, 4_102_444_799_999_999_999],
        Kind.INT: [0, 1, 2**bits - 1] if not column.type.signed else [0, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1],
        Kind.FLOAT: [0.1, -0.0, 1e300, 5e-324, 61800.1],
        Kind.DECIMAL: [
            Decimal(text)
            for text in ("0", "1e-18", "-1e-18", "99999999999999999999.999999999999999999", "61800.20")
        ],
        Kind.TEXT: ["", 'a "quoted", text', "line\r\nbreak", "Zürich €", "\\N", " "],
        Kind.CHOICE: list(column.type.choices) or ["x"],
        Kind.BYTES: [b"", EVERY_BYTE, b'{"price": 1.10}'],
        Kind.BOOL: [True, False],
        Kind.FLOATS: [[], [0.1, -0.0], [1e300]],
        Kind.TAGS: [[], [("a", "1"), ("é", 'x"')]],
    }  # fmt: skip
    wanted = odd[kind] + ([None] if column.nullable else [])
    return [wanted[number % len(wanted)] for number in range(ROWS)]
