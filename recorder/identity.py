"""Who a row is: `(_log, _seq)`, for ever.

A row from a producer in this process has the epoch of its table as `_log` and counts from 0. A row from a bus or a
file has a hash of the source's incarnation as `_log`, and `position x 4,096 + slot` as `_seq`, so that the same
message makes the same identities in every run, on every recorder.
"""

from __future__ import annotations

import hashlib
import secrets

SLOTS = 4_096
"""Rows one message can make, over all tables; a message that would make more is a dead letter."""

UNDATED_NS = 1_230_768_000_000_000_000
"""2009-01-01: the time of a source's dead letter that has none, the same whenever the source is read."""


def new_epoch() -> int:
    """A random 64-bit number, drawn anew for each opening, so that a restored backup never reuses an identity."""
    return secrets.randbits(64)


def source_log(*incarnation: str | bytes) -> int:
    """The `_log` of a source: 64 bits of SHA-256 over its incarnation (stream, partition, creation; or file hash)."""
    digest = hashlib.sha256()
    for part in incarnation:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return int.from_bytes(digest.digest()[:8], "little")


def letter_log(log: int, table: str) -> int:
    """The `_log` of dead letters of a source's rows. One source may be recorded for several tables, in turn, and be
    refused by each: the letters of one must not be taken for those of another."""
    return source_log("dead letter", log.to_bytes(8, "little"), table)


def source_seq(position: int, slot: int) -> int:
    """The `_seq` of row `slot` of the message at `position`.

    Raises:
        ValueError: the slot is outside 0 to 4,095.
    """
    if not 0 <= slot < SLOTS:
        raise ValueError(f"slot {slot} of the message at position {position} is outside 0 to {SLOTS - 1}")
    return position * SLOTS + slot
