"""After the names were swapped: brings what the old table alone has, then drops it.

The old table is the one beside now. Nothing of it goes before each of its rows is known to be in the new one, or to
have been there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from recorder.repartition.alike import Alike
from recorder.repartition.errors import CannotRepartition
from recorder.repartition.pair import DAY, Pair
from recorder.repartition.there import There
from recorder.repartition.writers import Writers
from schemas.quote import quote_text

KNOWN_ROWS = 4_000_000
"""Identities that are held in memory to look for late rows."""


@dataclass(frozen=True)
class Late:
    """Rows that were brought, and how many of them are in the table twice, since they were sent again just then."""

    rows: int = 0
    doubled: int = 0

    def __add__(self, other: Late) -> Late:
        return Late(self.rows + other.rows, self.doubled + other.doubled)


def finish(pair: Pair, there: There, old: There, writers: Writers, alike: Alike) -> Late:
    """Bring the late rows and drop the old table; `alike` is what this run compared before the swap.

    Raises:
        CannotRepartition: an insert goes on, or rows did not get in; the old table stays.
    """
    writers.wait_for_inserts()
    columns = old.stored
    late = Late()
    for day in [day for day in pair.days() if pair.partitions(pair.beside, day)]:
        if alike.still(day):
            continue
        # Compared with what was copied of it, not with the table: what retention took from that stays gone.
        if there.mark.days.get(day) != pair.digest(pair.beside, day, columns):
            late += _bring(pair, day, columns, writers)
    if added := old.unsynced:
        pair.command(f"ALTER TABLE {pair.name(pair.table)} RESET SETTING {', '.join(added)}")
    pair.drop_beside()
    return late


def _bring(pair: Pair, day: str, columns: Mapping[str, str], writers: Writers) -> Late:
    late = Late()
    of = 1 + pair.count(pair.table, day) // KNOWN_ROWS
    for number in range(of):
        mine = f"{DAY} = {quote_text(day)} AND cityHash64(_log, _seq) % {of} = {number}"
        known = f"SELECT _log, _seq FROM {pair.name(pair.table)} WHERE {mine}"
        lacking = f"{mine} AND (_log, _seq) NOT IN ({known})"
        if rows := pair.count_where(pair.beside, lacking):
            pair.insert(pair.table, pair.beside, lacking, columns)
            writers.wait_for_inserts()
            late += Late(rows, _doubled(pair, mine))
        if left := pair.count_where(pair.beside, lacking):
            raise CannotRepartition(
                f"{pair.database}.{pair.table}: {left:,} rows of {day} are in {pair.beside} alone, and did not "
                "get in; nothing was dropped, run this again"
            )
    return late


def _doubled(pair: Pair, where: str) -> int:
    """How many identities are in the table more than once, and in the old one were not."""
    by = f"WHERE {where} GROUP BY _log, _seq"
    return pair.count_where(
        f"(SELECT _log, _seq FROM {pair.name(pair.table)} {by} HAVING count() > 1)",
        f"(_log, _seq) NOT IN (SELECT _log, _seq FROM {pair.name(pair.beside)} {by} HAVING count() > 1)",
    )
