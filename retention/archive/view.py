"""One view over live rows and archived ones, in which a row that is both counts once, as it is live. Pure: SQL as text.

    SELECT … FROM table
    UNION ALL
    SELECT … FROM the files of all pieces
    WHERE their partition is none that the table has whole, and their identity none that it has of the others

A partition is whole where the table has as many rows as were archived, with the same sum of identities: counted anew at
every question, so the view is right before a partition is dropped, afterwards, and when it was restored. Identities are
held in memory only of partitions that the table has in part, or with late rows.

Files are named one by one: those of pieces with a receipt. What is archived later is in the view that is made then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from retention.archive.manifest import Manifest
from retention.archive.pieces import Partition
from retention.archive.rowhash import LOG, SEQ, Sums, identity_sum_sql
from schemas.quote import quote_name, quote_text
from schemas.renames import Renames, renamed

SUFFIX = "_with_archive"
FOLDERS = ("table", "date", "month")
"""What folders are called: ClickHouse gives a column of such a name the folder's value, and not the file's.

`use_hive_partitioning = 0` would keep it from that, but within a view it breaks filters (26.9).
"""
_PARTITION = "replaceAll(extract(_path, '/(?:date|month)=([0-9-]+)/[^/]*$'), '-', '')"
"""Of a file, as `Place.id` has it."""


@dataclass(frozen=True)
class Shown:
    """A column of the view: its type, and what a row has that was archived before there was such a column."""

    name: str
    type: str
    default: str = ""


def view_sql(
    database: str,
    table: str,
    columns: Sequence[Shown],
    known: Iterable[Partition],
    files: Callable[[Sequence[str], str], str],
    renames: Renames = (),
) -> str:
    """The statement that makes the view `<table>_with_archive`.

    `files` says how the database reads Parquet files: their names below the root, and their columns as ClickHouse
    writes them, as a table function. At least one piece must have a receipt.
    """
    pieces = [piece.manifest for one in known for piece in one.pieces if piece.receipt is not None]
    sums: dict[str, Sums] = {}
    alike: dict[tuple[tuple[str, str], ...], list[Manifest]] = {}
    for manifest in pieces:
        sums[manifest.place.id] = sums.get(manifest.place.id, Sums()) + manifest.sums
        types = tuple((name, manifest.columns[name]) for name in manifest.schema.names)
        alike.setdefault(types, []).append(manifest)
    names = ", ".join(quote_name(column.name) for column in columns)
    live = f"{quote_name(database)}.{quote_name(table)}"
    archived = " UNION ALL ".join(
        _select(dict(types), manifests, columns, files, renames) for types, manifests in alike.items()
    )
    ids = ", ".join(map(quote_text, sums))
    wanted = ", ".join(f"({quote_text(at)}, {one.rows}, {one.identity_sum})" for at, one in sums.items())
    mine = "splitByChar('-', _partition_id)[1]"
    whole = (
        f"SELECT part FROM (SELECT {mine} AS part, {identity_sum_sql()} FROM {live} WHERE {mine} IN ({ids}) "
        f"GROUP BY part) WHERE (part, toUInt64(rows), toUInt64(identity_sum)) IN ({wanted})"
    )
    others = f"SELECT {LOG}, {SEQ} FROM {live} WHERE {mine} IN ({ids}) AND {mine} NOT IN ({whole})"
    return (
        f"CREATE OR REPLACE VIEW {quote_name(database)}.{quote_name(table + SUFFIX)} AS "
        f"SELECT {names} FROM {live} UNION ALL SELECT {names} FROM ({archived}) "
        f"WHERE _archived NOT IN ({whole}) AND ({LOG}, {SEQ}) NOT IN ({others})"
    )


def _select(
    types: Mapping[str, str],
    manifests: Sequence[Manifest],
    columns: Sequence[Shown],
    files: Callable[[Sequence[str], str], str],
    renames: Renames,
) -> str:
    """The rows of pieces of one schema, as the table's columns."""
    paths = [f"{manifest.place.folder}/{file.name}" for manifest in manifests for file in manifest.files]
    old = dict(zip(renamed(types, renames), types, strict=True))
    shown = [f"{_PARTITION} AS _archived"]
    for column in columns:
        name, kind = quote_name(column.name), quote_text(column.type)
        if column.name not in old:
            value = f"CAST({column.default}, {kind})" if column.default else f"defaultValueOfTypeName({kind})"
        elif types[old[column.name]] == column.type:
            value = f"files.{quote_name(old[column.name])}"
        else:
            # Refuses, when it is read, a value that the type does not have.
            value = f"accurateCast(files.{quote_name(old[column.name])}, {kind})"
        shown.append(f"{value} AS {name}")
    structure = ", ".join(f"{quote_name(name)} {kind}" for name, kind in types.items())
    return f"SELECT {', '.join(shown)} FROM {files(paths, structure)} AS files"
