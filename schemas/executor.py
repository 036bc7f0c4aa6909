"""What the manager needs of a ClickHouse, and how a clickhouse-connect client becomes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class SqlExecutor(Protocol):
    """Runs SQL on one ClickHouse. The manager names the database in every statement.

    Errors are the driver's own; where they carry ClickHouse's error number it is their `code`, else it stands in
    the text as `Code: 57`.
    """

    def command(self, sql: str) -> object:
        """Run a statement that returns nothing."""

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        """Rows of a statement; parameters are bound on the server (`{name:Type}`)."""


class _QueryResult(Protocol):
    @property
    def result_rows(self) -> Sequence[Sequence[Any]]: ...


class _Client(Protocol):
    def command(self, cmd: str) -> object: ...

    def query(self, query: str, parameters: dict[str, Any] | None = None) -> _QueryResult: ...


class ClientExecutor:
    """A clickhouse-connect client, embedded or over HTTP, as a `SqlExecutor`. The client stays its owner's."""

    def __init__(self, client: Any):
        self._client: _Client = client

    def command(self, sql: str) -> object:
        """Run a statement that returns nothing."""
        return self._client.command(sql)

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        """Rows of a statement."""
        return self._client.query(sql, parameters=dict(parameters) if parameters else None).result_rows


def error_code(error: Exception) -> int:
    """ClickHouse's error number in a driver's exception, 0 where there is none."""
    code = getattr(error, "code", None)
    if isinstance(code, int):
        return code
    _, found, rest = str(error).partition("Code: ")
    digits = rest.split(".", 1)[0].strip() if found else ""
    return int(digits) if digits.isdigit() else 0
