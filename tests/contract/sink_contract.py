"""What every sink must do. A test module makes a subclass and gives it a `sink` fixture: started, on a fresh database.

Each test states a law that the flush worker builds on.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any

import pyarrow as pa
import pytest
from harness.sink_tables import DAY_NS, START_NS, WIDE_COLUMNS, create, plain, wide

from recorder.batch import Batch
from recorder.sink.base import Sink
from recorder.sink.errors import DataError, HoldError, InsertStillRunning, InsertTimeout, Retryable, SinkError

# Four sleeping columns, each its own expression: a real insert that runs for eleven seconds and can be killed.
SLOW = "".join(f", z{n} UInt8 MATERIALIZED sleep({3 - n / 10})" for n in range(4))
# The engine itself makes an insert wait for six seconds, and no kill ends that wait.
STUBBORN = ", parts_to_delay_insert = 1, min_delay_to_insert_ms = 6000, max_delay_to_insert = 6"


async def count(sink: Sink, table: str) -> int:
    return int((await sink.query(f"SELECT count() FROM {table}"))[0][0])


class SinkContract:
    """The laws."""

    async def test_every_kind_of_column_comes_back_exactly(self, sink: Sink) -> None:
        """What an Arrow batch says is what the table says: every byte, digit, nanosecond and null."""
        statement, batch = wide("wide")
        await sink.command(statement)
        await sink.insert(batch, timeout_s=30)
        stored = await sink.query_arrow("SELECT * FROM wide ORDER BY _seq")
        for name, (_, arrow, _) in WIDE_COLUMNS.items():
            sent = batch.data[name]
            got = stored[name].combine_chunks()
            if pa.types.is_string(arrow):
                sent = sent.cast(pa.binary())
            if pa.types.is_map(arrow):
                pairs = [[(key.decode(), value.decode()) for key, value in row] for row in got.to_pylist()]
                assert pairs == sent.to_pylist(), name
            elif pa.types.is_timestamp(arrow):
                assert got.cast(pa.int64()).to_pylist() == sent.cast(pa.int64()).to_pylist(), name
            elif pa.types.is_boolean(arrow):
                assert [
                    None if value is None else bool(value) for value in got.to_pylist()
                ] == sent.to_pylist()
            else:
                assert got.to_pylist() == sent.to_pylist(), name

    async def test_a_batch_is_one_part_a_partition_in_its_own_order(self, sink: Sink) -> None:
        """A batch larger than any block size of the server is one block: one token, and partitions whole."""
        await sink.command(create("big", order_by="tuple()"))
        await sink.insert(plain("big", 2_000_000, days=2), timeout_s=60)
        parts = await sink.query(
            "SELECT rows, min_block_number = max_block_number FROM system.parts "
            "WHERE database = currentDatabase() AND table = 'big' AND active"
        )
        assert [tuple(part) for part in parts] == [(1_000_000, 1), (1_000_000, 1)]
        await sink.command(create("ordered", order_by="tuple()"))
        await sink.insert(plain("ordered", 300_000), timeout_s=60)
        out_of_order = await sink.query(
            "SELECT countIf(_seq != place) FROM (SELECT _seq, rowNumberInAllBlocks() AS place FROM ordered) "
            "SETTINGS max_threads = 1"
        )
        assert out_of_order[0][0] == 0

    async def test_the_same_batch_twice_is_there_once(self, sink: Sink) -> None:
        """The token swallows a repeat, over all partitions, also after other inserts."""
        await sink.command(create("t"))
        batch = plain("t", 1_000, days=3)
        await sink.insert(batch, timeout_s=30)
        await sink.insert(plain("t", 10, log=8), timeout_s=30)
        await sink.insert(batch, timeout_s=30)
        assert await count(sink, "t") == 1_010

    async def test_equal_rows_under_another_token_are_other_rows(self, sink: Sink) -> None:
        """Only the token makes a repeat: equal content does not."""
        await sink.command(create("t"))
        batch = plain("t")
        await sink.insert(batch, timeout_s=30)
        await sink.insert(dataclasses.replace(batch, token="another"), timeout_s=30)
        assert await count(sink, "t") == 20

    async def test_whole_partitions_under_the_parents_token_are_added_once(self, sink: Sink) -> None:
        """After a partly lost insert, the missing partitions go in under the same token, and those there stay once."""
        await sink.command(create("t"))
        batch = plain("t", 100, days=2)
        times = batch.data["ts_local"].cast(pa.int64()).to_numpy()
        second = dataclasses.replace(batch, data=batch.data.filter(pa.array(times >= START_NS + DAY_NS)))
        await sink.insert(second, timeout_s=30)
        assert len(await sink.look_up(batch)) == 50
        await sink.insert(batch, timeout_s=30)
        assert await count(sink, "t") == 100

    async def test_the_look_up_answers_exactly_what_is_there(self, sink: Sink) -> None:
        """Neither rows of others in the same range nor those absent: the batch's own that the table has, each once."""
        await sink.command(create("t"))
        batch = plain("t", 100)
        assert await sink.look_up(batch) == set()
        await sink.insert(plain("t", 100, log=8), timeout_s=30)  # same times and numbers, another log
        assert await sink.look_up(batch) == set()
        odd = Batch("t", batch.data.filter(pa.array([n % 2 == 1 for n in range(100)])), 0)
        await sink.insert(odd, timeout_s=30)
        await sink.insert(dataclasses.replace(odd, token="twice"), timeout_s=30)
        assert await sink.look_up(batch) == {(7, n) for n in range(1, 100, 2)}
        even = Batch("t", batch.data.filter(pa.array([n % 2 == 0 for n in range(100)])), 0)
        assert await sink.look_up(even) == set()

    @pytest.mark.parametrize("logs", [3, 100])
    async def test_the_look_up_serves_batches_of_many_logs(self, sink: Sink, logs: int) -> None:
        """Identities are 64-bit numbers to their edges, of one log or of many."""
        await sink.command(create("t"))
        top = 2**64 - 1
        pieces = [plain("t", 2, log=top - n, first_seq=top - 2 - n).data for n in range(logs)]
        batch = Batch("t", pa.Table.from_batches(pieces).combine_chunks().to_batches()[0], 0)
        await sink.insert(Batch("t", batch.data.slice(1), 0), timeout_s=30)
        assert await sink.look_up(batch) == set(batch.identities()[1:])

    async def test_dropped_rows_are_not_there(self, sink: Sink) -> None:
        """The look-up asks the table, not a memory of what was inserted; and what is absent can be sent again."""
        await sink.command(create("t"))
        batch = plain("t", 100, days=2)
        await sink.insert(batch, timeout_s=30)
        await sink.command("ALTER TABLE t DROP PARTITION '2026-01-05'")
        assert await sink.look_up(batch) == {(7, n) for n in range(1, 100, 2)}

    async def test_a_missing_table_or_column_holds(self, sink: Sink) -> None:
        """What a person must mend is no data error: the rows are good."""
        with pytest.raises(HoldError) as caught:
            await sink.insert(plain("nowhere"), timeout_s=30)
        assert caught.value.code == 60
        assert "nowhere" in str(caught.value)
        with pytest.raises(HoldError):
            await sink.look_up(plain("nowhere"))
        await sink.command(create("short", "ts_local DateTime64(9, 'UTC'), _log UInt64, _seq UInt64"))
        with pytest.raises(HoldError) as caught:
            await sink.insert(plain("short"), timeout_s=30)
        assert caught.value.code == 16

    async def test_a_violated_constraint_is_a_data_error_and_nothing_is_in(self, sink: Sink) -> None:
        """One bad row fails its whole batch, and only its batch."""
        await sink.command(create("t", extra=", CONSTRAINT small CHECK v < 5"))
        with pytest.raises(DataError) as caught:
            await sink.insert(plain("t", 10), timeout_s=30)
        assert caught.value.code == 469
        await sink.insert(plain("t", 5), timeout_s=30)
        assert await count(sink, "t") == 5

    async def test_an_unknown_enum_name_is_a_data_error(self, sink: Sink) -> None:
        """Names that the column does not have are refused, not stored as some number."""
        await sink.command(
            create("t", "ts_local DateTime64(9, 'UTC'), v Enum8('a' = 1), _log UInt64, _seq UInt64")
        )
        batch = plain("t", 2)
        data = batch.data.set_column(1, "v", pa.array(["a", "b"]))
        with pytest.raises(DataError):
            await sink.insert(Batch("t", data, 0), timeout_s=30)
        assert await count(sink, "t") == 0

    async def test_a_null_for_a_column_without_nulls_is_refused(self, sink: Sink) -> None:
        """NULL never becomes 0."""
        await sink.command(create("t"))
        data = plain("t", 2).data.set_column(1, "v", pa.array([1, None], pa.int64()))
        with pytest.raises(DataError):
            await sink.insert(Batch("t", data, 0), timeout_s=30)
        assert await count(sink, "t") == 0

    async def test_too_many_partitions_hold_and_too_many_parts_pass(self, sink: Sink) -> None:
        """Both are code 252; the message decides."""
        await sink.command(create("t"))
        with pytest.raises(HoldError) as held:
            await sink.insert(plain("t", 700, days=641), timeout_s=30)
        assert held.value.code == 252
        await sink.command(create("full", settings=", parts_to_throw_insert = 1"))
        await sink.command("SYSTEM STOP MERGES full")
        await sink.insert(plain("full"), timeout_s=30)
        with pytest.raises(Retryable) as caught:
            await sink.insert(plain("full"), timeout_s=30)
        assert caught.value.code == 252

    async def test_an_insert_that_hangs_is_cut_and_nothing_arrives_after(self, sink: Sink) -> None:
        """After `InsertTimeout` the look-up is final: the insert is dead, not merely forgotten."""
        await sink.command(create("slow", extra=SLOW))
        batch = plain("slow", 1)
        started_s = time.monotonic()
        with pytest.raises(InsertTimeout):
            await sink.insert(batch, timeout_s=1)
        assert time.monotonic() - started_s < 8
        assert await sink.look_up(batch) == set()
        running = await sink.query(
            "SELECT count() FROM system.processes WHERE query LIKE '%INSERT INTO%slow%FROM%'"
        )
        assert int(running[0][0]) <= 1  # this question itself
        for z in range(4):
            await sink.command(f"ALTER TABLE slow DROP COLUMN z{z}")
        await sink.insert(batch, timeout_s=30)
        assert await count(sink, "slow") == 1

    async def test_an_insert_that_cannot_be_killed_bars_its_batch_until_it_ends(self, sink: Sink) -> None:
        """A look-up that answers is always final: before, both it and the insert say that the old one still runs."""
        await sink.command(create("t", settings=STUBBORN))
        await sink.command("SYSTEM STOP MERGES t")
        await sink.insert(plain("t"), timeout_s=30)
        batch = plain("t", 10, log=8)
        started_s = time.monotonic()
        with pytest.raises(SinkError):
            await sink.insert(batch, timeout_s=0.2)
        seen: list[type[SinkError]] = []
        while True:
            try:
                found = await sink.look_up(batch)
                break
            except InsertStillRunning as error:
                seen.append(type(error))
                with pytest.raises(InsertStillRunning):
                    await sink.insert(batch, timeout_s=0.2)
                await asyncio.sleep(0.05)
        assert seen
        assert time.monotonic() - started_s > 4
        rows = await count(sink, "t")
        assert rows == 10 + len(found)
        await asyncio.sleep(0.5)
        assert await count(sink, "t") == rows  # nothing came later

    async def test_a_hanging_table_delays_no_other(self, sink: Sink) -> None:
        """While inserts of some tables hang, others insert, look up and answer, before one of them has ended."""
        for n in range(6):
            await sink.command(create(f"slow{n}", extra=SLOW))
        await sink.command(create("quick"))
        hanging = [asyncio.create_task(sink.insert(plain(f"slow{n}", 1), timeout_s=6)) for n in range(6)]
        await asyncio.sleep(0.2)
        for n in range(5):
            batch = plain("quick", 100, first_seq=n * 100)
            await sink.insert(batch, timeout_s=5)
            assert len(await sink.look_up(batch)) == 100
        assert not any(task.done() for task in hanging)
        outcomes: list[Any] = await asyncio.gather(*hanging, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {InsertTimeout}
        for n in range(6):
            assert await count(sink, f"slow{n}") == 0

    async def test_a_cancelled_insert_is_killed(self, sink: Sink) -> None:
        """Whoever stops waiting for an insert leaves none running behind."""
        await sink.command(create("slow", extra=SLOW))
        batch = plain("slow", 1)
        task = asyncio.create_task(sink.insert(batch, timeout_s=30))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        deadline_s = time.monotonic() + 8
        while True:
            try:
                assert await sink.look_up(batch) == set()
                break
            except InsertStillRunning:
                assert time.monotonic() < deadline_s
                await asyncio.sleep(0.05)

    async def test_inserts_of_one_table_from_many_tasks(self, sink: Sink) -> None:
        """Calls of many tasks at once mix neither rows nor tokens."""
        await sink.command(create("t"))
        batches = [plain("t", 50, first_seq=n * 50) for n in range(40)]
        await asyncio.gather(*(sink.insert(batch, timeout_s=30) for batch in batches))
        answers = [await sink.look_up(batch) for batch in batches]
        assert [len(answer) for answer in answers] == [50] * 40
        assert await count(sink, "t") == 2_000

    async def test_it_says_which_server_answers(self, sink: Sink) -> None:
        """The same server gives the same answer at any time: its start does not jitter."""
        first = await sink.server()
        assert first.version[0].isdigit()
        assert len(first.uuid) == 36
        assert set(first.uuid) != {"0", "-"}
        for _ in range(15):
            await asyncio.sleep(0.1)
            assert await sink.server() == first

    async def test_parameters_are_bound_by_the_server(self, sink: Sink) -> None:
        """A value is never part of the statement."""
        nasty = "'; DROP TABLE t -- \\ {x}"
        assert [
            tuple(row) for row in await sink.query("SELECT {a:String}, {b:Int64}", {"a": nasty, "b": -5})
        ] == [(nasty, -5)]
        answer = await sink.query_arrow("SELECT {a:String} AS a", {"a": nasty})
        assert answer["a"].to_pylist() == [nasty.encode()]

    async def test_errors_of_statements_are_sink_errors(self, sink: Sink) -> None:
        """Nothing of the driver's own escapes."""
        for call in (
            sink.query("SELECT nonsense"),
            sink.query_arrow("SELECT nonsense"),
            sink.command("NONSENSE"),
        ):
            with pytest.raises(SinkError) as caught:
                await call
            assert caught.value.code in (47, 62)
