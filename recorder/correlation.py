"""The correlation id of the chain a producer is working on, carried by its context."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

correlation_id: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    "recorder_correlation_id", default=None
)
"""Rows recorded without a correlation id of their own take this one."""


@contextlib.contextmanager
def correlated(value: str) -> Iterator[None]:
    """Give every row recorded in this block, by this thread or task, a correlation id."""
    token = correlation_id.set(value)
    try:
        yield
    finally:
        correlation_id.reset(token)
