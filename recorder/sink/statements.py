"""What a sink says to ClickHouse: pinned settings, the look-up, the kill. Pure functions of a batch.

Nothing here depends on how the statement travels.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from recorder.batch import Batch

PINNED: Mapping[str, Any] = {
    # The answer must mean "it is in": on by default since 26.2.
    "async_insert": 0,
    "insert_deduplicate": 1,
    "deduplicate_insert": "enable",
    # One record batch is one block and one token: no threshold of the server may cut or join it.
    "max_insert_block_size": 100_000_000,
    "min_insert_block_size_rows": 100_000_000,
    "min_insert_block_size_bytes": 1 << 40,
    "max_insert_block_size_bytes": 0,
    "use_strict_insert_block_limits": 0,
    "max_insert_threads": 1,
    # A batch touches at most 20 days or months. A table may have more symbol groups than the settings say, and had
    # others when the batch was sealed: 20 x 32 is the most.
    "max_partitions_per_insert_block": 640,
    "throw_on_max_partitions_per_insert_block": 1,
    # Nothing may be changed silently on the way.
    "input_format_null_as_default": 0,
    "input_format_arrow_allow_missing_columns": 0,
    "input_format_arrow_case_insensitive_column_matching": 0,
    "input_format_arrow_skip_columns_with_unsupported_types_in_schema_inference": 0,
    "date_time_overflow_behavior": "throw",
}
"""The settings of every insert, whatever the server's profile says; one it does not know is left out."""

READING: Mapping[str, Any] = {
    # Strings come back as the bytes they are.
    "output_format_arrow_string_as_string": 0,
    "output_format_arrow_compression_method": "none",
}
"""The settings of every Arrow answer."""

KILL = "KILL QUERY WHERE Settings['log_comment'] = {comment:String} ASYNC"
"""Ask a running statement to stop. Not SYNC: that would wait for ever on one that cannot be stopped."""

RUNNING = "SELECT count() FROM system.processes WHERE Settings['log_comment'] = {comment:String}"
"""How many statements run under a comment; the question itself carries none."""

OLDER = (
    "SELECT count() FROM system.processes WHERE query_kind = 'Insert' AND elapsed > {since_s:Float64} "
    "AND Settings['log_comment'] != '' AND Settings['log_comment'] = Settings['insert_deduplication_token']"
)
"""How many inserts of recorders, which have their token as comment, began longer ago than that."""

_MOST_RANGES = 32
"""Logs asked for one by one; a batch of more is asked for as a list and one common range."""


def insert_settings(batch: Batch, timeout_s: float, known: Container[str]) -> dict[str, Any]:
    """The settings of one insert of `batch`, cut by the server after `timeout_s`; `known` are those it knows.

    The token is the comment too: by it the running insert is found and killed.
    """
    return {
        **{name: value for name, value in PINNED.items() if name in known},
        "insert_deduplication_token": batch.token,
        "log_comment": batch.token,
        "max_execution_time": f"{timeout_s:.3f}",
        "timeout_overflow_mode": "throw",
    }


@dataclass(frozen=True)
class LookUp:
    """The question which rows of a batch a table has: a statement with server-side parameters."""

    sql: str
    parameters: Mapping[str, Any]


def look_up(batch: Batch, quoted_table: str) -> LookUp:
    """Ask by range of `ts_local` (which parts to open) and, per `_log`, by range of `_seq`.

    The answer may hold rows between the batch's own: `present` leaves them out.
    """
    first_ns, last_ns = batch.time_range_ns()
    parameters: dict[str, Any] = {"first_ns": first_ns, "last_ns": last_ns}
    ranges = _ranges(batch)
    if len(ranges) <= _MOST_RANGES:
        terms = []
        for n, (log, low, high) in enumerate(ranges):
            parameters |= {f"log{n}": log, f"low{n}": low, f"high{n}": high}
            between = f"_seq BETWEEN {{low{n}:UInt64}} AND {{high{n}:UInt64}}"
            terms.append(f"(_log = {{log{n}:UInt64}} AND {between})")
        identity = f"({' OR '.join(terms)})"
    else:
        parameters |= {
            "logs": [log for log, _, _ in ranges],
            "low": min(low for _, low, _ in ranges),
            "high": max(high for _, _, high in ranges),
        }
        identity = "_log IN {logs:Array(UInt64)} AND _seq BETWEEN {low:UInt64} AND {high:UInt64}"
    sql = (
        f"SELECT _log, _seq FROM {quoted_table} "
        "WHERE ts_local BETWEEN fromUnixTimestamp64Nano({first_ns:Int64}, 'UTC') "
        "AND fromUnixTimestamp64Nano({last_ns:Int64}, 'UTC') "
        f"AND {identity}"
    )
    return LookUp(sql, parameters)


def present(batch: Batch, answer: pa.Table) -> set[tuple[int, int]]:
    """The batch's identities among the rows of a look-up's answer."""
    if answer.num_rows == 0:
        return set()
    found = zip(answer["_log"].to_pylist(), answer["_seq"].to_pylist(), strict=True)
    return set(batch.identities()).intersection(found)


def _ranges(batch: Batch) -> list[tuple[int, int, int]]:
    """`(_log, least _seq, greatest _seq)` for each log of the batch."""
    logs = np.asarray(batch.data["_log"])
    seqs = np.asarray(batch.data["_seq"])
    if logs.size and (logs == logs[0]).all():
        return [(int(logs[0]), int(seqs.min()), int(seqs.max()))]
    ranges = []
    for log in np.unique(logs):
        own = seqs[logs == log]
        ranges.append((int(log), int(own.min()), int(own.max())))
    return ranges
