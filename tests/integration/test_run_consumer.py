"""What carries a bus's messages into a recorder without a log: on an in-process bus and a real database."""

from __future__ import annotations

import asyncio
import gc
import json
import pathlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from harness.backends import Backend
from harness.consuming import NOW_NS, consuming, publish
from harness.recorders import WAIT_S, faulty, in_trouble, order, rows, settings_for
from harness.waiting import until

from recorder import Recorder
from recorder.bus.base import BusMessage, BusNotice, Guarantee, Subscription
from recorder.bus.errors import BusUnavailable
from recorder.bus.inprocess import InProcessBus
from recorder.identity import source_seq
from recorder.normalise.base import NormalisedRow
from recorder.service.rows import MessageRows
from recorder.sink.errors import HoldError, SinkUnavailable


@pytest.fixture
def bus() -> InProcessBus:
    """A bus without a name."""
    return InProcessBus()


def quote(n: int) -> dict[str, Any]:
    """A row of `market_data`."""
    return {"symbol": "BTCUSDT", "bid_px1": float(n)}


def _no_column() -> HoldError:
    """A table that does not fit is held."""
    return HoldError("no such column", code=16)


def _nobody_answers() -> SinkUnavailable:
    """A database that is away is tried again."""
    return SinkUnavailable("nobody answers")


def _assert_exact(recorder: Recorder) -> None:
    """Every row of every table is accounted for."""
    for table, balance in recorder.balance().items():
        counts = balance.as_dict()
        assert counts.pop("received") == sum(counts.values()), (table, counts)


async def _rows(recorder: Recorder, sql: str) -> list[tuple[Any, ...]]:
    return await asyncio.to_thread(rows, recorder, sql)


async def test_rows_of_messages_are_in_the_table_and_the_messages_are_let_go(
    backend: Backend, database: str, tmp_path: pathlib.Path, bus: InProcessBus
) -> None:
    """One row or many: each has the message's identity and time; the bus keeps nothing once they are in."""
    with Recorder(settings_for(backend, database, tmp_path, wal=False)) as recorder:
        async with consuming(recorder, bus):
            publish(bus, "orders", order(1), correlation_id="corr-1")
            publish(bus, "orders", [order(2, ts_local=NOW_NS + 5, correlation_id="own"), order(3)])
            publish(bus, "whatever", {"table": "account_state", "account_id": "a"})
            await until(lambda: bus.waiting == 0, "acknowledgement")
            found = await _rows(
                recorder,
                "SELECT client_order_id, toUnixTimestamp64Nano(ts_local), correlation_id, _log, _seq "
                "FROM orders ORDER BY _seq",
            )
            assert found == [
                ("c-1", NOW_NS, "corr-1", bus.log, source_seq(0, 0)),
                ("c-2", NOW_NS + 5, "own", bus.log, source_seq(1, 0)),
                ("c-3", NOW_NS, None, bus.log, source_seq(1, 1)),
            ]
            assert await _rows(recorder, "SELECT account_id FROM account_state") == [("a",)]


async def test_a_message_waits_until_its_rows_are_in(
    backend: Backend, database: str, tmp_path: pathlib.Path, bus: InProcessBus
) -> None:
    """Nothing is acknowledged while its table is held, and everything once it goes on; other tables do not wait."""
    settings = settings_for(backend, database, tmp_path, wal=False)
    with in_trouble(settings, "orders", _no_column()) as (recorder, mend):
        async with consuming(recorder, bus) as consumer:
            for n in range(50):
                publish(bus, "orders", order(n))
                publish(bus, "fills", {"fill_id": f"f-{n}", "symbol": "BTCUSDT", "side": "buy", "fill_qty": 1,
                                       "fill_price": 2})  # fmt: skip
            await until(lambda: recorder.state_of("orders").value == "held", "held")
            await until(lambda: bus.waiting == 50, "acknowledgement of the fills")
            assert recorder.balance()["fills"].inserted == 50
            counts = consumer.counts().bus
            assert counts is not None
            assert (counts.messages, counts.rows, counts.unacknowledged) == (100, 100, 50)
            assert counts.oldest_unacknowledged_s > 0
            mend()
            await until(lambda: bus.waiting == 0, "acknowledgement of the orders")
        assert recorder.balance()["orders"].inserted == 50


async def test_first_deliveries_go_in_unasked_and_repeated_ones_are_looked_up(
    backend: Backend, database: str, tmp_path: pathlib.Path, bus: InProcessBus
) -> None:
    """A fresh message costs no look-up; after a takeover what comes again is in the table once."""
    settings = settings_for(backend, database, tmp_path, wal=False)
    sink = faulty(settings)
    with Recorder(settings, sink=sink) as recorder:
        async with consuming(recorder, bus, wrap=Deaf):
            for n in range(100):
                publish(bus, "orders", order(n))
            await until(lambda: recorder.balance()["orders"].inserted == 100, "rows")
            assert not [batch for batch in sink.look_ups if batch.table == "orders"]
        assert bus.waiting == 100  # none was acknowledged
        async with consuming(recorder, bus) as consumer:
            publish(bus, "orders", order(100))
            await until(lambda: bus.waiting == 0, "acknowledgement")
            counts = consumer.counts().bus
            assert counts is not None
            assert (counts.messages, counts.redelivered) == (101, 100)
        balance = recorder.balance()["orders"]
        assert (balance.inserted, balance.duplicates_skipped) == (101, 100)
        assert await _rows(recorder, "SELECT count(), uniqExact(_seq) FROM orders") == [(101, 101)]


async def test_a_message_under_way_is_not_taken_twice(
    backend: Backend, database: str, tmp_path: pathlib.Path, bus: InProcessBus
) -> None:
    """A subscription dies while rows are under way: what the next one delivers again is known, and acknowledged."""
    settings = settings_for(backend, database, tmp_path, wal=False)
    fragile: list[Fragile] = []

    def wrap(subscription: Subscription) -> Subscription:
        fragile.append(Fragile(subscription))
        return fragile[-1]

    with in_trouble(settings, "orders", _no_column()) as (recorder, mend):
        async with consuming(recorder, bus, wrap=wrap) as consumer:
            for n in range(10):
                publish(bus, "orders", order(n))
            await until(lambda: consumer.pending == 10, "pending")
            fragile[0].die()

            def again() -> bool:
                counts = consumer.counts().bus
                return counts is not None and (counts.duplicates, counts.restarts, counts.down) == (10, 1, "")

            await until(again, "ten known again, through a subscription that is up")
            publish(bus, "orders", order(10))
            await until(lambda: consumer.pending == 11, "the message after it")
            mend()
            await until(lambda: bus.waiting == 0, "acknowledgement through the new one")
        assert recorder.balance()["orders"].received == 11
        assert await _rows(recorder, "SELECT count() FROM orders") == [(11,)]
        await asyncio.to_thread(recorder.flush, WAIT_S)
        assert await _rows(
            recorder,
            "SELECT count() FROM system_events WHERE kind = 'RecorderFailure' AND message LIKE 'bus %'",
        ) == [(1,)]


@pytest.mark.parametrize(
    ("topic", "payload", "reason", "payload_format", "good"),
    [
        ("orders", b"{nonsense", "not_json", "text", 0),
        ("orders", b'"text"', "not_a_row", "json", 0),
        ("nowhere", b'{"a": 1}', "unknown_table", "json", 0),
        ("orders", json.dumps([order(1), {"table": "nowhere"}]).encode(), "unknown_table", "json", 1),
        ("orders", b'{"no_such_column": 1}', "unknown_field", "json", 0),
        ("venue", b'{"e": "what is this"}', "unknown_event", "json", 0),
    ],
)
async def test_a_bad_message_costs_one_dead_letter_and_is_let_go(
    backend: Backend, database: str, tmp_path: pathlib.Path, bus: InProcessBus,
    topic: str, payload: bytes, reason: str, payload_format: str, good: int,
) -> None:  # fmt: skip
    """The letter has reason, origin and bytes, is in before the message is let go, and is kept once."""
    with Recorder(settings_for(backend, database, tmp_path, wal=False)) as recorder:
        for _ in range(2):
            async with consuming(recorder, bus, topics={"venue": "normaliser:binance"}, wrap=Deaf):
                if not bus.waiting:
                    assert bus.publish(topic, payload, ts_ns=NOW_NS)
                await until(lambda: recorder.balance()["dead_letters"].received > 0, "letter")
                await asyncio.to_thread(recorder.flush, WAIT_S)
        async with consuming(recorder, bus, topics={"venue": "normaliser:binance"}):
            await until(lambda: bus.waiting == 0, "acknowledgement")
        found = await _rows(
            recorder,
            "SELECT toString(reason), payload_format, origin, source_log, source_seq > 0 OR 1 FROM dead_letters",
        )
        assert len(found) == 1, found
        assert found[0][1] == payload_format
        assert found[0][3] == bus.log
        if reason not in ("unknown_field", "unknown_event"):
            assert found[0][0] == reason
        if reason != "unknown_field":
            assert found[0][2] == f"inproc:// {topic} 0"
            assert await _rows(recorder, "SELECT hex(payload) FROM dead_letters") == [
                (payload.hex().upper(),)
            ]
        assert await _rows(recorder, "SELECT count() FROM orders") == [(good,)]


async def test_ignored_topics_are_counted_and_let_go(
    backend: Backend, database: str, tmp_path: pathlib.Path, bus: InProcessBus
) -> None:
    """`ignore` makes no row and no letter."""
    with Recorder(settings_for(backend, database, tmp_path, wal=False)) as recorder:
        async with consuming(recorder, bus, topics={"debug.*": "ignore"}) as consumer:
            publish(bus, "debug.x", {"a": 1})
            publish(bus, "debug.y", {"a": 1})
            await until(lambda: bus.waiting == 0, "acknowledgement")
            counts = consumer.counts()
            assert counts.bus is not None
            assert (counts.bus.ignored, dict(counts.ignored)) == (2, {"debug.*": 2})
        assert recorder.balance()["dead_letters"].received == 0


async def test_rows_that_a_full_queue_sheds_are_counted_and_their_messages_let_go(
    backend: Backend, database: str, tmp_path: pathlib.Path, bus: InProcessBus
) -> None:
    """Of a held table with a small queue: what finds no room, and what is displaced, waits for nothing."""
    settings = settings_for(
        backend, database, tmp_path, wal=False,
        tables={"market_data": {"queue_rows": 10, "batch_rows": 5, "overflow": "drop_oldest"}},
    )  # fmt: skip
    with in_trouble(settings, "market_data", _no_column()) as (recorder, mend):
        async with consuming(recorder, bus):
            for n in range(200):
                publish(bus, "market_data", quote(n))
                if n % 10 == 9:
                    await asyncio.sleep(0.01)
            await until(lambda: recorder.balance()["market_data"].received == 200, "rows")
            balance = recorder.balance()["market_data"]
            assert balance.shed > 100
            await until(lambda: bus.waiting == recorder.balance()["market_data"].pending, "acknowledgement")
            mend()
            await until(lambda: bus.waiting == 0, "acknowledgement of the rest")
        balance = recorder.balance()["market_data"]
        assert (balance.inserted + balance.shed, balance.pending) == (200, 0)
        await asyncio.to_thread(recorder.flush, WAIT_S)
        shed = "SELECT sum(rows) FROM recorder_gaps WHERE table_name = 'market_data'"
        assert await _rows(recorder, shed) == [(balance.shed,)]


async def test_nothing_is_shed_while_the_database_is_away(
    backend: Backend, database: str, tmp_path: pathlib.Path, bus: InProcessBus
) -> None:
    """A queue of far fewer rows than were published: the rest stays on the bus until rows go in again."""
    tables = {"orders": {"queue_rows": 100, "batch_rows": 10}}
    settings = settings_for(backend, database, tmp_path, wal=False, tables=tables)
    with in_trouble(settings, "orders", _nobody_answers()) as (recorder, mend):
        async with consuming(recorder, bus) as consumer:
            for n in range(1_000):
                publish(bus, "orders", order(n))
            await until(lambda: recorder.balance()["orders"].received >= 50, "rows")
            await until(lambda: recorder.state_of("orders").value == "retrying", "trouble")
            mend()
            await until(lambda: bus.waiting == 0, "acknowledgement")
            assert consumer.pending == 0
        balance = recorder.balance()["orders"]
        assert (balance.inserted, balance.shed) == (1_000, 0)


async def test_a_held_table_does_not_use_up_the_window(
    backend: Backend, database: str, tmp_path: pathlib.Path, bus: InProcessBus
) -> None:
    """With most of the window waiting for a held table, rows of the others still come, and the held one's are shed."""
    settings = settings_for(backend, database, tmp_path, wal=False)
    with in_trouble(settings, "orders", _no_column()) as (recorder, mend):
        async with consuming(recorder, bus, window=40):
            for n in range(200):
                publish(bus, "orders", order(n))
                publish(bus, "market_data", quote(n))
            await until(lambda: recorder.balance()["market_data"].inserted == 200, "rows of the other table")
            balance = recorder.balance()["orders"]
            assert 20 <= balance.pending < 40
            assert balance.shed == 200 - balance.pending
            mend()
            await until(lambda: bus.waiting == 0, "acknowledgement")


async def test_notices_become_events_and_letters(
    backend: Backend, database: str, tmp_path: pathlib.Path, bus: InProcessBus
) -> None:
    """What a bus has to tell is in system_events; bytes that are no message are a dead letter."""
    with Recorder(settings_for(backend, database, tmp_path, wal=False)) as recorder:
        async with consuming(recorder, bus, wrap=Telling):
            publish(bus, "orders", order(1))
            await until(lambda: recorder.balance()["dead_letters"].inserted == 1, "letter")
        await asyncio.to_thread(recorder.flush, WAIT_S)
        assert await _rows(
            recorder,
            "SELECT toString(kind), message FROM system_events WHERE kind LIKE 'bus_%' ORDER BY kind",
        ) == [("bus_gap", "3 are missing"), ("bus_malformed", "no frame")]
        assert await _rows(recorder, "SELECT toString(reason), payload FROM dead_letters") == [
            ("bus_malformed", "\x01x")
        ]


async def test_a_subscription_that_cannot_start_is_tried_again(
    backend: Backend, database: str, tmp_path: pathlib.Path, bus: InProcessBus
) -> None:
    """It is down with the reason, then up, without anybody's help."""
    with Recorder(settings_for(backend, database, tmp_path, wal=False)) as recorder:
        first = bus.subscribe()
        await first.start()
        async with consuming(recorder, bus) as consumer:
            assert "close it before another one starts" in consumer.down
            await first.close()
            publish(bus, "orders", order(1))
            await until(lambda: bus.waiting == 0, "acknowledgement")
            assert consumer.down == ""


async def test_messages_whose_letters_found_no_room_are_taken_again_when_there_is(
    backend: Backend, database: str, tmp_path: pathlib.Path, bus: InProcessBus
) -> None:
    """Neither bad messages nor bad rows are let go without their letters; each letter is kept in the end, and once."""
    settings = settings_for(
        backend, database, tmp_path, wal=False,
        tables={"dead_letters": {"queue_rows": 4, "batch_rows": 1, "overflow": "drop_oldest"}},
    )  # fmt: skip
    with in_trouble(settings, "dead_letters", _no_column()) as (recorder, mend):
        async with consuming(recorder, bus) as consumer:
            consumer._room.allowed = lambda: 1  # as when the pause came too late
            for n in range(20):
                publish(bus, "orders", {"no_such_column": n})
                assert bus.publish("orders", b"{nonsense", ts_ns=NOW_NS)
            await until(lambda: recorder.balance()["dead_letters"].shed >= 20, "letters shed")
            assert consumer.pending == bus.waiting > 20
            _assert_exact(recorder)
            publish(bus, "orders", order(1))
            await until(lambda: recorder.balance()["orders"].inserted == 1, "a good row after them")
            mend()
            await until(lambda: bus.waiting == 0, "acknowledgement of everything")
            counts = consumer.counts()
            assert counts.bus is not None
            assert (counts.bus.messages, counts.bus.rows, counts.undecodable) == (41, 21, 20)
        _assert_exact(recorder)
        found = "SELECT count(), uniqExact(source_log, source_seq) FROM dead_letters"
        assert await _rows(recorder, found) == [(40, 40)]


@pytest.mark.parametrize("topics", [{}, {"orders": "normaliser:binance"}], ids=["plain", "normaliser"])
async def test_what_is_taken_again_waits_while_there_is_no_room(
    backend: Backend, database: str, tmp_path: pathlib.Path, bus: InProcessBus, topics: dict[str, str]
) -> None:
    """While the letters' queue is full nothing is tried, and so nothing more is shed."""
    tables = {"dead_letters": {"queue_rows": 4, "batch_rows": 1}}
    settings = settings_for(backend, database, tmp_path, wal=False, tables=tables)
    with in_trouble(settings, "dead_letters", _no_column()) as (recorder, mend):
        async with consuming(recorder, bus, topics=topics) as consumer:
            consumer._room.allowed = lambda: 1
            for _ in range(20):
                assert bus.publish("orders", b"{nonsense", ts_ns=NOW_NS)
            await until(lambda: consumer._receipts.again > 0, "letters without room")
            await until(lambda: recorder.balance()["dead_letters"].received >= 20, "all of them")
            await until(lambda: recorder.load_of("dead_letters").usage >= 0.5, "no more room")
            shed = recorder.balance()["dead_letters"].shed
            for _ in range(3):
                consumer._wake.set()
                await until(lambda: not consumer._wake.is_set(), "a round")
            assert recorder.balance()["dead_letters"].shed == shed
            mend()
            await until(lambda: bus.waiting == 0, "acknowledgement of everything")
        assert recorder.balance()["dead_letters"].inserted == 20
        _assert_exact(recorder)


async def test_nothing_is_kept_of_messages_that_nobody_acknowledges(
    backend: Backend, database: str, tmp_path: pathlib.Path, bus: InProcessBus
) -> None:
    """Of a bus that promises at-most-once: their payloads would fill memory for nothing."""
    settings = settings_for(backend, database, tmp_path, wal=False)
    with in_trouble(settings, "orders", _no_column()) as (recorder, mend):
        async with consuming(recorder, bus, wrap=OnlyOnce) as consumer:
            for n in range(50):
                publish(bus, "orders", order(n))
                assert bus.publish("orders", b"{nonsense", ts_ns=NOW_NS)
                await until(lambda n=n: recorder.balance()["orders"].received > n, "a row")  # type: ignore[misc]
            await until(lambda: recorder.balance()["dead_letters"].inserted == 50, "letters")
            assert consumer.pending == 0
            kept = sum(isinstance(found, BusMessage) and found.log == bus.log for found in gc.get_objects())
            assert kept < 10, "only what came last is still in hand"
            mend()
            await until(lambda: recorder.balance()["orders"].inserted == 50, "rows in")


async def test_reading_waits_for_room_for_dead_letters(
    backend: Backend, database: str, tmp_path: pathlib.Path, bus: InProcessBus
) -> None:
    """Their queue brakes as those of the bus's own tables do: what it has no room for stays with the publisher."""
    tables = {"dead_letters": {"queue_rows": 200, "batch_rows": 10}}
    settings = settings_for(backend, database, tmp_path, wal=False, tables=tables)
    with in_trouble(settings, "dead_letters", _nobody_answers()) as (recorder, mend):
        async with consuming(recorder, bus):
            for _ in range(1_000):
                assert bus.publish("orders", b"{nonsense", ts_ns=NOW_NS)
            await until(lambda: recorder.balance()["dead_letters"].received >= 100, "letters")
            await until(lambda: recorder.state_of("dead_letters").value == "retrying", "trouble")
            mend()
            await until(lambda: bus.waiting == 0, "acknowledgement")
        balance = recorder.balance()["dead_letters"]
        assert (balance.inserted, balance.shed) == (1_000, 0)


async def test_a_snapshot_that_cannot_be_does_not_end_acknowledgements(
    backend: Backend,
    database: str,
    tmp_path: pathlib.Path,
    bus: InProcessBus,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever a plug-in makes by the clock; and a task that ends all the same is told."""
    asked: list[int] = []

    def snapshots(_: object, now_ns: int) -> list[object]:
        asked.append(now_ns)
        if len(asked) % 2:
            raise RuntimeError("odd")
        return [NormalisedRow([], 0, {})]  # type: ignore[arg-type]

    monkeypatch.setattr(MessageRows, "snapshots", snapshots)
    with Recorder(settings_for(backend, database, tmp_path, wal=False)) as recorder:
        async with consuming(recorder, bus) as consumer:
            await until(lambda: len(asked) >= 3, "snapshots")
            publish(bus, "orders", order(1))
            await until(lambda: bus.waiting == 0, "acknowledgement")
            assert consumer.failed == ""
            assert consumer._tending is not None
            consumer._tending.cancel()
            await until(lambda: "ended unexpectedly" in consumer.failed, "the end of the task")


async def test_a_subscription_that_cannot_be_made_is_tried_again_and_says_why(
    backend: Backend, database: str, tmp_path: pathlib.Path, bus: InProcessBus
) -> None:
    """The closed one is not started in its stead, which would hide the reason."""
    made: list[Fragile] = []

    def wrap(subscription: Subscription) -> Subscription:
        if len(made) == 1 and not closed.is_set():
            raise BusUnavailable("no more files")
        made.append(Fragile(subscription))
        return made[-1]

    closed = asyncio.Event()
    with Recorder(settings_for(backend, database, tmp_path, wal=False)) as recorder:
        async with consuming(recorder, bus, wrap=wrap) as consumer:
            await until(lambda: consumer.down == "", "subscription")
            made[0].die()
            await until(lambda: consumer.down == "no more files", "the reason")
            seen = set()
            for _ in range(30):
                seen.add(consumer.down)
                await asyncio.sleep(0.01)
            assert seen == {"no more files"}
            closed.set()
            publish(bus, "orders", order(1))
            await until(lambda: bus.waiting == 0, "acknowledgement")
            assert consumer.down == ""


class _Wrapped:
    """A subscription with something in its way."""

    def __init__(self, inner: Subscription):
        self.inner = inner
        self.name, self.guarantee = inner.name, inner.guarantee

    async def start(self) -> None:
        await self.inner.start()

    def messages(self) -> AsyncIterator[Sequence[BusMessage]]:
        return self.inner.messages()

    async def ack(self, messages: Sequence[BusMessage]) -> None:
        await self.inner.ack(messages)

    def take_notices(self) -> Sequence[BusNotice]:
        return self.inner.take_notices()

    async def close(self) -> None:
        await self.inner.close()


class Deaf(_Wrapped):
    """Acknowledgements do not arrive."""

    async def ack(self, messages: Sequence[BusMessage]) -> None:
        raise BusUnavailable("cut off")


class OnlyOnce(_Wrapped):
    """Promises no more than at-most-once, and keeps nothing."""

    def __init__(self, inner: Subscription):
        super().__init__(inner)
        self.guarantee = Guarantee.AT_MOST_ONCE

    async def messages(self) -> AsyncIterator[Sequence[BusMessage]]:
        async for some in self.inner.messages():
            await self.inner.ack(some)
            yield some
            del some


class Telling(_Wrapped):
    """Has two things to tell, once."""

    told = False

    def take_notices(self) -> Sequence[BusNotice]:
        told, self.told = self.told, True
        gap = BusNotice("bus_gap", "3 are missing", 3)
        return [] if told else [gap, BusNotice("bus_malformed", "no frame", payload=b"\x01x")]


class Fragile(_Wrapped):
    """Its messages end with an error when told to."""

    def __init__(self, inner: Subscription):
        super().__init__(inner)
        self._dead = asyncio.Event()

    def die(self) -> None:
        self._dead.set()

    async def messages(self) -> AsyncIterator[Sequence[BusMessage]]:
        arriving = self.inner.messages()
        while True:
            some = asyncio.ensure_future(anext(arriving))
            dead = asyncio.ensure_future(self._dead.wait())
            await asyncio.wait({some, dead}, return_when=asyncio.FIRST_COMPLETED)
            dead.cancel()
            if not some.done():
                some.cancel()
                raise BusUnavailable("it died")
            yield some.result()
