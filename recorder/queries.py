"""Questions to the database through a recorder, from an event loop that is not the recorder's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from recorder.recorder import Recorder


class RecorderQueries:
    """What `load_order_ids` needs of a sink; an answer is waited for `timeout_s` at most."""

    def __init__(self, recorder: Recorder, *, timeout_s: float):
        self._recorder = recorder
        self._timeout_s = timeout_s

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        """Rows of a statement, its parameters bound.

        Raises:
            TimeoutError: there was no answer in time.
            SinkError: the database refused.
            RecorderClosed: the recorder does not run.
        """
        return await asyncio.to_thread(
            self._recorder.ask, lambda sink: sink.query(sql, parameters), self._timeout_s
        )
