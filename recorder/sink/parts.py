"""Parts of the embedded engine's tables: which were written lately, which are broken, and how a broken one is replaced.

A part is a folder of files that holds some rows of a table; a merge writes one part from several and leaves those
behind, inactive, for a while. The engine does not notice a failing `write()`: it answers "ok" and has a part whose
files are empty or end early. The functions here find such a part and take it out of the table. Nothing is deleted:
what is taken out lies in the table's folder `detached`.

All of them take a client of the engine and raise what the driver raises.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clickhouse_connect.driver.binding import quote_identifier
from clickhouse_connect.driver.client import Client

STAGED = "recorder-restoring_"
"""Prefix of the folder in `detached` where the parts a merge was made from wait while the merge is undone."""

_UNFINISHED = ".tmp"
_GONE = frozenset({60, 81, 232})  # no such table, database, part
_UNBOUNDED = {"max_execution_time": 0}
_IN_ROWS = {**_UNBOUNDED, "check_query_single_value_result": 0}
# CHECK TABLE does not look into these. They are written by one call each, so one that failed is empty.
_UNCHECKED = ("columns_substreams.txt", "default_compression_codec.txt", "metadata_version.txt")
# Codes with which a check fails though the part may be sound.
_NOT_ITS_FAULT = ("Code: 241.", "Code: 159.", "Code: 394.", "Code: 76.", "Code: 473.", "Code: 243.")

Table = tuple[str, str]
"""Database and table."""
Key = tuple[str, str, str, int]
"""Database, table, part, and when it was written."""


@dataclass(frozen=True)
class Part:
    """A part: `folder` is the table's; the numbers say which inserts' rows it holds, and after how many merges.

    `rows` is 0 where it is not known.
    """

    database: str
    table: str
    folder: pathlib.Path
    name: str
    partition: str
    active: bool
    rows: int
    written_at_s: int

    @property
    def table_name(self) -> str:
        """The table as a statement names it."""
        return f"{quote_identifier(self.database)}.{quote_identifier(self.table)}"

    @property
    def of(self) -> Table:
        """Its table."""
        return self.database, self.table

    @property
    def key(self) -> Key:
        """Tells it from the engine's other parts, also from one that has its name at another time."""
        return self.database, self.table, self.name, self.written_at_s

    @property
    def told(self) -> str:
        """What messages call it."""
        return f"part {self.name} of {self.rows} rows" if self.rows else f"part {self.name}"

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """First and last block, merges, mutation (0 for none)."""
        first, last, level, *mutation = map(int, self.name.removeprefix(self.partition + "_").split("_"))
        return first, last, level, mutation[0] if mutation else 0

    @property
    def made_of_parts(self) -> bool:
        """Whether the engine wrote it from other parts, and no insert did."""
        _, _, level, mutation = self.numbers
        return level > 0 or mutation > 0

    def covers(self, other: Part) -> bool:
        """Whether the other part's rows went into this one."""
        first, last, level, mutation = self.numbers
        its_first, its_last, its_level, its_mutation = other.numbers
        return (
            self.partition == other.partition
            and self.name != other.name
            and first <= its_first
            and its_last <= last
            and its_level <= level
            and its_mutation <= mutation
        )


def written_since(client: Client, moment_s: float) -> list[Part]:
    """The active parts of all tables that were written at this moment (Unix time) or later."""
    return _parts(
        client, "active AND modification_time >= fromUnixTimestamp({since:Int64})", {"since": int(moment_s)}
    )


def is_active(client: Client, part: Part) -> bool:
    """Whether the table has the part still."""
    return part.name in {one.name for one in _of_table(client, part) if one.active}


def fault_of(client: Client, part: Part) -> str:
    """What is wrong with an active part, "" for nothing; a part that has left the table is sound.

    Raises:
        CheckFailedError: the check itself failed, so nothing is known.
    """
    try:
        rows = client.query(
            f"CHECK TABLE {part.table_name} PART '{part.name}'", settings=_IN_ROWS
        ).result_rows
    except Exception as error:
        if getattr(error, "code", None) in _GONE:
            return ""
        raise
    for *_, passed, told in rows:
        if not int(passed):
            if str(told).startswith(_NOT_ITS_FAULT):
                raise CheckFailedError(f"{part.table_name}: part {part.name} could not be checked: {told}")
            return str(told)
    for name in _UNCHECKED:
        try:
            if (part.folder / part.name / name).stat().st_size == 0:
                return f"{name} is empty"
        except FileNotFoundError:
            continue
    return ""


class CheckFailedError(Exception):
    """A check could not be made."""


def set_aside(client: Client, part: Part) -> None:
    """Take an active part out of its table. It lies in `detached` then, and the tokens of its rows are forgotten.

    The engine may delete the table's inactive parts on this occasion: `stage` what is needed of them before.
    """
    client.command(f"ALTER TABLE {part.table_name} DETACH PART '{part.name}'", settings=_UNBOUNDED)


def stage(client: Client, part: Part) -> pathlib.Path | None:
    """Keep the inactive parts that `part` was made of, as hard links; the folder they are in.

    None where not all of them are there any more.
    """
    older = [one for one in _of_table(client, part) if not one.active and part.covers(one)]
    sources = [one for one in older if not any(other.covers(one) for other in older)]
    if sum(one.rows for one in sources) < part.rows:
        return None
    staged = part.folder / "detached" / (STAGED + part.name)
    unfinished = staged.with_name(staged.name + _UNFINISHED)
    if not staged.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            for one in sources:
                if one.rows:
                    _link(part.folder / one.name, unfinished / one.name)
        except FileNotFoundError:  # deleted meanwhile
            shutil.rmtree(unfinished)
            return None
        unfinished.rename(staged)
    return staged


def staged_before(client: Client, engine: pathlib.Path) -> Iterator[tuple[Part, pathlib.Path]]:
    """What a process that ended while it undid merges has left in an engine's folder: parts, with their folders."""
    for staged in engine.glob(f"store/*/*/detached/{STAGED}*"):
        if staged.suffix == _UNFINISHED:  # its part was not taken out: these are but second names of files
            shutil.rmtree(staged)
            continue
        home = staged.parent.parent
        for database, table in client.query(
            "SELECT database, name FROM system.tables WHERE uuid = {uuid:UUID}",
            parameters={"uuid": home.name},
        ).result_rows:
            yield Part(database, table, home, staged.name.removeprefix(STAGED), "", False, 0, 0), staged


def put_back(client: Client, part: Part, staged: pathlib.Path) -> list[Part]:
    """Attach the parts of a staged folder to the table, each once however often this is called; what became of them.

    Merges of the table should be stopped since the first call: a part is known by its files, for as long as they lie
    in the table's folder.
    """
    attached = []
    for source in sorted(staged.iterdir()):
        found = _home_of(source, _of_table(client, part))
        if found is None:
            waiting = staged.parent / source.name
            if not waiting.exists():
                _link(source, waiting)
            elif not _same_files(source, waiting):
                raise CheckFailedError(
                    f"{waiting} is in the way of a part that has to be put back; move it away"
                )
            client.command(f"ALTER TABLE {part.table_name} ATTACH PART '{source.name}'", settings=_UNBOUNDED)
            found = _home_of(source, _of_table(client, part))
            if found is None:
                raise CheckFailedError(f"{part.table_name}: part {source.name} was attached and is not there")
        attached.append(found)
    shutil.rmtree(staged)
    return attached


def stop_merges(client: Client, part: Part) -> None:
    """Let no merge of the table begin, and end those that run, until `start_merges` or the engine's end."""
    client.command(f"SYSTEM STOP MERGES {part.table_name}")


def start_merges(client: Client, table_name: str) -> None:
    """Let the table's parts be merged again."""
    client.command(f"SYSTEM START MERGES {table_name}")


def writing_for(client: Client, seconds: float) -> int:
    """How many merges and inserts have been running for longer than this: their parts are still to come."""
    rows = client.query(
        "SELECT (SELECT count() FROM system.merges WHERE elapsed > {s:Float64}) + "
        "(SELECT count() FROM system.processes WHERE query_kind = 'Insert' AND elapsed > {s:Float64})",
        parameters={"s": seconds},
    ).result_rows
    return int(rows[0][0])


def _of_table(client: Client, part: Part) -> list[Part]:
    of_table = {"database": part.database, "table": part.table}
    return _parts(client, "p.database = {database:String} AND p.table = {table:String}", of_table)


def _parts(client: Client, condition: str, parameters: dict[str, Any]) -> list[Part]:
    # Not the column `path`: the folder of the table and the name give it without asking the part.
    rows: Sequence[Sequence[Any]] = client.query(
        "SELECT p.database, p.table, t.data_paths, p.name, p.partition_id, p.active, p.rows, "
        "toUnixTimestamp(p.modification_time) FROM system.parts AS p "
        "INNER JOIN system.tables AS t ON t.database = p.database AND t.name = p.table "
        f"WHERE {condition} AND p.database NOT IN ('system', 'information_schema', 'INFORMATION_SCHEMA')",
        parameters=parameters,
        settings=_UNBOUNDED,
    ).result_rows
    return [
        Part(
            database,
            table,
            pathlib.Path(folders[0]),
            name,
            partition,
            bool(active),
            int(count),
            int(written_at_s),
        )
        for database, table, folders, name, partition, active, count, written_at_s in rows
    ]


def _link(source: pathlib.Path, target: pathlib.Path) -> None:
    """The folder again, its files as hard links."""
    shutil.copytree(source, target, copy_function=os.link)


def _home_of(source: pathlib.Path, of_table: Sequence[Part]) -> Part | None:
    """The active part with the rows of a folder: one that has its very files, or what such a one was merged into."""
    homes = []
    for one in of_table:
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            if _same_files(source, one.folder / one.name):
                homes += [one] if one.active else [other for other in of_table if other.covers(one)]
    return next((one for one in homes if one.active and one.rows), None)


def _same_files(one: pathlib.Path, other: pathlib.Path) -> bool:
    return (one / "count.txt").samefile(other / "count.txt")
