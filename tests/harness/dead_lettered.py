"""Dead letters for tests, made by a real recorder, and retried through a real sink."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Sequence
from typing import Any

from recorder import Recorder, Settings
from recorder.dead_letters.assembly import choose, examiner_of, rebuilder_of
from recorder.dead_letters.examine import Examined
from recorder.dead_letters.letter import Letter
from recorder.dead_letters.listing import Listing, listing
from recorder.dead_letters.retry import Retry, Told
from recorder.dead_letters.store import Filter, Store
from recorder.sink.base import Sink
from recorder.sink.open import open_sink
from schemas.columns import Name, TimeNs, UInt32, UInt64
from schemas.core.tables import PACK as CORE
from schemas.pack import Pack
from schemas.policy import Durability, Overflow, Partition, TablePolicy
from schemas.table import Row, table

LIMIT = 100_000

THINGS_SQL = """
CREATE TABLE IF NOT EXISTS {{db}}.things {{on_cluster}}
(ts_local DateTime64(9, 'UTC'), run_id LowCardinality(String), count UInt32, _log UInt64, _seq UInt64)
ENGINE = {{engine}} PARTITION BY {{partition}} ORDER BY ts_local {{ttl}} SETTINGS {{settings}};
"""
WIDER_SQL = """
ALTER TABLE {{db}}.things {{on_cluster}} MODIFY COLUMN count UInt64;
ALTER TABLE {{db}}.things {{on_cluster}} ADD COLUMN IF NOT EXISTS label LowCardinality(String) AFTER count;
"""


class Thing(Row, kw_only=True):
    """A thing."""

    ts_local: TimeNs = 0
    """When."""
    run_id: Name = ""
    """Run."""
    count: UInt32
    """How many."""


class WiderThing(Row, kw_only=True):
    """A thing, later."""

    ts_local: TimeNs = 0
    """When."""
    run_id: Name = ""
    """Run."""
    count: UInt64
    """How many."""
    label: Name = ""
    """What it is called."""


def things_pack(folder: pathlib.Path, *, wider: bool) -> tuple[Pack, ...]:
    """The core pack, and one with a table `things`: as it was, or after its second migration."""
    folder.mkdir(exist_ok=True)
    (folder / "0001_things.sql").write_text(THINGS_SQL)
    if wider:
        (folder / "0002_wider.sql").write_text(WIDER_SQL)
    policy = TablePolicy(
        durability=Durability.WAL, overflow=Overflow.SPILL, partition=Partition.DAY, order_by=("ts_local",)
    )
    return CORE, Pack("mine", folder, (table("things", WiderThing if wider else Thing, policy),))


def recorded(
    settings: Settings, *rows: tuple[str, Any], packs: Sequence[Pack] | None = None, timeout_s: float = 60
) -> None:
    """Record rows, each with its table, and close."""
    with Recorder(settings, packs=packs) as recorder:
        for name, row in rows:
            recorder.record(name, row)
        recorder.flush(timeout_s=timeout_s)


class Desk:
    """What a person asks of dead letters, on one sink that is started and closed for each question."""

    def __init__(self, settings: Settings, packs: Sequence[Pack] | None = None):
        self.settings = settings
        self.packs = packs

    def retry(self, which: Filter | None = None, *, sink: Sink | None = None) -> Told:
        """Retry what fits."""
        return asyncio.run(self.retry_now(which or Filter(), sink))

    def examine(self, which: Filter | None = None) -> list[Examined]:
        """What a retry would do with each letter that fits, oldest first."""
        return asyncio.run(self._examine(which or Filter()))

    def list(self, which: Filter | None = None, *, open_only: bool = True, limit: int = LIMIT) -> Listing:
        """The letters as `ls` shows them."""
        return asyncio.run(self._list(which or Filter(), open_only, limit))

    def open(self) -> list[Letter]:
        """Those that are open, newest first."""
        return [listed.letter for listed in self.list().letters]

    async def retry_now(self, which: Filter, given: Sink | None) -> Told:
        """The same, where a loop runs already."""
        sink = given if given is not None else open_sink(self.settings)
        await sink.start()
        try:
            store = Store(sink.query_arrow, self.settings.database)
            rebuilder = rebuilder_of(self.settings, self.packs)
            chosen = await choose(store, which, LIMIT)
            examiner = await examiner_of(sink, self.settings, store, rebuilder, chosen.letters)
            retry = Retry(sink, self.settings, store, examiner)
            await retry.run(chosen.letters)
            return retry.told
        finally:
            await sink.close()

    async def _examine(self, which: Filter) -> list[Examined]:
        sink = open_sink(self.settings)
        await sink.start()
        try:
            store = Store(sink.query_arrow, self.settings.database)
            rebuilder = rebuilder_of(self.settings, self.packs)
            letters = [letter async for page in store.pages(which, newest_first=False) for letter in page]
            examiner = await examiner_of(sink, self.settings, store, rebuilder, letters)
            return [one async for part in store.read(letters) for one in await examiner.examine(part)]
        finally:
            await sink.close()

    async def _list(self, which: Filter, open_only: bool, limit: int) -> Listing:
        sink = open_sink(self.settings)
        await sink.start()
        try:
            store = Store(sink.query_arrow, self.settings.database)
            rebuilder = rebuilder_of(self.settings, self.packs)
            examiner = await examiner_of(sink, self.settings, store, rebuilder, ())
            return await listing(store, examiner, which, open_only=open_only, limit=limit)
        finally:
            await sink.close()
