"""The return of a database that was away: noticed within a moment, whatever the back-off of those who wait for it.

Back-off spares a database that is in trouble, and its pauses grow to many seconds. So while tables retry, one small
question for all of them is asked a few times a second. Once it failed and then is answered, they try at once. A
database that answers it all the while is in trouble of another kind: back-off stands.
"""

from __future__ import annotations

from recorder.flush_worker import WorkerState
from recorder.recorded_table import RecordedTables
from recorder.sink.base import Sink
from recorder.sink.errors import SinkError

RETURN_LOOK_S = 0.1
"""How often is asked."""
TOLD_LOOKS = 10
"""So many looks long who still retries is told: an attempt from before the return may fail after it."""


class ReturnWatch:
    """See the module. Used on the recorder's loop."""

    def __init__(self, sink: Sink, tables: RecordedTables):
        self._sink = sink
        self._tables = tables
        self._away = False
        self._looks_left = 0

    async def look(self) -> None:
        """Ask, if somebody waits, and tell them."""
        waiting = [one for one in self._tables.values() if one.pipeline.state is WorkerState.RETRYING]
        if not waiting:
            self._away, self._looks_left = False, 0
            return
        try:
            await self._sink.server()
        except SinkError:
            self._away = True
            return
        if self._away:
            self._away, self._looks_left = False, TOLD_LOOKS
        if self._looks_left:
            self._looks_left -= 1
            for one in waiting:
                one.worker.database_is_back()
