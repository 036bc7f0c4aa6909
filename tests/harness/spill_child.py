"""A recording process whose orders spill, and which is killed while the database is away.

    python -m harness.spill_child DATA_DIR FIRST COUNT

It records so many orders. Its first insert is committed, and the answer lost; from then on nobody answers. It waits for
the tickets of the first and the last row, and kills itself. Without a COUNT (0) it gets in what the log has, and prints
what is stored, and the balance.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sys

from recorder import Recorder, Settings
from recorder.sink.errors import SinkUnavailable
from recorder.sink.open import open_sink

from .faulty_sink import Fail, FaultySink, LoseAnswer
from .recorders import WAIT_S, order, rows, wait_until

AWAY = SinkUnavailable("connection refused")


def main() -> None:
    data_dir, first, count = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    settings = Settings(
        data_dir=data_dir,
        run_id="run",
        retry_initial_s=0.01,
        retry_max_s=0.05,
        defaults={"linger_ms": 5, "linger_max_ms": 20, "batch_rows": 200},
        tables={"orders": {"durability": "spill"}},
    )
    if not count:
        with Recorder(settings) as recorder:
            wait_until(lambda: recorder.balance()["orders"].received > 0)
            wait_until(lambda: recorder.balance()["orders"].pending == 0)
            stored = rows(recorder, "SELECT _log, _seq, client_order_id FROM orders")
            balance = recorder.balance()["orders"]
        print(json.dumps({"stored": stored, "balance": balance.as_dict(), "exact": balance.exact}))
        return
    sink = FaultySink(open_sink(settings))
    sink.plan("orders", LoseAnswer())
    sink.always("orders", Fail(AWAY))
    sink.plan_look_up("orders", *[AWAY] * 10_000)
    with Recorder(settings, sink=sink) as recorder:
        tickets = [recorder.record("orders", order(n), ticket=True) for n in range(first, first + count)]
        for ticket in (tickets[0], tickets[-1]):
            assert ticket.wait(WAIT_S)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
