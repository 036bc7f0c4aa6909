"""Rows that have left their table, and so are not to be sent again: moved to the table of older ones, archived and
dropped, or taken by the table's TTL.

Asked about are only rows that the table was asked for and has not, and that are old enough to have left: nothing leaves
a table before it is a day old. The table comes first and the others after it, as rows move from the one to the others:
so a row that leaves meanwhile is met twice, and not missed.

An archive that cannot be read says neither yes nor no: what is open then is `unknown`, with the reason, and whoever
asked decides what becomes of it. It is never opened for a table that has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from recorder.batch import NS_PER_DAY, Batch, local_times_ns, partition_keys
from recorder.sink.base import Sink
from recorder.sink.errors import SinkError
from recorder.subset import Identities
from retention.policy import TIER_PREFIX
from schemas.live import ttl_of
from schemas.render import RenderContext
from schemas.table import Table

if TYPE_CHECKING:
    from recorder.settings import Settings

Mask = npt.NDArray[np.bool_]
Times = npt.NDArray[np.int64]

YOUNG_NS = NS_PER_DAY // 2
"""Rows of so short a time ago have not left: that takes a day by the server's clock, which may be half a day before
ours. Rows of later than now may have: then our clock is wrong."""
UNKNOWN_TABLE = 60
"""ClickHouse: there is no such table."""


class Unanswered(Exception):  # noqa: N818 - says what happened
    """The archive cannot be read; the message says why."""


@dataclass(frozen=True)
class Gone:
    """Of a batch's rows, each in at most one of these; the others are nowhere. Masks of shape (rows,).

    `unknown` are those that the archive may have, which cannot be read now: `why` says so, and what to do.
    """

    moved: Mask
    archived: Mask
    expired: Mask
    unknown: Mask
    why: str = ""

    @property
    def left(self) -> Mask:
        """Nothing of these is to be sent."""
        return self.moved | self.archived | self.expired


@dataclass(frozen=True)
class Ttl:
    """The TTL that the table has now: rows older than so many days are deleted, at `now_ns` by the server's clock."""

    days: int
    now_ns: int

    def takes(self, times_ns: Times) -> Mask:
        """Which rows it deletes, and so would delete again if they were sent."""
        taken: Mask = times_ns < self.now_ns - self.days * NS_PER_DAY
        return taken


def old(times_ns: Times, now_ns: int) -> Mask:
    """Which rows may have left their table."""
    aged: Mask = (times_ns < now_ns - YOUNG_NS) | (times_ns > now_ns + YOUNG_NS)
    return aged


def among(batch: Batch, present: Identities) -> Mask:
    """Which rows of a batch are among these."""
    return np.fromiter((one in present for one in batch.identities()), dtype=bool, count=batch.rows)


def sort_out(
    asked: Mask, moved: Mask, archived: Mask | None, times_ns: Times, ttl: Ttl | None, why: str = ""
) -> Gone:
    """What became of the rows that were asked for. `archived` None: the archive cannot be read, `why` says why not.

    What is found somewhere has not expired, whatever its age; what may be in the archive has not, either.
    """
    none = np.zeros(len(asked), np.bool_)
    found = asked & moved
    if archived is None:
        return Gone(found, none, none, asked & ~found, why)
    kept = asked & ~found & archived
    open_ = asked & ~found & ~kept
    return Gone(found, kept, open_ & ttl.takes(times_ns) if ttl is not None else none, none)


class Archived(Protocol):
    """Where partitions are archived."""

    async def found(self, table: Table, batch: Batch, asked: Mask, *, others_wait: bool) -> Mask:
        """Which of these rows of a batch are in verified files; `others_wait`: it is given up sooner.

        Raises:
            Unanswered: it cannot be read.
        """


class Elsewhere:
    """See the module. Of one table; used on the recorder's loop.

    Args:
        tier: whether its partitions move to another table.
        archive: where they are archived; None where the table has no archive.
        ttl_days: after how many days the database deletes its rows by itself; None where it does not.
    """

    def __init__(
        self,
        table: Table,
        sink: Sink,
        database: str,
        *,
        tier: bool,
        archive: Archived | None,
        ttl_days: int | None,
        now_ns: Callable[[], int] = time.time_ns,
    ):
        self._table = table
        self._sink = sink
        self._database = database
        self._tier = tier
        self._archive = archive
        self._ttl_days = ttl_days
        self._now_ns = now_ns

    def concerns(self, batch: Batch, *, earlier: bool) -> bool:
        """Whether rows of a batch may have left; `earlier`: nobody knows whether they were in, so that they may have
        expired meanwhile.
        """
        asks = self._tier or self._archive is not None or (earlier and self._ttl_days is not None)
        return asks and bool(old(local_times_ns(batch.data), self._now_ns()).any())

    def absent(self, batch: Batch, present: Identities, *, sealed: bool = False) -> Mask:
        """Which of a batch's rows to ask for, when the table has said which it has.

        Of one that was `sealed`, where a row of a partition is to be asked for, all of that partition are that the
        table has not: the worker takes a partition of it for inserted whole or not at all.
        """
        times_ns = local_times_ns(batch.data)
        aged = old(times_ns, self._now_ns())
        if sealed:
            keys = partition_keys(times_ns, self._table.policy.partition)
            aged = np.isin(keys, keys[aged])
        return aged & ~among(batch, present) if present else aged

    async def look(self, batch: Batch, asked: Mask, *, earlier: bool) -> Gone:
        """Where these rows are. Unless they are `earlier` ones, others wait for the answer, as `concerns` has it.

        Raises:
            SinkError: the database does not say; ask again.
        """
        times_ns = local_times_ns(batch.data)
        moved = await self._moved(batch, asked) if self._tier else np.zeros(batch.rows, np.bool_)
        open_ = asked & ~moved
        archived: Mask | None = np.zeros(batch.rows, np.bool_)
        if self._archive is not None and open_.any():
            try:
                archived = await self._archive.found(self._table, batch, open_, others_wait=not earlier)
            except Unanswered as error:
                return sort_out(asked, moved, None, times_ns, None, str(error))
            open_ = open_ & ~archived
        ttl = await self._ttl() if earlier and open_.any() else None
        return sort_out(asked, moved, archived, times_ns, ttl)

    async def _moved(self, batch: Batch, asked: Mask) -> Mask:
        older = replace(batch.only(asked), table=TIER_PREFIX + self._table.name)
        try:
            found = await self._sink.look_up(older)
        except SinkError as error:
            if error.code != UNKNOWN_TABLE:
                raise
            return np.zeros(batch.rows, np.bool_)  # nothing has moved yet
        return asked & among(batch, found)

    async def _ttl(self) -> Ttl | None:
        """The TTL that rows go by now; None where there is another one, or none: a hold took it away."""
        if self._ttl_days is None:
            return None
        rows = await self._sink.query(
            "SELECT engine_full, toUnixTimestamp64Nano(now64(9)) FROM system.tables "
            "WHERE database = {db:String} AND name = {table:String}",
            {"db": self._database, "table": self._table.name},
        )
        context = RenderContext(
            database=self._database, ttl=True, keep_days={self._table.name: self._ttl_days}
        )
        if not rows or ttl_of(str(rows[0][0])) != context.ttl_expression(self._table):
            return None
        return Ttl(self._ttl_days, int(rows[0][1]))


def elsewhere_of(table: Table, sink: Sink, settings: Settings, archive: Archived) -> Elsewhere | None:
    """Where rows of a table go; None where they stay for ever, or until a person drops them."""
    said = settings.for_table(table)
    ttl_days = said.ttl_days if settings.ttl is not False else None
    tier, archives = said.tier_after_days is not None, said.archive_after_days is not None
    if not tier and not archives and ttl_days is None:
        return None
    return Elsewhere(
        table, sink, settings.database, tier=tier, archive=archive if archives else None, ttl_days=ttl_days
    )
