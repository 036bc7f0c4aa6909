"""Clocks and order mended by hftbacktest's own functions, and checked by its validator. No I/O."""

from __future__ import annotations

import contextlib
import io
import logging
from dataclasses import dataclass

import numpy as np
from hftbacktest.data import correct_event_order, correct_local_timestamp, validate_event_order

from recorder.export_hftbacktest.errors import CannotExport, NegativeLatency
from recorder.export_hftbacktest.events import Events


@dataclass(frozen=True)
class Corrected:
    """Events that hftbacktest's validator passes."""

    events: Events
    least_latency_ns: int
    """The least of local time less venue time before the correction; below 0 where the venue's clock is ahead."""
    shift_ns: int
    """What was added to every local time."""


def corrected(events: Events, *, base_latency_ns: int = 0, refuse_negative: bool = False) -> Corrected:
    """Events with EXCH and LOCAL set, in both orders; local times are moved where one is before its venue time.

    They move by the worst latency, so that it becomes `base_latency_ns`. `events` is changed in place.

    Raises:
        NegativeLatency: a local time is before its venue time, and that is refused.
        CannotExport: hftbacktest's validator refuses the result.
        ValueError: there are no events.
    """
    if not len(events):
        raise ValueError("there are no events; correct at least one")
    least_ns = int((events["local_ts"] - events["exch_ts"]).min())
    if least_ns < 0 and refuse_negative:
        raise NegativeLatency(
            f"an event came {-least_ns:,} ns before its venue time, and negative latency is refused; allow the "
            f"shift, or add at least {-least_ns} ns to the local offset"
        )
    logging.getLogger("numba").setLevel(logging.INFO)  # of each compilation it logs thousands of lines
    before = int(events["local_ts"][0])
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what we say ourselves
        correct_local_timestamp(events, base_latency_ns)
    shift_ns = int(events["local_ts"][0]) - before
    ordered = correct_event_order(events, _index(events["exch_ts"]), _index(events["local_ts"]))
    try:
        validate_event_order(ordered)
    except ValueError as error:
        raise CannotExport(f"hftbacktest's validator refuses the events: {error}; report this") from error
    return Corrected(ordered, least_ns, shift_ns)


def _index(times: Events) -> Events:
    # One entry more: hftbacktest reads, and does not use, the entry behind the last.
    return np.append(np.argsort(times, kind="stable"), 0)
