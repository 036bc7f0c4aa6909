"""Keeps one bus subscribed to: a subscription that ends or fails is opened again, with back-off, however long it takes.

What it delivers goes to `take`, in order; who takes bounds it by not returning. Everything runs on the service's loop.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

from recorder.backoff import Backoff
from recorder.bus.base import BusMessage, BusNotice, Guarantee, Subscription
from recorder.log import get_logger
from recorder.supervised import Supervised

log = get_logger("recorder.bus")

SOUND_S = 10.0
"""A subscription that lived for so long was sound: when it ends, back-off begins anew."""
ALARM_S = 60.0
"""A subscription that stays down is told again this often."""


class BusLink:
    """See the module. `start`, `stop`, `close`.

    `subscription` is the first one, not started; `open_subscription` makes each later one. `fell` is told, every
    `ALARM_S` at most, why nothing is delivered.
    """

    def __init__(
        self,
        subscription: Subscription,
        open_subscription: Callable[[], Subscription],
        *,
        take: Callable[[Sequence[BusMessage]], Awaitable[None]],
        fell: Callable[[str], None],
        backoff: Backoff,
    ):
        self.name = subscription.name
        self.guarantee = subscription.guarantee
        self.down = "not subscribed yet"
        """Why nothing is delivered; empty while it is."""
        self.restarts = 0
        """How often a subscription was opened again."""
        self.supervised = Supervised(f"read {self.name}", self._read_forever)
        self.reading: asyncio.Task[None] | None = None
        self._subscription = subscription
        self._open = open_subscription
        self._take = take
        self._tell_fell = fell
        self._backoff = backoff
        self._loop = asyncio.get_running_loop()
        self._alarmed_s: float | None = None
        self._first_try = asyncio.Event()

    async def start(self) -> None:
        """Begin; return once the first attempt to subscribe has ended, well or not."""
        self.reading = self.supervised.start()
        await self._first_try.wait()

    async def stop(self) -> None:
        """Take no more messages; acknowledgements still go out. Idempotent."""
        await self.supervised.close()

    async def close(self) -> None:
        """Leave the bus."""
        await self.stop()
        await self._close_subscription()

    async def ack(self, messages: Sequence[BusMessage]) -> None:
        """Acknowledge messages, through whichever subscription there is: those it does not know come again."""
        try:
            await self._subscription.ack(messages)
        except Exception as error:  # noqa: BLE001 - they are delivered again, and found
            log.warning(
                "messages were not acknowledged", bus=self.name, messages=len(messages), error=repr(error)
            )

    def take_notices(self) -> Sequence[BusNotice]:
        """What the bus had to tell since the last call."""
        try:
            return self._subscription.take_notices()
        except Exception as error:
            log.error("notices of a bus are lost", bus=self.name, error=repr(error), exc_info=True)
            return ()

    async def _read_forever(self) -> None:
        for attempt in itertools.count():
            began_s = self._loop.time()
            try:
                await self._read()
                why = "the subscription ended"
            except Exception as error:
                why = str(error) or repr(error)
                log.debug("subscription failed", bus=self.name, error=repr(error), exc_info=True)
            self._fell(why)
            await self._close_subscription()
            sound = self._loop.time() - began_s >= SOUND_S
            await self._open_again(0 if sound else attempt)
            self.restarts += 1

    async def _open_again(self, attempt: int) -> None:
        """Make a new subscription, with back-off for as long as it takes."""
        for more in itertools.count(attempt):
            await asyncio.sleep(self._backoff.wait_s(more))
            try:
                self._subscription = self._open()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next attempt may go better
                self._fell(str(error) or repr(error))
            else:
                return

    async def _read(self) -> None:
        """Subscribe, and take messages until the subscription ends."""
        try:
            await self._subscription.start()
            log.info(
                "subscribed", bus=self.name, guarantee=str(self.guarantee), means=_meaning(self.guarantee)
            )
            self.down = ""
        finally:
            if self.down == "not subscribed yet":
                self.down = "it could not be subscribed to"
            self._first_try.set()
        async with aclosing(self._subscription.messages()) as arriving:  # type: ignore[type-var]
            async for messages in arriving:
                await self._take(messages)

    def _fell(self, why: str) -> None:
        """It delivers nothing: say so, again every so often."""
        self.down = why
        self._first_try.set()
        now_s = self._loop.time()
        if self._alarmed_s is not None and now_s - self._alarmed_s < ALARM_S:
            log.debug("bus is down, trying on", bus=self.name, why=why)
            return
        self._alarmed_s = now_s
        log.error("bus is down, trying on", bus=self.name, why=why)
        self._tell_fell(why)

    async def _close_subscription(self) -> None:
        try:
            await self._subscription.close()
        except Exception as error:
            log.error("a subscription did not close", bus=self.name, error=repr(error), exc_info=True)


def _meaning(guarantee: Guarantee) -> str:
    """What a guarantee means for rows, for the log."""
    if guarantee is Guarantee.AT_LEAST_ONCE:
        return "messages come until they are acknowledged, and their rows are recorded once"
    return "messages may be lost between publisher and recorder, and nothing comes again"
