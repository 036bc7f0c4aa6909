"""A producer in a thread of the test, and what must be true of its rows afterwards."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

from recorder import Recorder
from recorder.balance import Balance

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

STEP_S = 0.005
MOST_BEHIND_S = 0.1
"""A producer that the machine has held up for longer leaves out what it missed."""
DRAIN_ROWS = 1_024


class OrderLoad:
    """Offers rows of `orders` at a rate until stopped; each has its number as `client_order_id`.

    `accepted` are the numbers that `record` said yes to, in order; `offered` is how many there were; `most_pending`
    the most rows pending at any step; `inexact` a balance that was not exact at some step.
    """

    def __init__(self, recorder: Recorder, rows_per_s: float = 10_000):
        self.recorder = recorder
        self.rows_per_s = rows_per_s
        self.accepted: list[int] = []
        self.offered = 0
        self.most_pending = 0
        self.inexact: Balance | None = None
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="order-load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Offer no more. Idempotent; raises what the producer raised."""
        self._stop.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            self._produce()
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread by `stop`
            self.error = error

    def _produce(self) -> None:
        record, accepted = self.recorder.record, self.accepted
        began = time.monotonic()
        while not self._stop.wait(STEP_S):
            now = time.monotonic()
            due = int((now - began) * self.rows_per_s)
            if due - self.offered > MOST_BEHIND_S * self.rows_per_s:
                due = self.offered + int(MOST_BEHIND_S * self.rows_per_s)
                began = now - due / self.rows_per_s
            for number in range(self.offered, due):
                row = {"client_order_id": str(number), "symbol": "A", "status": "Open", "qty": 1}
                if record("orders", row):
                    accepted.append(number)
            self.offered = due
            balance = self.recorder.balance()["orders"]
            self.most_pending = max(self.most_pending, balance.pending)
            if not balance.exact:
                self.inexact = balance


def check_accounted(load: OrderLoad, client: Client, database: str, *, flush_s: float = 60) -> Balance:
    """After the load: every row it offered is in the table once or was shed and told in `recorder_gaps`."""
    load.stop()
    recorder = load.recorder
    recorder.flush(flush_s)
    assert load.inexact is None, load.inexact
    balances = recorder.balance()
    assert all(one.exact and not one.pending for one in balances.values()), balances
    balance = balances["orders"]
    assert balance.received == load.offered
    assert balance.inserted + balance.shed == load.offered, balance
    stored = client.query(
        f"SELECT toUInt64(client_order_id) AS n FROM {database}.orders ORDER BY n"
    ).result_columns
    numbers = list(stored[0]) if stored else []
    assert numbers == load.accepted, difference(numbers, load.accepted)
    gaps = client.query(
        f"SELECT sum(rows) FROM {database}.recorder_gaps WHERE table_name = 'orders'"
    ).result_rows[0][0]
    assert int(gaps) == balance.shed
    return balance


def difference(stored: list[int], accepted: list[int]) -> str:
    """What is wrong with the rows in the table, in one line."""
    missing, unknown = set(accepted) - set(stored), set(stored) - set(accepted)
    doubled = len(stored) - len(set(stored))
    return (
        f"{len(missing)} of {len(accepted)} accepted rows are missing {sorted(missing)[:5]}, {doubled} are there "
        f"twice, {len(unknown)} were never accepted {sorted(unknown)[:5]}"
    )
