"""The order in which rows came in, and the venue's time where a row has none. Pure functions of columns."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]


def ranks(ts_local_ns: Int64s, logs: UInt64s, seqs: UInt64s) -> Int64s:
    """The place of each row among all, from 0.

    Rows of one log keep the order of their numbers in it, also where the local clock stepped backwards; those of
    several logs are merged by local time.
    """
    by_log = np.lexsort((seqs, logs))
    times = ts_local_ns[by_log]
    edges = np.flatnonzero(np.diff(logs[by_log])) + 1
    # The clock of a log never steps backwards here: else a step would mix up the rows of one log.
    forward = [np.maximum.accumulate(part) for part in np.split(times, edges)]
    merged = by_log[np.lexsort((seqs[by_log], logs[by_log], np.concatenate(forward)))]
    placed = np.empty(len(merged), np.int64)
    placed[merged] = np.arange(len(merged))
    return placed


def venue_times_ns(ts_local_ns: Int64s, ts_exchange_ns: Int64s, known: npt.NDArray[np.bool_]) -> Int64s:
    """The venue's time of each row; where it is not `known`, the local time less the median latency of the others.

    Without any known time the two times are equal.
    """
    if known.all():
        return ts_exchange_ns
    lag_ns = int(np.median(ts_local_ns[known] - ts_exchange_ns[known])) if known.any() else 0
    return np.where(known, ts_exchange_ns, ts_local_ns - lag_ns)
