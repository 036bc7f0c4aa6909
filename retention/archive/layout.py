"""What is called how in an archive: folders of partitions, files, manifests and receipts. Decides names, does no I/O.

    <root>/table=fills/month=2024-08/                           a table partitioned by month
    <root>/table=market_data/date=2024-08-08/                   one partitioned by day
        part-0000-5f0c2a91-000.parquet …                        rows, in the table's order, file after file
        manifest-0000.json                                      what these files are
        receipt-0000.json                                       that they were read back and found true
        part-0001-… manifest-0001.json receipt-0001.json        an addendum: rows that came later

A month is `month=`, so that no reader takes it for a day. `0000` is the number of the *piece*, `5f0c2a91` of the
attempt to write it: two attempts never write one file.
"""

from __future__ import annotations

import re
import secrets
import urllib.parse
from dataclasses import dataclass

from retention.errors import ArchiveError

_DAY = re.compile(r"(\d{4})-?([01]\d)-?([0-3]\d)")
_MONTH = re.compile(r"(\d{4})-?([01]\d)")
_FOLDER = re.compile(r"table=([^/]+)/(?:date=(\d{4}-\d\d-\d\d)|month=(\d{4}-\d\d))/[^/]+")
_PROBE = re.compile(r"\.probe-[0-9a-f]{8}\.part")
_FILE = re.compile(r"(?:part|manifest|receipt)-(\d{4,})(?:-[0-9a-f]{8}-\d{3,}\.parquet|\.json)")


@dataclass(frozen=True, order=True)
class Place:
    """One partition of one table: a day, `2024-08-08`, or a month, `2024-08`."""

    table: str
    partition: str

    @property
    def folder(self) -> str:
        """Its folder below the root."""
        kind = "date" if len(self.partition) == 10 else "month"
        return f"table={urllib.parse.quote(self.table, safe='')}/{kind}={self.partition}"

    @property
    def id(self) -> str:
        """ClickHouse's id of the partition; where a table is partitioned by more, what its ids begin with."""
        return self.partition.replace("-", "")

    def __str__(self) -> str:
        return f"{self.table} {self.partition}"


def place_of(table: str, partition: str) -> Place:
    """A partition as people and ClickHouse name it: `2024-08-08`, `20240808`, `2024-08`, `202408`.

    Raises:
        ArchiveError: it is none.
    """
    for form in (_DAY, _MONTH):
        if found := form.fullmatch(partition):
            return Place(table, "-".join(found.groups()))
    raise ArchiveError(
        f"{table}: partition {partition!r} is no day and no month; name it as 2024-08-08 or 2024-08"
    )


def place_at(name: str) -> Place | None:
    """The partition in whose folder a file below the root lies, or None; what lies deeper is no part of the archive."""
    found = _FOLDER.fullmatch(name)
    return Place(urllib.parse.unquote(found[1]), found[2] or found[3]) if found else None


def piece_of(name: str) -> int | None:
    """The number of the piece that a file is of, by its last name; None where the archive did not write it."""
    found = _FILE.fullmatch(name.rpartition("/")[2])
    return int(found[1]) if found else None


def manifest_name(place: Place, piece: int) -> str:
    """The manifest's name below the root."""
    return f"{place.folder}/manifest-{piece:04d}.json"


def receipt_name(place: Place, piece: int) -> str:
    """The receipt's name below the root."""
    return f"{place.folder}/receipt-{piece:04d}.json"


def new_attempt() -> str:
    """Eight hexadecimal digits that no other attempt has."""
    return secrets.token_hex(4)


def file_name(place: Place, piece: int, attempt: str, number: int) -> str:
    """The name of a file of rows below the root."""
    return f"{place.folder}/part-{piece:04d}-{attempt}-{number:03d}.parquet"


def probe_name(folder: str) -> str:
    """A small file below a folder by which is seen that a database means the same place; readers take it for none."""
    return f"{folder}/.probe-{secrets.token_hex(4)}.part"


def is_probe(name: str) -> bool:
    """Whether a file was made for that, by its last name."""
    return _PROBE.fullmatch(name.rpartition("/")[2]) is not None
