"""A client of the embedded engine whose answers are to the question asked.

After a statement that fails in the middle of its answer, chDB (4.4.0) keeps what it had written of it, and gives that
as the answer to the next statement of the same connection: `SELECT 1` after a look-up that failed said which rows the
look-up had found so far, or none. So after each error the client asks for a word of its own until it hears it, and
only that; until then it answers nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, TypeVar, cast

from clickhouse_connect.driver.client import Client

from recorder.sink.errors import SinkUnavailable

T = TypeVar("T")
_TRIES = 5


class CleanClient:
    """All of a client; `query`, `raw_query` and `command` never give another statement's answer.

    Raises:
        SinkUnavailable: what an earlier statement left could not be cleared away.
    """

    def __init__(self, client: Client):
        # In the dictionary itself: all attributes but these two are the client's.
        self.__dict__["_client"] = client
        self.__dict__["_dirty"] = False

    @classmethod
    def around(cls, client: Client) -> Client:
        """The same client for those that type it."""
        return cast("Client", cls(client))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._client, name, value)

    def query(self, *arguments: Any, **options: Any) -> Any:
        """`Client.query`."""
        return self._answer(lambda: self._client.query(*arguments, **options))

    def raw_query(self, *arguments: Any, **options: Any) -> Any:
        """`Client.raw_query`."""
        return self._answer(lambda: self._client.raw_query(*arguments, **options))

    def command(self, *arguments: Any, **options: Any) -> Any:
        """`Client.command`."""
        return self._answer(lambda: self._client.command(*arguments, **options))

    def _answer(self, call: Callable[[], T]) -> T:
        if self._dirty:
            self._clear()
        try:
            return call()
        except BaseException:
            self.__dict__["_dirty"] = True
            raise

    def _clear(self) -> None:
        word = uuid.uuid4().hex
        for _ in range(_TRIES):
            if self._client.raw_query(f"SELECT '{word}'", fmt="TabSeparated") == f"{word}\n".encode():
                self.__dict__["_dirty"] = False
                return
        raise SinkUnavailable(
            "the engine still gives what is left of a statement that failed; nothing was asked"
        )
