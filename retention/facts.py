"""What is known of a table and its partitions when it is decided what is due: values, as they were read or proven."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PartitionFacts:
    """One partition as the server has it. Of active parts alone; times in nanoseconds since 1970.

    `min_ns` and `max_ns` are the local times of its rows. `modified_ns` is when its newest part was made, by an insert
    or by a merge, by the server's clock and rounded up to what that clock shows. `merges` run in it now. `sum_hash` is
    the order-free hash of its rows, where somebody has computed it: None is not known.
    """

    id: str
    rows: int
    bytes_on_disk: int
    parts: int
    min_ns: int
    max_ns: int
    modified_ns: int
    merges: int = 0
    sum_hash: str | None = None


@dataclass(frozen=True, kw_only=True)
class TableFacts:
    """One table as the server has it: its TTL as the server writes it (empty for none) and its partitions.

    `pending_oldest_ns` is the oldest local time among rows that wait in a log, None where none do or none is known.
    `by_time` False: the table's partition key is not the one that its policy speaks of.
    """

    table: str
    ttl: str = ""
    partitions: tuple[PartitionFacts, ...] = ()
    pending_oldest_ns: int | None = None
    by_time: bool = True


@dataclass(frozen=True, kw_only=True)
class Proof:
    """That each row a partition had at `checked_ns` is in the archive (or in the bars), read back and compared.

    `rows` and `sum_hash` are of all rows that the partition had then, in however many files and addenda they are.
    `checked_ns` is the server's clock *before* the partition was read: a later time would cover rows that came while
    it was read.
    """

    table: str
    partition: str
    rows: int
    sum_hash: str
    max_ns: int
    checked_ns: int


class Proven(enum.Enum):
    """What proofs say of a partition as it is now."""

    YES = "yes"
    UNSURE = "unsure"
    """As many rows as were proven, but parts were made since: a merge did it, or other rows came."""
    NO = "no"


def proven(part: PartitionFacts, table: str, proofs: Iterable[Proof]) -> Proven:
    """Whether a proof covers exactly the rows that are there now.

    The same rows and hash do, and so do the same rows where nothing was written since.
    """
    mine = [proof for proof in proofs if proof.table == table and proof.partition == part.id]
    same = [proof for proof in mine if proof.rows == part.rows]
    if part.sum_hash is not None:
        return Proven.YES if any(proof.sum_hash == part.sum_hash for proof in same) else Proven.NO
    if any(proof.checked_ns > part.modified_ns for proof in same):
        return Proven.YES
    return Proven.UNSURE if same else Proven.NO
