"""Where tests take hold of a dev server: around the running of a statement.

The server itself does nothing here. A test's hooks may wait, raise `Answer` (another answer than the engine's) or
`Cut` (the connection ends without one), or kill the process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Statement:
    """What is about to run. `sql` is its text without inline data, `insert` whether it is one, `bytes` of its data."""

    sql: str
    insert: bool
    bytes: int
    query_id: str
    log_comment: str


class Answer(Exception):  # noqa: N818 - reads as what it is in `raise Answer(503, ...)`
    """Answer with this status and text instead, and with this code of ClickHouse unless it is 0."""

    def __init__(self, status: int, text: str, *, code: int = 0):
        super().__init__(text)
        self.status = status
        self.code = code


class Cut(Exception):  # noqa: N818 - reads as what it is in `raise Cut(...)`
    """End the connection without an answer: `reset` by TCP RST, else closed in order."""

    def __init__(self, *, reset: bool):
        super().__init__("reset" if reset else "closed")
        self.reset = reset


class Hooks(Protocol):
    """Called on the server's loop, in this order, for every statement."""

    async def received(self, sql: str, piece_bytes: int, received_bytes: int) -> None:
        """A piece of a request's body has come, of so many bytes; with it, so many of the whole body.

        `sql` is what the URL says to run with it: an insert's statement, and empty where the body is the statement.
        """

    async def before(self, statement: Statement) -> None:
        """Its request has come in whole, and nothing of it has run."""

    async def after(self, statement: Statement) -> None:
        """The engine has run it; nothing of the answer was sent."""
