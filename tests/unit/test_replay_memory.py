"""What the rows of earlier runs take in memory while several tables send theirs: one bound for all of them."""

from __future__ import annotations

import asyncio
import gc
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from recorder.batch import Batch
from recorder.log_losses import Loss
from recorder.logs import Logs
from recorder.replay_memory import ReplayMemory
from recorder.sink.base import ServerInfo
from recorder.table_log import TableLog
from schemas.core.tables import PACK
from wal.options import LogOptions
from wal.replay_rows import Gathering, Piece

MIB = 1_048_576
SLICE_ROWS = 1_000
"""Of a frame that is compressed, so that what is decoded of it is Arrow's."""


class Held:
    """The most Arrow memory there was at once above what there was at first: all of it counts, whoever holds it."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        gc.collect()
        self._base = pa.total_allocated_bytes()
        self.most = 0

    def look(self) -> None:
        self.most = max(self.most, pa.total_allocated_bytes() - self._base)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    """Looks where most is held: at each piece that comes, and when they have been made one and are there still."""
    counting, concat, add = Held(), pa.concat_batches, Gathering.add

    def added(gathering: Gathering, piece: Piece, nbytes: int) -> None:
        add(gathering, piece, nbytes)
        counting.look()

    def looked(batches: list[pa.RecordBatch], *args: Any) -> pa.RecordBatch:
        made = concat(batches, *args)
        counting.look()
        return made

    monkeypatch.setattr(pa, "concat_batches", looked)
    monkeypatch.setattr(Gathering, "add", added)
    return counting


class Account:
    def __init__(self) -> None:
        self.rows = 0

    def replayed(self, rows: int) -> None:
        self.rows += rows

    def damaged(self, losses: Sequence[Loss], *, counted: bool) -> None:
        raise AssertionError("nothing is damaged")


async def nothing() -> None:
    return


def opened(folder: pathlib.Path, names: Sequence[str], bytes_max: int) -> tuple[Logs, list[TableLog]]:
    logs = Logs(folder, LogOptions(), group_ms=0, grace_s=0, replay_bytes_max=bytes_max)
    found = []
    for name in names:
        log = logs.open(PACK.table(name), letters_durable=nothing, gaps_durable=nothing, batch_rows=10_000)
        assert log is not None
        log.done.server_is(ServerInfo("26", "a", 1_000), time.time_ns())
        found.append(log)
    return logs, found


async def closed(logs: Logs, tables: Sequence[TableLog]) -> None:
    for log in tables:
        await log.close()
    await logs.close()


def slice_of(log: TableLog) -> pa.RecordBatch:
    filled = {
        "run_id": pa.array(["r" * 100] * SLICE_ROWS),
        "ts_local": pa.array([time.time_ns()] * SLICE_ROWS),
    }
    columns = [
        filled.get(one.name, pa.nulls(SLICE_ROWS, one.type)).cast(one.type) for one in log.table.schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=log.table.schema)


async def leave(folder: pathlib.Path, slices: dict[str, int], *, sealed_in: int = 0) -> None:
    """A run that had put so many slices on each log, and sealed them in so many batches, and sent none."""
    logs, tables = opened(folder, [*slices], MIB)
    for log in tables:
        rows, many = slice_of(log), slices[log.table.name]
        for _ in range(many):
            log.append(rows)
            log.writer.wait(log.mark, 30)  # a frame each
        (place,), _ = log.take_places()
        for n in range(sealed_in):
            each = many // sealed_in
            start, stop = n * each * SLICE_ROWS, (n + 1) * each * SLICE_ROWS
            part = place._replace(first=start, stop=stop)
            await log.seal(
                Batch(log.table.name, pa.concat_batches([rows] * each), 0, token=f"t{n}", places=(part,))
            )
    await closed(logs, tables)


async def test_all_tables_together_stay_within_one_bound_whoever_is_held(
    tmp_path: pathlib.Path, held: Held
) -> None:
    """Four tables have more than the bound each but one: what all hold at once, under way and read ahead and being
    read, stays within it. One table is held, with a batch under way: the others get through, in order, and then it
    does. Who is left alone has all of the bound."""
    bound = 8 * MIB
    slices = {"orders": 40, "fills": 40, "positions_intraday": 40, "account_state": 1}
    await leave(tmp_path, slices)
    logs, tables = opened(tmp_path, [*slices], bound)
    held.begin()
    begun, all_hold, others_are_through = asyncio.Event(), asyncio.Barrier(len(slices)), asyncio.Event()
    sizes: dict[str, list[int]] = {name: [] for name in slices}

    async def send(log: TableLog) -> None:
        earlier, rows = await log.reading.take_up(Account()), 0
        assert earlier is not None
        while (cut := await earlier.next()) is not None:
            assert [place.first for place in cut.places] == [rows]
            rows += cut.rows
            sizes[log.table.name].append(cut.rows)
            if earlier._ahead is not None:
                await asyncio.wait({earlier._ahead})
            begun.set()
            if len(sizes[log.table.name]) == 1:
                await all_hold.wait()
            if log.table.name == "orders":
                await others_are_through.wait()
            held.look()
            del cut
        assert rows == slices[log.table.name] * SLICE_ROWS

    sending = asyncio.create_task(send(tables[0]))
    await begun.wait()  # it has its share, and no more, before the others have begun
    await asyncio.gather(*map(send, tables[1:]))
    others_are_through.set()
    await sending
    assert bound / 4 < held.most <= bound
    assert sizes["orders"][-2] >= 3 * sizes["orders"][0]
    await closed(logs, tables)


async def test_a_sealed_batch_that_takes_more_than_its_share_goes_whole_and_alone(
    tmp_path: pathlib.Path, held: Held
) -> None:
    """It goes as it was or not at all, so it goes; the one after it is not read before it is done with."""
    await leave(tmp_path, {"orders": 60}, sealed_in=3)
    logs, tables = opened(tmp_path, ["orders"], MIB)
    held.begin()
    earlier, tokens, nbytes = await tables[0].reading.take_up(Account()), list[str](), 0
    assert earlier is not None
    while (cut := await earlier.next()) is not None:
        (batch,) = cut.batches
        tokens.append(batch.token)
        assert (batch.rows, cut.sent_before) == (20 * SLICE_ROWS, True)
        nbytes = batch.nbytes
        await asyncio.sleep(0.05)  # time enough to read one
        del cut, batch
    assert tokens == ["t0", "t1", "t2"]
    assert nbytes > MIB / 4
    assert held.most < 2.5 * nbytes
    await closed(logs, tables)


def test_shares_only_grow() -> None:
    """What was taken within a share stays within it, and all shares are within the bound."""
    memory = ReplayMemory(1_200)
    for name in "abc":
        memory.join(name)
    assert memory.batch_bytes == 100
    memory.join("a")
    assert memory.batch_bytes == 100
    memory.leave("a")
    memory.leave("b")
    memory.leave("c")
    assert memory.batch_bytes == 300
