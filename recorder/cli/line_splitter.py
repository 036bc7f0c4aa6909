"""Numbered lines of bytes that come in pieces, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

MAX_LINE_BYTES = 1 << 20


class LineSplitter:
    """Bytes to numbered lines; one that is too long is None. At most `max_bytes` are kept."""

    def __init__(self, max_bytes: int = MAX_LINE_BYTES):
        self._max_bytes = max_bytes
        self._rest = b""
        self._number = 0
        self._skipping = False

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes | None]]:
        """The lines that these bytes end."""
        *ended, rest = data.split(b"\n")
        for line in ended:
            yield self._end(line)
        self._keep(rest)

    def finish(self) -> Iterator[tuple[int, bytes | None]]:
        """The last line, where no line break ends it."""
        if self._rest or self._skipping:
            yield self._end(b"")

    def _end(self, line: bytes) -> tuple[int, bytes | None]:
        self._keep(line)
        whole, too_long = self._rest, self._skipping
        self._rest, self._skipping = b"", False
        self._number += 1
        return self._number, None if too_long else whole

    def _keep(self, part: bytes) -> None:
        if self._skipping or len(self._rest) + len(part) > self._max_bytes:
            self._rest, self._skipping = b"", True
        else:
            self._rest += part
