"""What the rows of earlier runs take in memory while they are sent: one bound, shared by the tables that have any.

Who has some is known when the logs are opened, before the first row is read. So there are never more shares than at the
first reading, each of them only grows as others end, and all that was taken within one stays within the bound. Nobody
waits for anybody: a table that is held for days keeps its own share and no other's.

A batch that an earlier run had sealed goes as it was, also where it is more than its share: that run had all of those
in its memory, one a table. Nothing is read ahead beside it.
"""

from __future__ import annotations

REPLAY_BYTES = 256 * 1_048_576
"""Of Arrow buffers. What the client makes of a batch under way, to send it, is not in it."""
BATCHES = 4
"""That a share is for: the one under way; and of the next one what it is made from, itself, and a frame of the log."""


class ReplayMemory:
    """See the module. Used on the recorder's loop."""

    def __init__(self, bytes_max: int = REPLAY_BYTES):
        self._bytes_max = bytes_max
        self._tables: set[str] = set()

    def join(self, table: str) -> None:
        """A table has rows of earlier runs."""
        self._tables.add(table)

    def leave(self, table: str) -> None:
        """It has none any more, nor holds any."""
        self._tables.discard(table)

    @property
    def batch_bytes(self) -> int:
        """The most that a batch which was not sealed may take now."""
        return max(1, self._bytes_max // (BATCHES * max(1, len(self._tables))))
