"""Carries the messages of one subscription into the recorder, and acknowledges them when their rows are durable.

A message is acknowledged when everything it made is settled (`recorder.settling`): rows inserted, bad ones kept as dead
letters, or shed by a full queue and counted. One whose dead letters found no room is taken again when there is room.
Each table is waited for by itself, so that a message waits only for the tables its own rows are for. When its `BusLink`
opens the subscription again, what the old one had delivered is acknowledged through the new one, and what that one
delivers again is known here and not taken twice. Of a bus that promises at-most-once nothing is acknowledged, and
nothing is kept for it.

Invariants
- Everything runs on the service's loop, but `_told`, which the recorder's loop calls.
- A message is pending from its being taken to its being settled; at most a window of the bus is.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from recorder.backoff import Backoff
from recorder.bus.base import BusMessage, BusNotice, Guarantee, Subscription
from recorder.errors import RecorderError
from recorder.identity import letter_log
from recorder.log import get_logger
from recorder.recorder import Recorder
from recorder.service.link import BusLink
from recorder.service.receipts import Made, Receipts
from recorder.service.room import LETTER, Room
from recorder.service.rows import MessageRows
from recorder.service.topics import TopicMap
from recorder.settling import Handover
from recorder.source_rows import SourceRow, SourceRows, by_table
from recorder.stats import BusCounts, SourceCounts
from recorder.supervised import Supervised

log = get_logger("recorder.bus")

TICK_S = 0.5
"""How often notices and snapshots are taken where no messages come."""
PAUSE_S = 0.02
"""How long reading waits before it looks again whether there is room."""
SLICE_BYTES = 128 * 1024
"""Payloads that are taken before the queues are looked at again: a message may hold thousands of rows."""


@dataclass(slots=True)
class _Counts:
    messages: int = 0
    redelivered: int = 0
    duplicates: int = 0
    undecodable: int = 0
    ignored: int = 0
    rows: int = 0
    ignored_topics: Counter[str] = field(default_factory=Counter)


class Consumer:
    """See the module. `start`, `stop_reading`, `close`.

    `open_subscription` makes a new subscription; `window` are its bounds in messages and bytes.
    """

    def __init__(
        self,
        recorder: Recorder,
        subscription: Subscription,
        open_subscription: Callable[[], Subscription],
        rows: MessageRows,
        topics: TopicMap,
        *,
        window: tuple[int, int],
        backoff: Backoff,
    ):
        self.name = subscription.name
        self.guarantee = subscription.guarantee
        self._link = BusLink(
            subscription, open_subscription, take=self._take_all, fell=self._fell, backoff=backoff
        )
        self._topics = topics
        self._recorder = recorder
        self._rows = rows
        self._loop = asyncio.get_running_loop()
        self._counts = _Counts()
        self._acknowledges = self.guarantee is Guarantee.AT_LEAST_ONCE
        self._receipts = Receipts()
        self._room = Room(recorder, self._receipts, window, keeps=self._acknowledges)
        self._stopping = False
        self._wake = asyncio.Event()
        self._tend = Supervised(f"tend {self.name}", self._tend_forever)
        self._supervised = (self._link.supervised, self._tend)
        self._tending: asyncio.Task[None] | None = None

    # -- lifecycle ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin; return once the first attempt to subscribe has ended, well or not."""
        self._tending = self._tend.start()
        await self._link.start()

    async def stop_reading(self) -> None:
        """Take no more messages; what is taken is still acknowledged as it becomes durable."""
        self._stopping = True
        await self._link.stop()

    async def close(self) -> None:
        """Acknowledge what is durable by now, and leave the bus."""
        await self.stop_reading()
        await asyncio.sleep(0)  # lets in what the recorder's loop has told
        await self._tend.close()
        await self._ack_done()
        await self._link.close()

    def change(self, topics: TopicMap) -> None:
        """Use other routes from now on."""
        self._topics = topics
        self._rows.keep(topics.routes)

    # -- what it tells ------------------------------------------------------------------------------------------

    @property
    def down(self) -> str:
        """Why the bus delivers nothing; empty while it does."""
        return self._link.down

    @property
    def failed(self) -> str:
        """Which of its tasks is gone though nobody ended it, and why; empty while it lives. One that died is started
        again, and is none.
        """
        for task in (self._link.reading, self._tending):
            if task is not None and task.done():
                why = "cancelled" if task.cancelled() else repr(task.exception())
                return f"{task.get_name()} ended unexpectedly: {why}"
        return ""

    @property
    def pending(self) -> int:
        """Messages taken whose rows are not settled."""
        return self._receipts.pending

    def counts(self) -> SourceCounts:
        """Everything counted so far. From any thread."""
        counts, normalisers = self._counts, list(self._rows.normalisers.values())
        filtered = self._rows.filtered_before.copy()
        ignored = self._rows.ignored_before + counts.ignored_topics
        for normaliser in normalisers:
            filtered.update(normaliser.filtered.copy())
            ignored.update(normaliser.ignored.copy())
        return SourceCounts(
            filtered=filtered, ignored=ignored, undecodable=counts.undecodable, bus=self._bus_counts()
        )

    def _bus_counts(self) -> BusCounts:
        counts, oldest_s = self._counts, self._receipts.oldest_s()
        return BusCounts(
            guarantee=str(self.guarantee),
            down=self.down,
            restarts=self._link.restarts,
            messages=counts.messages,
            redelivered=counts.redelivered,
            duplicates=counts.duplicates,
            undecodable=counts.undecodable,
            ignored=counts.ignored,
            rows=counts.rows,
            unacknowledged=self._receipts.pending,
            oldest_unacknowledged_s=time.monotonic() - oldest_s if oldest_s is not None else 0.0,
            deaths=sum(task.deaths for task in self._supervised),
            trouble="; ".join(filter(None, (task.trouble() for task in self._supervised))),
        )

    # -- messages to rows -----------------------------------------------------------------------------------------

    async def _take_all(self, messages: Sequence[BusMessage]) -> None:
        """Take messages, a few at a time where the queues are to be looked at in between."""
        at = 0
        while at < len(messages):
            allowed = self._room.allowed()
            if not allowed:
                await asyncio.sleep(PAUSE_S)
                continue
            size, end = 0, at
            while end < len(messages) and end - at < allowed and (end == at or size < SLICE_BYTES):
                size += len(messages[end].payload)
                end += 1
            self._take(messages[at:end])
            at = end
        self._take_notices()

    def _take(self, messages: Sequence[BusMessage]) -> None:
        """Take what the bus delivered, by log and by whether it is fresh."""
        counts = self._counts
        for (_, again), run in itertools.groupby(messages, lambda m: (m.log, m.redelivered)):
            rows, letters = self._record(self._unknown(list(run), again=again), self._rows, fresh=not again)
            counts.rows += rows
            counts.undecodable += letters
        if self._receipts.any_done:
            self._wake.set()

    def _take_again(self) -> None:
        """Take messages again whose dead letters found no room, a few at a time, when there is room.

        As a recorder that was restarted would: rows that are in are found, and normalisers know of nothing before.
        """
        before = self._receipts.again
        if self._stopping or not before or not (some := self._room.for_letters()):
            return
        messages, rows = self._receipts.take_again(some), self._rows.anew()
        log.debug("messages are taken again", bus=self.name, messages=len(messages))
        for _, run in itertools.groupby(messages, lambda m: m.log):
            self._record(list(run), rows, fresh=False)
        if 0 < self._receipts.again < before:
            self._loop.call_later(PAUSE_S, self._wake.set)

    def _unknown(self, messages: Sequence[BusMessage], *, again: bool) -> list[BusMessage]:
        """Those of the messages, all of one log, that are not under way already."""
        counts = self._counts
        counts.messages += len(messages)
        counts.redelivered += len(messages) if again else 0
        positions: set[int] = set()
        found = []
        for message in messages:
            if message.position in positions or self._receipts.is_pending(message):
                counts.duplicates += 1
                continue
            positions.add(message.position)
            found.append(message)
        return found

    def _record(self, messages: Sequence[BusMessage], by: MessageRows, *, fresh: bool) -> tuple[int, int]:
        """Hand over what messages of one log make; how many rows and dead letters."""
        rows: list[SourceRows] = []
        letters: list[SourceRow] = []
        made: list[Made] = []
        for message in messages:
            route = self._topics.route(message.topic)
            if route.ignored:
                self._counts.ignored += 1
                self._counts.ignored_topics[route.pattern] += 1
                self._receipts.finish(message)
                continue
            found = by.of(message, route)
            places = {part.table for part in found.rows}
            rows += found.rows
            if found.letter is not None:
                letters.append(found.letter)
                places.add(LETTER)
            made.append(Made(message, frozenset(places)))
        if made:
            self._hand_over(made, rows, letters, fresh=fresh)
        return sum(len(part.rows) for part in rows), len(letters)

    def _hand_over(
        self, made: Sequence[Made], rows: Sequence[SourceRows], letters: Sequence[SourceRow], *, fresh: bool
    ) -> None:
        told = self._told if self._acknowledges else _nobody
        deliver = functools.partial(self._recorder.deliver, told=told, fresh=fresh)
        given = deliver(made[0].message.log, rows, refused=self._room.overdrawn())
        given_letters = deliver(letter_log(made[0].message.log, ""), by_table(letters)) if letters else []
        handovers = [*given, *given_letters]
        for handover in handovers:
            handover.comes_again = self._acknowledges
        if self._acknowledges:
            waits: list[tuple[str, Hashable]] = [(handover.table, handover) for handover in given]
            waits += [(LETTER, handover) for handover in given_letters]
            if shed := bool(letters) and not given_letters and self._room.keeps_letters():
                waits.append((LETTER, LETTER))
            self._receipts.expect(made, waits, time.monotonic())
            if shed:
                self._receipts.settled(LETTER, unkept=True)
        if handovers:
            self._recorder.settle(handovers, told)

    # -- acknowledgements -----------------------------------------------------------------------------------------

    def _told(self, handovers: Sequence[Handover]) -> None:
        """Handovers are settled. On the recorder's loop."""
        with contextlib.suppress(RuntimeError):  # the service's loop has ended: nobody acknowledges any more
            self._loop.call_soon_threadsafe(self._settled, handovers)

    def _settled(self, handovers: Sequence[Handover]) -> None:
        for handover in handovers:
            self._receipts.settled(handover, unkept=handover.unkept)
        if self._receipts.any_done:
            self._wake.set()

    async def _tend_forever(self) -> None:
        """Acknowledge, and whatever else is to be done every so often."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._ack_done()
                self._take_again()
                self._take_notices()
                self._take_snapshots()
            except Exception as error:  # without this task nothing would be acknowledged any more
                log.error("a bus was not tended to", bus=self.name, error=repr(error), exc_info=True)

    async def _ack_done(self) -> None:
        if done := self._receipts.take_done():
            await self._link.ack(done)

    def _take_snapshots(self) -> None:
        """Rows that normalisers make by the clock: the recorder's own, not of any message."""
        for row in self._rows.snapshots(time.time_ns()):
            try:
                self._recorder.record(row.table, row.row)
            except RecorderError:  # closed, or a table that no pack has
                continue
            except Exception as error:  # a normaliser is a plug-in
                log.error("a snapshot's row was left out", bus=self.name, error=repr(error), exc_info=True)

    # -- notices --------------------------------------------------------------------------------------------------

    def _take_notices(self) -> None:
        for notice in self._link.take_notices():
            self._notice(notice)

    def _fell(self, why: str) -> None:
        self._tell("RecorderFailure", "error", f"bus {self.name} is down: {why}")

    def _tell(self, kind: str, severity: str, message: str) -> None:
        row = {"kind": kind, "severity": severity, "component": self.name, "message": message}
        with contextlib.suppress(Exception):  # the recorder is closed: the log has the line
            self._recorder.record("system_events", row)

    def _notice(self, notice: BusNotice) -> None:
        log.warning("bus notice", bus=self.name, kind=notice.kind, messages=notice.messages, what=notice.text)
        self._tell(notice.kind, "warning", notice.text)
        if notice.payload:
            self._counts.undecodable += 1
            with contextlib.suppress(Exception):  # the recorder is closed: the log has the line
                self._recorder.dead_letter(
                    reason=notice.kind, detail=notice.text, payload=notice.payload, origin=self.name
                )


def _nobody(_handovers: Sequence[Handover]) -> None:
    """Nothing is acknowledged."""
