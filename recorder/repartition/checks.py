"""What keeps a table's partitions from being changed: whatever would be lost with the old table, or is in the way.

All of it is looked at before anything is changed; nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Iterable

from recorder.repartition.errors import CannotRepartition
from recorder.repartition.pair import Pair
from recorder.repartition.there import There
from schemas.render import is_cut_by

ROOM = 1.1
"""The copy may be larger than the table by this factor, until it is merged."""


def check_tables(pair: Pair, there: There, beside: There | None) -> None:
    """Both are what they should be.

    Raises:
        CannotRepartition: the table's engine, key or database is another; rows go elsewhere from it, or are not all
            shown; or what is beside it was not made by a run.
    """
    live = there.live
    if live.engine != "MergeTree":
        raise CannotRepartition(
            f"{pair.database}.{pair.table}: has the engine {live.engine}, and only a MergeTree's partitions are "
            "changed; nothing was done"
        )
    if not is_cut_by(live.partition_key, pair.policy):
        raise CannotRepartition(
            f"{pair.database}.{pair.table}: its partition key is {live.partition_key or 'none'}, expected "
            f"{pair.wanted} but for the symbol groups; only these are changed, so drain and rebuild it"
        )
    if not there.number:
        raise CannotRepartition(
            f"database {pair.database}: its tables cannot swap names in one step; expected the engine Atomic"
        )
    if live.views:
        raise CannotRepartition(
            f"{pair.database}.{pair.table}: rows inserted into it go through the view {live.views[0]}; drop it, "
            "or make it a refreshable one, and run this again"
        )
    if live.row_policies:
        raise CannotRepartition(
            f"{pair.database}.{pair.table}: has the row policy {live.row_policies[0]}, and rows that are not "
            "shown would not be copied; drop it, or grant this user all rows in another way, and run this again"
        )
    if beside is not None and beside.mark.copy_of != there.number and there.mark.copy_of != beside.number:
        raise CannotRepartition(
            f"{pair.database}.{pair.beside}: is there and was not made for the {pair.table} that is there now; "
            "look what it is, rename or drop it, and run this again"
        )


def check_parts(pair: Pair, old: str) -> None:
    """What goes with the old table at the end is nothing that was not copied.

    Raises:
        CannotRepartition: it has detached parts, or partitions whose ids are no days.
    """
    of = {"db": pair.database, "table": old}
    where = "WHERE database = {db:String} AND table = {table:String}"
    (detached,) = pair.executor.query(f"SELECT count(), min(name) FROM system.detached_parts {where}", of)
    if int(detached[0]):
        raise CannotRepartition(
            f"{pair.database}.{old}: has {int(detached[0]):,} detached parts, such as {detached[1]}, which would "
            "go with the table; attach them (ALTER TABLE … ATTACH PART), move them elsewhere or drop them (… DROP "
            "DETACHED PART), and run this again"
        )
    strange = pair.executor.query(
        f"SELECT partition_id FROM system.parts {where} AND active "
        "AND NOT match(partition_id, '^[0-9]{6,8}(-[0-9]+)?$') LIMIT 1",
        of,
    )
    if strange:
        raise CannotRepartition(
            f"{pair.database}.{old}: has the partition {strange[0][0]}, expected ids such as 20240808 or "
            "20240808-3; another key than symbol groups is not changed, so drain and rebuild it"
        )


def check_rows_shown(pair: Pair, days: Iterable[str]) -> None:
    """Rows that this user is not shown would not be copied, and then go with the old table.

    Raises:
        CannotRepartition: a day's parts have more rows than a query of the day.
    """
    for day in days:
        (sums,) = pair.executor.query(
            "SELECT sum(if(has_lightweight_delete, 0, rows)) FROM system.parts WHERE database = {db:String} "
            "AND table = {table:String} AND splitByChar('-', partition_id)[1] = {day:String} AND active",
            {"db": pair.database, "table": pair.table, "day": day},
        )
        if int(sums[0]) > (shown := pair.digest(pair.table, day, {"_seq": "UInt64"}).rows):
            raise CannotRepartition(
                f"{pair.database}.{pair.table}: the parts of {day} have {int(sums[0]):,} rows, and this "
                f"database user is shown {shown:,}; nothing was done. Is there a filter in the user's settings, or "
                "were rows deleted as patches (ALTER TABLE … APPLY PATCHES)?"
            )


def check_room(pair: Pair, bytes_on_disk: int) -> None:
    """The disk holds both tables for a while; `bytes_on_disk` are those of the table.

    Raises:
        CannotRepartition: it has no room for what is not copied yet.
    """
    (sizes,) = pair.executor.query(
        "SELECT sum(bytes_on_disk), (SELECT sum(toFloat64(free_space)) FROM system.disks WHERE name IN ("
        "SELECT arrayJoin(disks) FROM system.storage_policies WHERE policy_name IN (SELECT storage_policy "
        "FROM system.tables WHERE database = {db:String} AND name = {table:String}))) FROM system.parts "
        "WHERE database = {db:String} AND table = {beside:String} AND active",
        {"db": pair.database, "table": pair.table, "beside": pair.beside},
    )
    done, free = map(int, sizes)
    need = round((bytes_on_disk - done) * ROOM)
    if need > free:
        raise CannotRepartition(
            f"{pair.database}.{pair.table}: both tables need {need:,} bytes more for a while, and the disk has "
            f"{free:,} free; make room and run this again"
        )
