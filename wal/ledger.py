"""What a reader of a log has met of each epoch, and what that leaves to be told. Pure.

The rows that all damage together is said to cost are exactly those that were known to exist and were not found:
rows of frames whose headers are sound belong to the frame's damage, all others to `MISSING`. What looked lost and is
found later (written again after a write that failed) is not lost.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from wal.damage import Damage, Harm
from wal.places import PlaceSet, Range


class Ledger:
    """See the module. Segments are entered in order, and what is in them in the order in which it stands there."""

    def __init__(self) -> None:
        self._met = PlaceSet()
        self._next: dict[int, int] = {}
        self._epoch = 0
        self._told: list[Damage] = []
        self._lost: dict[int, Range] = {}
        self._jumps: list[tuple[str, int, Range]] = []
        self._repeated: dict[tuple[str, int], Damage] = {}
        self._repeated_rows: dict[tuple[str, int], int] = {}
        self._open: list[int] = []

    # -- what is met ---------------------------------------------------------------------------------------------

    def enter(self, epoch: int, first: int, file: Path, *, purged: bool = False) -> None:
        """A segment begins. `purged`: what lies between it and the one before was removed because it was settled."""
        if purged and epoch in self._next:
            self._met.add(Range(epoch, self._next[epoch], first))
            self._next[epoch] = max(first, self._next[epoch])
        self._next.setdefault(epoch, first)
        self.reach(epoch, first, file, 0)

    def reach(self, epoch: int, sequence: int, file: Path, offset: int) -> None:
        """The sequence goes on from here: all before it was written once."""
        if self._open:
            self._resolve(epoch)
        self._epoch = epoch
        expected = self._next.setdefault(epoch, sequence)
        if sequence > expected:
            self._jumps.append((str(file), offset, Range(epoch, expected, sequence)))
            self._next[epoch] = sequence

    def meet(self, rows: Range, file: Path, offset: int, nbytes: int) -> list[Range]:
        """Sound rows; those of them that are met for the first time."""
        epoch, first, stop = rows
        self.reach(epoch, first, file, offset)
        if first == stop:
            return []
        # Nothing was met beyond what is expected next.
        known = self._met.common_of(rows) if first < self._next[epoch] else []
        if stop > self._next[epoch]:
            self._next[epoch] = stop
        if not known:
            self._met.add(rows)
            return [rows]
        fresh = self._met.missing_of(rows)
        self._met.add(rows)
        self._repeat(rows, sum(part.rows for part in known), file, offset, nbytes)
        return fresh

    def _repeat(self, rows: Range, repeated: int, file: Path, offset: int, nbytes: int) -> None:
        key = (str(file), rows.epoch)
        before = self._repeated.get(key)
        if before is None:
            before = Damage(Harm.REPEATED, str(file), offset, 0, rows.epoch, rows.first)
        self._repeated[key] = replace(before, nbytes=before.nbytes + nbytes)
        self._repeated_rows[key] = self._repeated_rows.get(key, 0) + repeated

    # -- what is wrong -------------------------------------------------------------------------------------------

    def tell(self, damage: Damage) -> None:
        """Something that costs no rows, or as many as it says."""
        self._told.append(damage)

    def tell_lost(self, damage: Damage, rows: Range) -> None:
        """A frame whose rows are known and cannot be had, unless they are met elsewhere."""
        self.reach(rows.epoch, rows.first, Path(damage.file), damage.offset)
        self._next[rows.epoch] = max(rows.stop, self._next[rows.epoch])
        self._lost[len(self._told)] = rows
        self._told.append(replace(damage, epoch=rows.epoch, first=rows.first))

    def tell_unknown(self, damage: Damage) -> None:
        """Something that may cost rows: how many shows only where the same epoch goes on after it."""
        self._open.append(len(self._told))
        epoch = damage.epoch or self._epoch
        self._told.append(replace(damage, epoch=epoch, first=self._next.get(epoch, 0), rows=None))

    def unmeet(self, damage: Damage, rows: Range) -> None:
        """Rows that were met turn out to be none."""
        self._met.remove(rows)
        self.tell_lost(damage, rows)

    def _resolve(self, epoch: int) -> None:
        for index in self._open:
            if self._told[index].epoch == epoch:
                # What it cost is told as missing, if it was any.
                self._told[index] = replace(self._told[index], rows=0)
        self._open.clear()

    @property
    def damage(self) -> list[Damage]:
        """All of it, as known by now."""
        accounted = self._met.copy()
        found = [
            replace(damage, rows=accounted.add(self._lost[index])) if index in self._lost else damage
            for index, damage in enumerate(self._told)
        ]
        found += [
            replace(damage, detail=f"{self._repeated_rows[key]} rows")
            for key, damage in self._repeated.items()
        ]
        for file, offset, jump in self._jumps:
            for part in accounted.missing_of(jump):
                accounted.add(part)
                found.append(Damage(Harm.MISSING, file, offset, 0, part.epoch, part.first, part.rows))
        return found
