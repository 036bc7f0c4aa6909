"""Having rows sent again that are done: what that comes to, as a value. Pure.

Only rows that the log still has, and that the checkpoint calls settled or confirmed, are opened again; the others are
open already, or cannot be had any more. What is opened is looked up row by row before it is sent, and what is missing
goes under a token of its own. So the seals that these rows were sent under are taken back first, on the log: under a
seal they would be sent whole or not at all, and a server that still knows its token would swallow them.

A seal is taken back only if all of its rows are done. Of any other an insert may still be under way: it stays, and its
rows go as they were frozen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from wal.places import PlaceSet, Range
from wal.seals import Seal
from wal.settled import Checkpoint


@dataclass(frozen=True)
class Requeue:
    """What was asked for, in parts that share no row, and what is to be done for it: `voids`, then `checkpoint`."""

    opened: tuple[Range, ...]
    """Done, and in the log: to be sent again."""
    open: tuple[Range, ...]
    """In the log and not done: sent anyway."""
    purged: tuple[Range, ...]
    """Done, and not in the log any more."""
    missing: tuple[Range, ...]
    """Not in the log, and nothing says that they were ever done: lost, or never there."""
    voids: tuple[str, ...]
    """Tokens that stand for nothing any more. They are to be on disk before the checkpoint is."""
    checkpoint: Checkpoint
    """That of the log when all is done."""


def requeue(
    checkpoint: Checkpoint, present: PlaceSet, seals: Iterable[Seal], asked: Iterable[Range]
) -> Requeue:
    """What it comes to that these rows are sent again. `present` can be read; `seals` are those that hold."""
    done = checkpoint.done()
    opened, open_, purged, missing = PlaceSet(), PlaceSet(), PlaceSet(), PlaceSet()
    for one in PlaceSet(asked):
        for there in present.common_of(one):
            opened.update(done.common_of(there))
            open_.update(done.missing_of(there))
        for absent in present.missing_of(one):
            purged.update(done.common_of(absent))
            missing.update(done.missing_of(absent))
    voids = [
        seal.token
        for seal in seals
        if any(opened.common_of(one) for one in seal.ranges) and all(map(done.covers, seal.ranges))
    ]
    return Requeue(
        tuple(opened), tuple(open_), tuple(purged), tuple(missing), tuple(voids), checkpoint.reopen(opened)
    )
