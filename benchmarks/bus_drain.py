"""A recorder's end of a bus in a process of its own: takes every message, acknowledges it, and counts.

`python -m benchmarks.bus_drain URL` prints the address it has as a line of JSON; when its standard input ends it prints
its counts as another one, and ends.
"""

from __future__ import annotations

import asyncio
import json
import sys

from recorder.bus.open import open_subscription


async def drain(url: str) -> None:
    """Take and acknowledge until standard input ends."""
    subscription = open_subscription(url)
    await subscription.start()
    print(json.dumps({"url": subscription.name}), flush=True)
    counts = {"messages": 0, "redelivered": 0, "batches": 0, "shed": 0}

    async def take() -> None:
        async for messages in subscription.messages():
            counts["messages"] += len(messages)
            counts["batches"] += 1
            counts["redelivered"] += sum(message.redelivered for message in messages)
            await subscription.ack(messages)

    taking = asyncio.create_task(take())
    await asyncio.to_thread(sys.stdin.buffer.read)
    counts["shed"] = sum(
        notice.messages for notice in subscription.take_notices() if notice.kind == "bus_overflow"
    )
    await subscription.close()
    await taking
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    asyncio.run(drain(sys.argv[1]))
