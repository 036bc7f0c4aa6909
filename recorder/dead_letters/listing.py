"""The dead letters to show: the newest that fit, open or all, and how many there are by table and reason.

What a letter of a row needs is asked of the database alone. A message or a line of a file is read and made into rows,
because only so it is known which rows are meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from recorder.dead_letters.examine import Examiner, State
from recorder.dead_letters.letter import Identity, Letter
from recorder.dead_letters.origin import OfRow, origin_of
from recorder.dead_letters.store import Filter, Group, Store

MOST_SCANNED = 200_000
"""Letters looked through for those that are open."""


@dataclass(frozen=True)
class Listed:
    """A letter and whether it is open."""

    letter: Letter
    open: bool


@dataclass(frozen=True)
class Listing:
    """Letters, newest first. `cut` says that more might fit: the limit, or `MOST_SCANNED`, was reached."""

    letters: Sequence[Listed]
    cut: bool = False


async def listing(store: Store, examiner: Examiner, which: Filter, *, open_only: bool, limit: int) -> Listing:
    """The newest letters that fit, at most `limit`."""
    found: list[Listed] = []
    scanned = 0
    async for page in store.pages(which):
        closed = await _closed(store, examiner, page)
        for letter in page:
            if open_only and letter.id in closed:
                continue
            if len(found) == limit:
                return Listing(found, cut=True)
            found.append(Listed(letter, letter.id not in closed))
        scanned += len(page)
        if scanned >= MOST_SCANNED:
            return Listing(found, cut=True)
    return Listing(found)


async def summary(store: Store, examiner: Examiner, which: Filter) -> list[Group]:
    """How many letters there are, and how many are open, by table and reason."""
    groups = {(group.table, group.reason): group for group in await store.summary(which)}
    async for page in store.pages(replace(which, of_rows=False)):
        closed = await _closed(store, examiner, page)
        for letter in page:
            key = letter.table, letter.reason
            before = groups.get(key)
            one = Group(*key, 1, letter.id not in closed, letter.ts_local, letter.ts_local)
            groups[key] = one if before is None else _together(before, one)
    return sorted(groups.values(), key=lambda group: (-group.open, -group.letters, group.table, group.reason))


async def _closed(store: Store, examiner: Examiner, letters: Iterable[Letter]) -> set[Identity]:
    letters = list(letters)
    closed = await store.closed(letters)
    others = [letter for letter in letters if not isinstance(origin_of(letter), OfRow)]
    async for part in store.read(others):
        closed |= {found.letter.id for found in await examiner.examine(part) if found.state is State.CLOSED}
    return closed


def _together(a: Group, b: Group) -> Group:
    return replace(
        a,
        letters=a.letters + b.letters,
        open=a.open + b.open,
        first_ns=min(a.first_ns, b.first_ns),
        last_ns=max(a.last_ns, b.last_ns),
    )
