"""What becomes of a cut whose rows may have left their table: asked for before it is sent, and taken out of it.

Of rows that the table has not, and that are old enough to have left it, the database and the archive are asked where
they are (`recorder.elsewhere`). A cut of an earlier run is *parked* for that long: it waits in its table's lane, and
what memory holds goes on. A cut of this run, whose rows a source may have sent before, keeps the worker until the
answer is there.

What has left is counted and done with on the log. Where nobody can say it, rows of an earlier run stay on the log, for
a run that can; rows of a source are sent, and the next run of retention drops those that are archived.

It sends nothing, and looks at no row that is young.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from recorder.account import TableAccount
from recorder.backoff import Backoff
from recorder.elsewhere import Elsewhere, Gone, Mask
from recorder.flush_worker import FlushWorker
from recorder.lane import Cut, Lane
from recorder.log import get_logger
from recorder.sink.errors import SinkError
from recorder.table_log import TableLog

logger = get_logger("recorder.pipeline")

ASK_AGAIN = Backoff(0.1, 5.0)
"""How often a database that does not say where rows went is asked."""


class GoneRows:
    """See the module. Of one table; all of it is called on the recorder's loop, `sort_out` by the worker's task alone.

    `elsewhere` is None where rows stay in the table for ever, `log` where the table has none. The `account` counts what
    has left; cuts of earlier runs are parked in the `lane`.
    """

    def __init__(self, elsewhere: Elsewhere | None, account: TableAccount, lane: Lane, log: TableLog | None):
        self._elsewhere = elsewhere
        self._account = account
        self._lane = lane
        self._log = log
        self._asking: set[asyncio.Task[None]] = set()
        """Who ask beside the worker, one for each cut that is parked."""
        self.asking_why = ""
        """Why rows wait that may have left the table: the database does not say where they are. Empty while it does."""
        self._unasked_why = ""
        self.asks = False
        """Whether the worker itself asks, of the cut that it is at."""

    @property
    def asks_beside(self) -> bool:
        """Whether it is asked for cuts that are parked."""
        return bool(self._asking)

    async def sort_out(self, cut: Cut, worker: FlushWorker) -> bool:
        """Take out of a cut what has left the table, before it is sent once more. False: it is being asked for, and the
        cut comes back from the lane, to be given here again; what memory holds goes on meanwhile.

        Cancelled or failed, it is to be called again with the same cut.
        """
        where, earlier = self._elsewhere, cut.upto == 0
        if where is None or not (earlier or cut.from_source):
            cut.sorted_out = True
            return True
        if cut.gone is None:
            asked: list[Mask] = []
            for batch in cut.batches:
                if not (batch.from_source and where.concerns(batch, earlier=earlier)):
                    asked.append(np.zeros(batch.rows, np.bool_))
                    continue
                present = await worker.present(batch)
                asked.append(where.absent(batch, present, sealed=cut.sent_before))
                worker.let_go()
            if not any(one.any() for one in asked):
                cut.sorted_out = True
                return True
            if earlier:
                self._park(where, cut, asked)
                return False
            self.asks = True
            try:
                cut.gone = await self._asked_elsewhere(where, cut, asked)
            finally:
                self.asks = False
        self._take_out(cut, cut.gone)
        return True

    async def close(self) -> None:
        """Ask no more; the worker's task, which begins it, has ended."""
        for asking in self._asking:
            asking.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    def _park(self, where: Elsewhere, cut: Cut, asked: Sequence[Mask]) -> None:
        self._lane.park(cut)
        task = asyncio.create_task(
            self._ask_beside(where, cut, asked), name=f"ask {self._account.table.name}"
        )
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask_beside(self, where: Elsewhere, cut: Cut, asked: Sequence[Mask]) -> None:
        cut.gone = await self._asked_elsewhere(where, cut, asked)
        self._account.told += 1
        self._lane.unpark(cut)

    async def _asked_elsewhere(self, where: Elsewhere, cut: Cut, asked: Sequence[Mask]) -> list[Gone]:
        """Where the rows that were asked for are, of each batch; the database is asked until it says so."""
        found, attempt = list[Gone](), 0
        while len(found) < len(asked):
            batch, open_ = cut.batches[len(found)], asked[len(found)]
            try:
                found.append(await where.look(batch, open_, earlier=cut.upto == 0))
                self.asking_why, attempt = "", 0
            except SinkError as error:
                self._account.error(error)
                self.asking_why = f"where rows are that are not in it any more cannot be asked: {error}"
                await asyncio.sleep(ASK_AGAIN.wait_s(attempt))
                attempt += 1
            except Exception as error:
                why = f"internal error: {error!r}; nobody knows which of them left the table; start it again"
                self.asking_why = ""
                logger.error("asking where rows went failed", table=self._account.table.name, error=why,
                             exc_info=True)  # fmt: skip
                none = np.zeros(batch.rows, np.bool_)
                found.append(Gone(none, none, none, open_, why))
        return found

    def _take_out(self, cut: Cut, gone: Sequence[Gone]) -> None:
        """Count rows that have left the table, and leave on the log those of which nobody can say it."""
        account, log = self._account, self._log
        account.rechecking, account.of_earlier = cut.recheck, cut.upto == 0 and not cut.recheck
        rest = []
        for batch, one in zip(cut.batches, gone, strict=True):
            out = one.left
            if there := int((one.moved | one.archived).sum()):
                # As a look-up in the table says it: what was sealed was inserted, the rest came before.
                if cut.sent_before:
                    account.found(batch, there)
                else:
                    account.duplicates(there)
            if expired := int(one.expired.sum()):
                account.expired(expired)
            if log is not None:
                log.confirm(batch.only(one.moved).places, cut.server or "", letters=False)
                log.done.resolve(batch.only(one.archived | one.expired).places)
                if cut.upto == 0 and one.unknown.any():
                    # Else they would be there twice, until the archive can be asked: they are safe where they are.
                    log.reading.leave(batch.only(one.unknown).places, one.why)
                    out = out | one.unknown
            if cut.upto and one.unknown.any():
                self._tell_unasked(int(one.unknown.sum()), one.why)
            if not out.all():
                rest.append(batch.only(~out) if out.any() else batch)
        cut.batches, cut.rows = rest, sum(batch.rows for batch in rest)
        cut.sorted_out = True

    def _tell_unasked(self, rows: int, why: str) -> None:
        """Rows of a source that may be in the archive are inserted: once for each reason."""
        if why != self._unasked_why:
            self._unasked_why = why
            logger.warning(
                "rows that a source may have sent before are inserted unasked: the next run of retention drops those "
                "that are archived",
                table=self._account.table.name,
                rows=rows,
                why=why,
            )
