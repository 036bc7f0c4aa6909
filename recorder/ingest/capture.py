"""Lines of a capture: `<local receive time, ns> <raw message>`.

A line without both, or with a time that cannot be one, is bad; the message itself is the normaliser's business. A
time that steps back is no bad line: clocks are set, and the message came all the same. Steps are counted.

A bad line is filed under the last good local time before it, so that it has the same time in every run.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from recorder.ingest.lines import MAX_LINE_BYTES, Line
from recorder.ingest.record import BadRecord, Record
from recorder.normalise.base import Message

EARLIEST_NS = 1_230_768_000_000_000_000
"""2009-01-01: no capture of a crypto exchange is older, and times in s, ms or µs fall far below."""
AHEAD_NS = 86_400_000_000_000
"""How far a local time may lie ahead of this machine's clock."""


class CaptureLines:
    """Turns lines into messages. `steps_back` counts times smaller than the one before."""

    def __init__(self, now_ns: int | None = None):
        self._latest_ns = (time.time_ns() if now_ns is None else now_ns) + AHEAD_NS
        self._previous_ns = 0
        self.steps_back = 0

    def decode(self, lines: Iterable[Line]) -> list[Record]:
        """One message or bad record per line, in order."""
        latest_ns = self._latest_ns
        previous_ns = self._previous_ns
        decoded: list[Record] = []
        for line in lines:
            stamp, _, payload = line.content.partition(b" ")
            # `isdigit` before `int`: it also takes signs, underscores and blanks, and is slow on long texts.
            if not payload or not stamp.isdigit() or len(stamp) > 20 or line.cut_bytes:
                decoded.append(self._bad(line, stamp, payload, previous_ns))
                continue
            ts_local = int(stamp)
            if not EARLIEST_NS <= ts_local <= latest_ns:
                decoded.append(self._bad(line, stamp, payload, previous_ns))
                continue
            if ts_local < previous_ns:
                self.steps_back += 1
            previous_ns = ts_local
            decoded.append(Message(payload, ts_local, "", line.position))
        self._previous_ns = previous_ns
        return decoded

    def _bad(self, line: Line, stamp: bytes, payload: bytes, ts_local: int) -> BadRecord:
        if line.cut_bytes:
            return too_long(line, ts_local)
        if not stamp.isdigit() or len(stamp) > 20:
            detail = f"expected '<local time, ns> <message>', the line begins with {line.content[:24]!r}"
            return BadRecord(line.position, "no_local_time", detail, line.content, ts_local)
        if not payload:
            detail = "a local time and no message behind it"
            return BadRecord(line.position, "no_message", detail, line.content, ts_local)
        detail = f"local time {stamp.decode()} is no time in ns from 2009 to a day from now"
        return BadRecord(line.position, "bad_local_time", detail, line.content, ts_local)


def too_long(line: Line, ts_local: int = 0) -> BadRecord:
    """What a line beyond the bound becomes."""
    detail = f"the line has {line.cut_bytes:,} bytes; at most {MAX_LINE_BYTES:,} are read"
    return BadRecord(line.position, "line_too_long", detail, line.content, ts_local)
