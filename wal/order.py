"""Which opening of a log came before which, over both of its folders. Pure.

In one folder numbers say it: whoever opens the log takes higher ones than it finds. Of two folders one may have been
missing at an opening, which then took numbers that the missing one has, too. Such openings are in the order that a
third one proves, which shared a folder with each; else in that of their segments' times. Within an opening numbers
grow over both folders.
"""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from heapq import heapify, heappop, heappush
from pathlib import Path

from wal.format import Preamble


def openings(segments: Iterable[tuple[int, Path, Preamble]]) -> dict[int, int]:
    """Of each epoch, the how-manieth opening it was among those that have segments here: number by name, file,
    preamble, in any order.
    """
    first_in: dict[Path, dict[int, int]] = {}
    made_ns: dict[int, int] = {}
    lowest: dict[int, int] = {}
    for number, path, preamble in segments:
        epoch = preamble.epoch
        there = first_in.setdefault(path.parent, {})
        there[epoch] = min(number, there.get(epoch, number))
        lowest[epoch] = min(number, lowest.get(epoch, number))
        made_ns[epoch] = min(preamble.created_ns, made_ns.get(epoch, preamble.created_ns))
    after: TopologicalSorter[int] = TopologicalSorter()
    for there in first_in.values():
        before: list[int] = []
        for epoch in sorted(there, key=lambda one: there[one]):
            after.add(epoch, *before)
            before = [epoch]
    try:
        after.prepare()
    except CycleError:  # somebody put files there by hand, from one folder to the other
        return {epoch: rank for rank, epoch in enumerate(sorted(lowest, key=lambda one: lowest[one]))}
    ranks: dict[int, int] = {}
    ready = [(made_ns[epoch], epoch) for epoch in after.get_ready()]
    heapify(ready)
    while ready:
        _, epoch = heappop(ready)
        ranks[epoch] = len(ranks)
        after.done(epoch)
        for following in after.get_ready():
            heappush(ready, (made_ns[following], following))
    return ranks
