"""A recorder in a process of its own, on a table with symbol groups: `python -m harness.groups_child FOLDER MODE`.

It records 40 rows of market data of four symbols, one symbol after the other. MODE `die`: the insert commits the rows
of the first two symbols, and the process is killed before it hears of it. MODE `go on` records nothing new, waits until
nothing is left, and prints how many rows, identities and partitions there are, and the balance.
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

from harness.dying import die
from harness.faulty_sink import CommitPart, FaultySink
from harness.recorders import WAIT_S, rows, settings_for, wait_until

from recorder import Recorder
from recorder.batch import Batch
from recorder.sink.open import open_sink

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
EACH = 10
START_NS = 1_723_075_200_000_000_000
GROUPED: dict[str, Any] = {
    "ttl": False,
    "defaults": {"linger_ms": 5, "linger_max_ms": 2_000},
    "tables": {
        "market_data": {"symbol_groups": 8, "durability": "wal", "overflow": "spill", "linger_ms": 2_000},
        "metrics_timeseries": {"enabled": False},
    },
}


class Dying(FaultySink):
    """Kills the process when a part of the batch is committed."""

    async def insert(self, batch: Batch, *, timeout_s: float) -> None:
        try:
            await super().insert(batch, timeout_s=timeout_s)
        except Exception:
            if batch.table == "market_data":
                die()
            raise


def put(recorder: Recorder) -> None:
    """Record the rows."""
    for n in range(len(SYMBOLS) * EACH):
        assert recorder.record(
            "market_data", {"ts_local": START_NS + n, "symbol": SYMBOLS[n // EACH], "last_price": float(n)}
        )


def main(folder: pathlib.Path, mode: str) -> None:
    """See the module."""
    settings = settings_for(folder / "db", "default", folder / "data", **GROUPED)
    if mode == "die":
        sink = Dying(open_sink(settings))
        sink.plan("market_data", CommitPart(2 * EACH))
        with Recorder(settings, sink=sink) as recorder:
            put(recorder)
            recorder.flush(WAIT_S)
        return
    with Recorder(settings) as recorder:
        wait_until(lambda: recorder.balance()["market_data"].received == len(SYMBOLS) * EACH, "its rows")
        wait_until(lambda: not recorder.balance()["market_data"].pending, "an empty log")
        (found,) = rows(
            recorder, "SELECT count(), uniqExact(_log, _seq), uniqExact(_partition_id) FROM market_data"
        )
        balance = recorder.balance()["market_data"]
        print(json.dumps([*map(int, found), balance.received, balance.inserted, balance.shed]))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2])
