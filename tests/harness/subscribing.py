"""Messages out of a subscription."""

from __future__ import annotations

import asyncio

from recorder.bus.base import BusMessage, Subscription

PATIENCE_S = 20.0


async def next_messages(subscription: Subscription, count: int) -> list[BusMessage]:
    """At least so many messages, the next ones."""
    got: list[BusMessage] = []
    stream = subscription.messages()
    async with asyncio.timeout(PATIENCE_S):
        while len(got) < count:
            got += await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    return got
