"""Bars come before rows go: what retention asks of whoever makes them, and what it keeps of the answer in the archive.

A *receipt of bars* says of which parts of a partition the bars were built and verified. Its file is
`bars/<table>/<partition id>.json` in the archive. It serves twice: a partition that is not to go yet needs no second
look as long as its parts are the same; and where a drop was interrupted, the parts that are left can be told from rows
that came later. Bars cannot tell them: some of what they were made of is gone.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

import msgspec

from retention.archive.store import Store
from retention.errors import RetentionError
from retention.live_parts import LivePart
from retention.partitions import Span

_PART = re.compile(r"[^_]+_\d+_(\d+)_\d+(?:_(\d+))?")


class Barred(msgspec.Struct, frozen=True):
    """Bars that were verified: of how many hours of feeds, how many inserts of bars it took, and where they are.

    `hours_ns` are the times that the bars are in; `rows` and `bars` how many rows they are made of, and how many they
    are, over all tables of bars.
    """

    hours: int
    built: int
    hours_ns: tuple[tuple[int, int], ...]
    rows: int
    bars: int


class BarsReceipt(msgspec.Struct, frozen=True):
    """The bars of all rows of these parts, each by name and content, were verified.

    `rows` is how many these were, and `table_id` the UUID of their table.
    """

    parts: tuple[tuple[str, str], ...]
    barred: Barred
    rows: int = 0
    table_id: str = ""

    def covers(self, parts: tuple[LivePart, ...]) -> bool:
        """Whether it speaks of all these parts, and perhaps of others."""
        return {(part.name, part.content) for part in parts} <= set(self.parts)

    def is_of(self, parts: tuple[LivePart, ...]) -> bool:
        """Whether it speaks of exactly these parts."""
        return {(part.name, part.content) for part in parts} == set(self.parts)

    def has_rows_of(self, parts: tuple[LivePart, ...]) -> bool:
        """Whether each row of these parts is of its parts, which were merged since.

        Of a plain MergeTree: there an insert gets its number when its rows are to be seen, so that what came later has
        a higher one. Parts that were mutated since are others.
        """
        mine = [blocks_of(name) for name, _ in self.parts]
        last, mutation = (
            max((one.last for one in mine), default=-1),
            max((one.mutation for one in mine), default=0),
        )
        return all(
            blocks.last <= last and blocks.mutation <= mutation
            for blocks in (blocks_of(part.name) for part in parts)
        )


class Blocks(NamedTuple):
    """The number of the last insert that a part has rows of, and of the last mutation that changed it (0: none did)."""

    last: int
    mutation: int


def blocks_of(part: str) -> Blocks:
    """What a part's name says: `20240808_1_3_1` or, mutated, `20240808_1_3_1_7`.

    Raises:
        RetentionError: it is no name of a part.
    """
    found = _PART.fullmatch(part)
    if found is None:
        raise RetentionError(f"{part}: is no name of a part, expected one such as 20240808_1_3_1")
    return Blocks(int(found[1]), int(found[2] or 0))


class Barring(Protocol):
    """Who makes bars, and knows whether they are right."""

    table: str
    """The table that bars are made of."""

    def prove(self, span: Span) -> Barred:
        """Build and verify the bars of all rows with a local time in this span, and of the hours that depend on them.

        Raises:
            RetentionError: some are not right, or cannot be told to be.
        """

    def still_there(self, barred: Barred) -> bool:
        """Whether there are as many bars as were verified, of as many rows."""


def read_bars_receipt(store: Store, table: str, partition: str) -> BarsReceipt | None:
    """The receipt of a partition; None where there is none, or none that can be read: then bars are verified again.

    Raises:
        StoreError: the archive does not answer.
    """
    content = store.read(_name(table, partition))
    if content is None:
        return None
    try:
        return msgspec.json.decode(content, type=BarsReceipt)
    except msgspec.MsgspecError:
        return None


def write_bars_receipt(store: Store, table: str, partition: str, receipt: BarsReceipt) -> None:
    """Put it in the place of the one that is there; interrupted, there is none, and bars are verified again.

    Raises:
        StoreError: the archive does not answer, or refuses.
    """
    store.drop(_name(table, partition))
    store.create(_name(table, partition), msgspec.json.encode(receipt))


def drop_bars_receipt(store: Store, table: str, partition: str) -> None:
    """Take it away: the partition is gone.

    Raises:
        StoreError: the archive does not answer, or refuses.
    """
    store.drop(_name(table, partition))


def _name(table: str, partition: str) -> str:
    return f"bars/{table}/{partition}.json"
