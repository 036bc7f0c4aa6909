"""Manifest and receipt of a piece: what its files are, and that they were read back. Values and JSON, no I/O.

A receipt names its manifest by sha256, so it stands for that one alone. Numbers of 64 bits that are no counts or times
are text, 16 hexadecimal digits: not every reader of JSON keeps them.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa

from retention.archive.layout import Place
from retention.archive.rowhash import Sums
from retention.errors import ManifestError

MANIFEST, RECEIPT = "recorder.archive.manifest", "recorder.archive.receipt"
VERSION = 1


@dataclass(frozen=True)
class FileEntry:
    """One Parquet file; `name` is below the partition's folder."""

    name: str
    rows: int
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What the source gave, and the files that it went to. `columns` are ClickHouse's types by name."""

    database: str
    place: Place
    piece: int
    order_by: str
    sums: Sums
    schema: pa.Schema
    columns: Mapping[str, str]
    files: tuple[FileEntry, ...]
    recorder_version: str
    written_ns: int

    @property
    def nbytes(self) -> int:
        """Of all files."""
        return sum(file.nbytes for file in self.files)

    def to_json(self) -> bytes:
        """As it is stored."""
        fields = [
            {
                "name": field.name,
                "clickhouse": self.columns.get(field.name, ""),
                "arrow": str(field.type),
                "nullable": field.nullable,
            }
            for field in self.schema
        ]
        return _json(
            {
                "format": MANIFEST,
                "version": VERSION,
                **_head(self.database, self.place, self.piece),
                "order_by": self.order_by,
                **_sums(self.sums),
                "columns": fields,
                "arrow_schema": base64.b64encode(self.schema.serialize().to_pybytes()).decode(),
                "files": [
                    {"name": file.name, "rows": file.rows, "bytes": file.nbytes, "sha256": file.sha256}
                    for file in self.files
                ],
                "recorder_version": self.recorder_version,
                "written_ns": self.written_ns,
            }
        )


@dataclass(frozen=True)
class Receipt:
    """Files of a piece were read back from the store, and are what the source gave."""

    database: str
    place: Place
    piece: int
    manifest_sha256: str
    sums: Sums
    files: int
    nbytes: int
    recorder_version: str
    verified_ns: int

    def to_json(self) -> bytes:
        """As it is stored."""
        return _json(
            {
                "format": RECEIPT,
                "version": VERSION,
                **_head(self.database, self.place, self.piece),
                "manifest_sha256": self.manifest_sha256,
                **_sums(self.sums),
                "files": self.files,
                "bytes": self.nbytes,
                "recorder_version": self.recorder_version,
                "verified_ns": self.verified_ns,
            }
        )


def receipt_for(
    manifest: Manifest, manifest_json: bytes, *, recorder_version: str, verified_ns: int
) -> Receipt:
    """The receipt of a manifest whose files were just read back and found true."""
    return Receipt(
        manifest.database,
        manifest.place,
        manifest.piece,
        hashlib.sha256(manifest_json).hexdigest(),
        manifest.sums,
        len(manifest.files),
        manifest.nbytes,
        recorder_version,
        verified_ns,
    )


def manifest_of(content: bytes, where: str) -> Manifest:
    """A stored manifest.

    Raises:
        ManifestError: it is none, or of a newer version; the message begins with `where`.
    """
    known = _loaded(content, where, MANIFEST)
    try:
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(known["arrow_schema"], validate=True)))
        return Manifest(
            known["database"],
            Place(known["table"], known["partition"]),
            known["piece"],
            known["order_by"],
            _sums_of(known),
            schema,
            {one["name"]: one["clickhouse"] for one in known["columns"]},
            tuple(FileEntry(one["name"], one["rows"], one["bytes"], one["sha256"]) for one in known["files"]),
            known["recorder_version"],
            known["written_ns"],
        )
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise _broken(where, f"{type(error).__name__}: {error}") from error


def receipt_of(content: bytes, where: str) -> Receipt:
    """A stored receipt.

    Raises:
        ManifestError: it is none, or of a newer version; the message begins with `where`.
    """
    known = _loaded(content, where, RECEIPT)
    try:
        return Receipt(
            known["database"],
            Place(known["table"], known["partition"]),
            known["piece"],
            known["manifest_sha256"],
            _sums_of(known),
            known["files"],
            known["bytes"],
            known["recorder_version"],
            known["verified_ns"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(where, f"{type(error).__name__}: {error}") from error


def _head(database: str, place: Place, piece: int) -> dict[str, Any]:
    return {"database": database, "table": place.table, "partition": place.partition, "piece": piece}


def _sums(sums: Sums) -> dict[str, Any]:
    return {
        "rows": sums.rows,
        "row_sum": f"{sums.row_sum:016x}",
        "identity_sum": f"{sums.identity_sum:016x}",
        "min_ts_local_ns": sums.min_ts_local_ns,
        "max_ts_local_ns": sums.max_ts_local_ns,
    }


def _sums_of(known: Mapping[str, Any]) -> Sums:
    return Sums(
        known["rows"],
        int(known["row_sum"], 16),
        int(known["identity_sum"], 16),
        known["min_ts_local_ns"],
        known["max_ts_local_ns"],
    )


def _json(value: Mapping[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _loaded(content: bytes, where: str, form: str) -> Mapping[str, Any]:
    try:
        known = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise _broken(where, f"no JSON: {error}") from error
    if not isinstance(known, dict) or known.get("format") != form:
        raise _broken(where, f"expected {form}")
    if known.get("version") != VERSION:
        raise ManifestError(
            f"{where}: version {known.get('version')}, this recorder reads {VERSION}; use the recorder that wrote it"
        )
    return known


def _broken(where: str, what: str) -> ManifestError:
    return ManifestError(f"{where}: cannot be read ({what}); bring it back from a copy, nothing was changed")
