"""Messages out of a subscription."""

from __future__ import annotations

import asyncio

from recorder.bus.base import BusMessage, Subscription

from .waiting import PATIENCE_S


async def next_messages(subscription: Subscription, count: int) -> list[BusMessage]:
    """At least so many messages, the next ones; calls go on where the last one ended."""
    got: list[BusMessage] = []
    stream = subscription.messages()
    try:
        async with asyncio.timeout(PATIENCE_S):
            while len(got) < count:
                got += await anext(stream)
    except TimeoutError:
        raise AssertionError(f"{len(got)} of {count} messages came within {PATIENCE_S} s") from None
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
    return got


async def acknowledged_messages(subscription: Subscription, count: int) -> list[BusMessage]:
    """So many messages, each acknowledged as it comes."""
    got: list[BusMessage] = []
    while len(got) < count:
        more = await next_messages(subscription, 1)
        await subscription.ack(more)
        got += more
    return got
