"""Learns the orders from before the start, as soon as the database can tell of them."""

from __future__ import annotations

import time

from recorder.flush_worker import WorkerState
from recorder.log import get_logger
from recorder.normalise.order_ids import OrderIds
from recorder.normalise.order_ids_load import load_order_ids
from recorder.queries import RecorderQueries
from recorder.recorder import Recorder

log = get_logger("recorder.service")

ORDERS = "orders"
LEARN_S = 10.0
"""How often it is tried, where it failed."""
ASK_S = 60.0
"""How long an answer is waited for."""


class OrdersBefore:
    """See the module. `learn` may be called as often as one likes; it asks no more once it knows."""

    def __init__(self, recorder: Recorder, order_ids: OrderIds, database: str):
        self.learnt = not order_ids.max_entries or ORDERS not in recorder.tables
        """Whether nothing is left to learn."""
        self._recorder = recorder
        self._order_ids = order_ids
        self._database = database
        self._next_s = 0.0

    async def learn(self) -> None:
        """Learn them, unless that is done, or was tried just now, or the table cannot be read."""
        if self.learnt or time.monotonic() < self._next_s or not self._readable():
            return
        self._next_s = time.monotonic() + LEARN_S
        queries = RecorderQueries(self._recorder, timeout_s=ASK_S)
        try:
            found = await load_order_ids(queries, self._database, self._order_ids)
        except Exception as error:  # what it cannot learn now it may learn later
            log.error("orders from before are not learnt yet", error=repr(error), exc_info=True)
            return
        self.learnt = found is not None

    def _readable(self) -> bool:
        """A table that is held is not there, or not as it should be; that is told elsewhere."""
        return self._recorder.in_contact and self._recorder.state_of(ORDERS) is not WorkerState.HELD
