"""One table's way to the partition key that its policy says: what there is to do, and doing it step by step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from recorder.repartition.alike import Alike
from recorder.repartition.checks import check_parts, check_tables
from recorder.repartition.copy import copy
from recorder.repartition.late import Late, finish
from recorder.repartition.pair import Pair
from recorder.repartition.there import There, read_both
from recorder.repartition.writers import QUIET_S, Writers
from schemas.executor import SqlExecutor
from schemas.policy import TablePolicy


@dataclass(frozen=True)
class Look:
    """A table as it is, and what is to become of it.

    `present` and `wanted` are partition keys. `unfinished`: an earlier run was interrupted, and this one goes on.
    `late` of it: the names are swapped already.
    """

    table: str
    present: str
    wanted: str
    rows: int
    bytes_on_disk: int
    partitions: int
    unfinished: bool = False
    late: bool = False

    @property
    def due(self) -> bool:
        """Whether there is something to do."""
        return self.unfinished or self.present != self.wanted


@dataclass(frozen=True)
class Moved:
    """What was done: rows that were copied by this run, and those of them that came meanwhile.

    `doubled` of these are in the table twice, since their recorder sent them again in that moment.
    """

    table: str
    copied: int
    late: int
    doubled: int = 0


class Repartition:
    """One table's way to the partition key that its policy says; `table` is the table or its tier.

    `renew` is called before each statement that changes something, and raises where the lock is lost. `on_rows` is told
    of rows that are compared or copied. `embedded`: nobody else can write to the database.
    """

    def __init__(
        self,
        executor: SqlExecutor,
        database: str,
        table: str,
        policy: TablePolicy,
        *,
        renew: Callable[[], None] = lambda: None,
        on_rows: Callable[[int], None] = lambda _: None,
        embedded: bool = False,
        quiet_s: float = QUIET_S,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._pair = Pair(executor, database, table, policy, renew)
        self._writers = Writers(self._pair, embedded=embedded, quiet_s=quiet_s, sleep=sleep)
        self._on_rows = on_rows

    def look(self) -> Look | None:
        """What there is to do; None where there is no such table. Changes nothing.

        Raises:
            CannotRepartition: the table cannot be parted so, or there is something else of the other table's name.
        """
        there, beside = read_both(self._pair)
        return None if there is None else self._look(there, beside)

    def _look(self, there: There, beside: There | None) -> Look:
        pair = self._pair
        late = beside is not None and there.mark.copy_of == beside.number
        if beside is not None or there.live.partition_key != pair.wanted:
            check_tables(pair, there, beside)
            check_parts(pair, pair.beside if late else pair.table)
        (sums,) = pair.executor.query(
            "SELECT sum(rows), sum(bytes_on_disk), uniqExact(partition_id) FROM system.parts "
            "WHERE database = {db:String} AND table = {table:String} AND active",
            {"db": pair.database, "table": pair.table},
        )
        rows, bytes_on_disk, partitions = map(int, sums)
        return Look(
            table=pair.table,
            present=there.live.partition_key,
            wanted=pair.wanted,
            rows=rows,
            bytes_on_disk=bytes_on_disk,
            partitions=partitions,
            unfinished=beside is not None or bool(there.mark.copy_of),
            late=late,
        )

    def run(self) -> Moved:
        """Do it; where an earlier run was interrupted, go on.

        Raises:
            CannotRepartition: as `look`; rows come while they are copied; or the disk has no room for both tables.
        """
        pair = self._pair
        self._writers.end_earlier()
        copied, late, alike = 0, Late(), Alike(pair)
        while True:
            there, beside = read_both(pair)
            if there is None:
                break
            look = self._look(there, beside)
            if beside is not None and look.late:
                late += finish(pair, there, beside, self._writers, alike)
            elif look.present == look.wanted:
                if beside is None:
                    break
                pair.drop_beside()  # it was to have other groups, and is not to have them any more
            else:
                done = copy(
                    pair,
                    there,
                    beside,
                    self._writers,
                    bytes_on_disk=look.bytes_on_disk,
                    on_rows=self._on_rows,
                )
                copied, alike = copied + done.rows, done.alike
        if there is not None and there.mark.copy_of:
            pair.set_comment(there.mark.comment, pair.table)
        return Moved(pair.table, copied + late.rows, late.rows, late.doubled)
