"""A recorder in a process of its own whose disks lose their power: it records until it is ended, or says what is there.

python -m harness.power_child SETTINGS_JSON record FIRST [forgetful]
    rows of two tables from FIRST on; after each `sync` a line with the number up to which rows are durable;
    with `forgetful` the table `orders` is told first to sync nothing
python -m harness.power_child SETTINGS_JSON look
    waits until all is in that was left; then prints, as JSON, what is stored and the balances
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from recorder import Recorder, Settings
from recorder.pipeline import TablePipeline
from recorder.sink.base import Sink
from schemas.render import FSYNC_SETTINGS, UNSYNCED_SETTINGS

PIECE = 50
TABLES = {"orders": "client_order_id", "fills": "fill_id"}
WAIT_S = 60


def quick(target: str, database: str, data_dir: pathlib.Path) -> dict[str, Any]:
    """Settings, ready for JSON; everything that waits waits briefly. Nothing settles in the time of a test."""
    return {
        "target": target, "database": database, "data_dir": str(data_dir), "run_id": "run",
        "migrate_on_start": True, "shutdown_timeout_s": 30, "gap_window_s": 0.05,
        "retry_initial_s": 0.01, "retry_max_s": 0.1, "hold_probe_s": 0.05,
        "defaults": {"linger_ms": 5, "linger_max_ms": 20, "batch_rows": 200},
    }  # fmt: skip


def forget_to_sync(recorder: Recorder) -> None:
    """Leave `orders` with the settings of a table that keeps nothing through a power cut."""
    values = dict.fromkeys(FSYNC_SETTINGS, "0") | UNSYNCED_SETTINGS
    settings = ", ".join(f"{name} = {value}" for name, value in values.items())
    recorder.ask(partial(_command, sql=f"ALTER TABLE orders MODIFY SETTING {settings}"), WAIT_S)


def put(recorder: Recorder, first: int, stop: int) -> None:
    """Record these rows in both tables."""
    for n in range(first, stop):
        order = {"client_order_id": f"c-{n}", "symbol": "B", "status": "Open", "qty": n}
        fill = {"fill_id": f"f-{n}", "symbol": "B", "side": "buy", "fill_qty": 1, "fill_price": 1}
        assert recorder.record("orders", order)
        assert recorder.record("fills", fill)


def stored(recorder: Recorder) -> dict[str, list[tuple[int, int, int]]]:
    """Of each table: identity and number of each row."""
    return {
        table: recorder.ask(partial(_ask, sql=f"SELECT _log, _seq, {column} FROM {table}"), WAIT_S)
        for table, column in TABLES.items()
    }


def pipelines(recorder: Recorder) -> list[TablePipeline]:
    """Those of the tables that are recorded."""
    there = recorder._life.running()[0].pipelines
    return [there[table] for table in TABLES]


def gone_through(recorder: Recorder) -> bool:
    """Whether nothing is pending, and all that another run of the server confirmed was looked up."""
    for pipeline in pipelines(recorder):
        assert pipeline.wal is not None
        server = pipeline.wal.done.server
        foreign = [one for one in pipeline.wal.done.checkpoint.confirmed if one.server != server]
        if not server or foreign or not pipeline._taken_up or pipeline.flying_rows:
            return False
    return all(recorder.balance()[table].pending == 0 for table in TABLES)


def tell(recorder: Recorder) -> dict[str, Any]:
    """What is stored, the balances, and how many rows were put back, once all was gone through."""
    deadline_s = time.monotonic() + WAIT_S
    while not gone_through(recorder):
        assert time.monotonic() < deadline_s, recorder.status()
        time.sleep(0.01)
    return {
        "stored": stored(recorder),
        "restored": {pipeline.table.name: pipeline.restored_rows for pipeline in pipelines(recorder)},
        "balances": {
            table: (recorder.balance()[table].as_dict(), recorder.balance()[table].exact) for table in TABLES
        },
    }


def there_once(found: dict[str, Any], durable: Sequence[tuple[int, int]]) -> None:
    """Every durable row is there, none twice, no identity twice, and the balance is exact."""
    for table, rows in found["stored"].items():
        numbers = [number for _, _, number in rows]
        assert len({(log, seq) for log, seq, _ in rows}) == len(rows), f"{table}: an identity twice"
        there = set(numbers)
        assert len(there) == len(numbers), f"{table}: a row twice"
        missing = [n for first, upto in durable for n in range(first, upto) if n not in there]
        assert not missing, f"{table}: {len(missing)} durable rows are lost, first {missing[:5]}"
    for table, (balance, exact) in found["balances"].items():
        assert exact, (table, balance)
        assert balance["shed"] == 0, (table, balance)


def main() -> None:
    settings = Settings(**json.loads(sys.argv[1]))
    with Recorder(settings) as recorder:
        if sys.argv[2] == "look":
            print(json.dumps(tell(recorder)))
            return
        first = int(sys.argv[3])
        if sys.argv[4:] == ["forgetful"]:
            forget_to_sync(recorder)
        os.write(1, f"{first}\n".encode())
        while True:
            put(recorder, first, first + PIECE)
            first += PIECE
            recorder.sync(WAIT_S)
            os.write(1, f"{first}\n".encode())  # at once: the power may go with the next line


async def _command(sink: Sink, sql: str) -> None:
    await sink.command(sql)


async def _ask(sink: Sink, sql: str) -> list[tuple[int, int, int]]:
    return [(log, seq, int(name[2:])) for log, seq, name in await sink.query(sql)]


if __name__ == "__main__":
    main()
