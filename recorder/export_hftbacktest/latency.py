"""Order latencies from `orders`, in hftbacktest's format. No I/O.

An order's row of that format has when it was sent, when the venue had it, and when the answer was here. `orders` has
the first and the last, by the producer's clock; the venue's time of it is not recorded, so it is taken to lie at
a given share of the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from hftbacktest.data.utils.feed_order_latency import order_latency_dtype


@dataclass(frozen=True)
class Latencies:
    """An array of hftbacktest's `order_latency_dtype`, sorted by `req_ts`, and what was left out of it."""

    rows: npt.NDArray[Any]
    unanswered: int
    """Orders without a time of sending or of the acknowledgement."""
    impossible: int
    """Orders acknowledged before they were sent."""


def order_latencies(orders: pa.Table, *, entry_share: float = 0.5, shift_ns: int = 0) -> Latencies:
    """Latencies of orders with columns `sent_ns` and `acked_ns`, null where not known.

    The venue has an order at `entry_share` of the way from sending to acknowledgement. `shift_ns` is what was added to
    the local times of the events they go with.

    Raises:
        ValueError: `entry_share` is not from 0 to 1.
    """
    if not 0 <= entry_share <= 1:
        raise ValueError(f"entry_share is {entry_share}; it is from 0 to 1")
    whole = orders.filter(pc.and_(pc.is_valid(orders["sent_ns"]), pc.is_valid(orders["acked_ns"])))
    sent = np.asarray(whole["sent_ns"].to_numpy(), np.int64)
    answered = np.asarray(whole["acked_ns"].to_numpy(), np.int64)
    possible = answered >= sent
    sent, answered = sent[possible], answered[possible]
    order = np.lexsort((answered, sent))
    sent, answered = sent[order] + shift_ns, answered[order] + shift_ns
    rows = np.zeros(len(sent), order_latency_dtype)
    rows["req_ts"] = sent
    rows["exch_ts"] = sent + np.rint((answered - sent) * entry_share).astype(np.int64)
    rows["resp_ts"] = answered
    return Latencies(rows, orders.num_rows - whole.num_rows, int(np.count_nonzero(~possible)))
