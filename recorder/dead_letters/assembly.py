"""Puts a retry together: what makes rows by the settings in force, which letters are meant, what tables can take."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import entry_points

from recorder.dead_letters.examine import Examiner
from recorder.dead_letters.fitness import unfit_tables
from recorder.dead_letters.letter import Identity, Letter
from recorder.dead_letters.origin import OfMessage, origin_of
from recorder.dead_letters.rebuild import Rebuilder
from recorder.dead_letters.store import Filter, Store
from recorder.errors import SettingsError
from recorder.ingest.normalisers import GROUP, open_normaliser
from recorder.normalise.base import Normaliser
from recorder.normalise.order_ids import OrderIds
from recorder.normalise.order_ids_load import load_order_ids
from recorder.packs import packs_of
from recorder.schema_start import SinkExecutor
from recorder.service.topics import TopicMap
from recorder.settings import Settings
from recorder.sink.base import Sink
from schemas.executor import SqlExecutor
from schemas.pack import Pack

ORDERS = "orders"


@dataclass
class Chosen:
    """Letters, oldest first, without their payloads; how many of those that fit are closed for certain, how many of
    the names fit nothing, and whether there are more than were wanted."""

    letters: list[Letter] = field(default_factory=list)
    closed: int = 0
    missing: tuple[Identity, ...] = ()
    cut: bool = False


def rebuilder_of(settings: Settings, packs: Sequence[Pack] | None = None) -> Rebuilder:
    """What makes rows of letters by these settings; `packs` stand for those that they name.

    Raises:
        SettingsError: they cannot be used.
    """
    packs = packs_of(settings, packs)
    tables = {table.name: table for pack in packs for table in pack.tables}
    resolved = {name: settings.for_table(table) for name, table in tables.items()}
    topics = TopicMap(settings.topics)
    topics.check(tables, (entry.name for entry in entry_points(group=GROUP)))
    for name in topics.normalisers:
        _open(settings, name)
    return Rebuilder(
        tables,
        topics,
        partial(_open, settings),
        OrderIds(settings.order_ids_max),
        off=frozenset(name for name, table in resolved.items() if not table.enabled),
        ignore_unknown=frozenset(
            name for name, table in resolved.items() if table.unknown_fields == "ignore"
        ),
    )


def _open(settings: Settings, name: str) -> Normaliser:
    try:
        return open_normaliser(name, settings.normalisers.of(name))
    except Exception as error:
        raise SettingsError(f"normaliser {name}: {error}") from error


async def choose(store: Store, which: Filter, limit: int) -> Chosen:
    """The letters that fit and are not known to be closed, at most `limit` of them."""
    chosen = Chosen()
    seen: set[Identity] = set()
    async for page in store.pages(which, newest_first=False):
        if which.ids:
            seen.update(letter.id for letter in page)
        closed = await store.closed(page)
        chosen.closed += len(closed)
        chosen.letters += [letter for letter in page if letter.id not in closed]
        if len(chosen.letters) > limit:
            chosen.letters, chosen.cut = chosen.letters[:limit], True
            return chosen
    chosen.missing = tuple(name for name in which.ids if name not in seen)
    return chosen


def examiner_on(executor: SqlExecutor, database: str, store: Store, rebuilder: Rebuilder) -> Examiner:
    """An examiner that knows which tables take rows now. Blocks."""
    return Examiner(store, rebuilder, unfit_tables(executor, database, rebuilder.tables.values()))


async def examiner_of(
    sink: Sink, settings: Settings, store: Store, rebuilder: Rebuilder, letters: Sequence[Letter]
) -> Examiner:
    """The same through a sink. Where messages are among the letters it knows the orders from before, as a service."""
    if ORDERS in rebuilder.tables and any(isinstance(origin_of(letter), OfMessage) for letter in letters):
        await load_order_ids(sink, settings.database, rebuilder.order_ids)
    executor = SinkExecutor(sink, asyncio.get_running_loop())
    return await asyncio.to_thread(examiner_on, executor, settings.database, store, rebuilder)
