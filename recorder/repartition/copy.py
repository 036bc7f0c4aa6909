"""Copies a table's days into the one beside it until both have the same rows, then swaps their names.

Goes on with what an earlier run copied. Rows that come meanwhile are copied too, a few times over; what comes between
the last comparison and the swap is for `late`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from recorder.repartition.alike import Alike
from recorder.repartition.checks import check_room, check_rows_shown
from recorder.repartition.errors import CannotRepartition
from recorder.repartition.pair import DAY, Pair
from recorder.repartition.there import Mark, There, read_both
from recorder.repartition.writers import Writers
from schemas.live import ttl_of
from schemas.quote import quote_name, quote_text

SLICE_ROWS = 10_000_000
"""A day of more rows is copied in several inserts, by its hours."""
ROUNDS = 4
"""How often days are compared before whoever writes to them is told of."""
_HOURS = 24


@dataclass(frozen=True)
class Copied:
    """Rows that were copied, and what was found alike before the names were swapped."""

    rows: int
    alike: Alike


def copy(
    pair: Pair,
    there: There,
    beside: There | None,
    writers: Writers,
    *,
    bytes_on_disk: int,
    on_rows: Callable[[int], None],
) -> Copied:
    """Copy the table, of so many bytes, and swap the names.

    Raises:
        CannotRepartition: as `checks` says; somebody writes to the table, or alters it; or the disk has no room.
    """
    if there.mark.copy_of:
        pair.set_comment(there.mark.comment, pair.table)
    if beside is not None and not _is_like(pair, beside, there):
        pair.drop_beside()  # another number of groups is wanted now, or the table was migrated
        beside = None
    check_room(pair, bytes_on_disk)
    writers.check_quiet()
    if beside is None:
        _make(pair, there)
    check_rows_shown(pair, pair.days())
    alike = Alike(pair, on_rows)
    rows = _copy_days(pair, alike, there.stored)
    _swap(pair, there, alike)
    return Copied(rows, alike)


def _make(pair: Pair, there: There) -> None:
    """Make the table beside, marked. It syncs: the old table's rows are on disk, and go when these are there."""
    mark = Mark(there.mark.comment, there.number)
    pair.command(
        f"CREATE TABLE {pair.name(pair.beside)} AS {pair.name(pair.table)} ENGINE = {_engine(pair, there)} "
        f"COMMENT {quote_text(mark.text())}"
    )
    made = read_both(pair).beside
    if made is None or made.live.partition_key != pair.wanted:
        raise CannotRepartition(
            f"{pair.database}.{pair.beside}: the server made it with the partition key "
            f"{made.live.partition_key if made else 'of no table'}, expected {pair.wanted}; nothing was copied"
        )


def _is_like(pair: Pair, beside: There, there: There) -> bool:
    """Whether the table beside is as one would be made now: a migration may have changed more than columns."""
    return (beside.inside, beside.engine) == (there.inside, _engine(pair, there))


def _engine(pair: Pair, there: There) -> str:
    engine = there.engine
    if ttl := ttl_of(engine):
        engine = engine.replace(f" TTL {ttl}", "", 1)  # nothing may go from it while rows are compared
    engine = engine.replace(f"PARTITION BY {there.live.partition_key} ", f"PARTITION BY {pair.wanted} ", 1)
    if lacking := there.unsynced:
        engine += f"{',' if ' SETTINGS ' in engine else ' SETTINGS'} " + ", ".join(
            f"{name} = 1" for name in lacking
        )
    return engine


def _copy_days(pair: Pair, alike: Alike, columns: Mapping[str, str]) -> int:
    """Copy what differs until nothing does; the number of rows copied."""
    rows = 0
    for _ in range(ROUNDS):
        changed = [day for day in pair.days() if not alike.find(day, columns)]
        if not changed:
            return rows
        rows += sum(_copy_day(pair, day, columns) for day in changed)
    raise CannotRepartition(
        f"{pair.database}.{pair.table}: rows came to {', '.join(changed[:3])} each time that it was copied; "
        "stop whoever writes to it and run this again, it goes on from here"
    )


def _copy_day(pair: Pair, day: str, columns: Mapping[str, str]) -> int:
    """Have the table beside hold the day's rows as they are now; what it had of the day goes first."""
    pair.drop_day(day)
    rows = pair.count(pair.table, day)
    slices = min(_HOURS, -(-rows // SLICE_ROWS))
    for number in range(slices):
        part = ""
        if slices > 1:
            hour = f"toHour({quote_name(pair.policy.partition_column)})"
            part = f" AND intDiv({hour} * {slices}, {_HOURS}) = {number}"
        pair.insert(pair.beside, pair.table, f"{DAY} = {quote_text(day)}{part}", columns)
    return rows


def _swap(pair: Pair, there: There, alike: Alike) -> None:
    # Whoever goes on from here must not take what retention dropped since for rows that came late.
    days = {day: sums for day, sums in alike.digests.items() if sums.rows}
    pair.set_comment(Mark(there.mark.comment, there.number, days).text(), pair.beside)
    now, beside = read_both(pair)
    if now is None or beside is None or not _is_like(pair, beside, now):
        raise CannotRepartition(
            f"{pair.database}.{pair.table}: was altered while it was copied; run this again, it begins anew"
        )
    pair.command(f"EXCHANGE TABLES {pair.name(pair.table)} AND {pair.name(pair.beside)}")
