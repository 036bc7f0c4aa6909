"""A recorder whose rows leave their table behind its back: `python -m harness.gone_child STEP ARGUMENTS…`.

    record INSERTED UNSENT   rows of long ago: the first are inserted, the others on the log alone; then it is killed
    resume LIVE              goes on with what is on the log, and first records so many rows of now

Its checkpoint is never written while it runs, so that one that is killed knows nothing of what it inserted. `resume`
answers with a line of JSON. Settings are those of the environment; `GONE_PATIENCE_S` is the patience with an archive,
and with `GONE_BESIDE` rows of now are recorded once it was asked.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any

from recorder import Recorder, Settings, archive_look, runtime
from recorder.packs import packs_of
from recorder.sink.errors import SinkUnavailable

from .faulty_sink import Fail
from .recorders import WAIT_S, faulty, order, rows, wait_until

LONG_AGO_NS = 1_717_243_200_000_000_000
"""2024-06-01 12:00 UTC."""
S_NS = 1_000_000_000
BESIDE = "GONE_BESIDE"


def put(recorder: Recorder, first: int, count: int, at_ns: int) -> None:
    for n in range(first, first + count):
        assert recorder.record("orders", order(n, ts_local=at_ns + n * S_NS))


def record(settings: Settings, inserted: int, unsent: int) -> None:
    sink = faulty(settings)
    with Recorder(settings, packs=packs_of(settings), sink=sink) as recorder:
        put(recorder, 0, inserted, LONG_AGO_NS)
        recorder.flush(WAIT_S)
        sink.always("orders", Fail(SinkUnavailable("away")))
        put(recorder, inserted, unsent, LONG_AGO_NS)
        recorder.sync(WAIT_S)
        os.kill(os.getpid(), signal.SIGKILL)


def stored(recorder: Recorder, table: str) -> int:
    """Rows of a table, each once; of none that is not there."""
    if not rows(
        recorder, f"SELECT 1 FROM system.tables WHERE database = currentDatabase() AND name = '{table}'"
    ):
        return 0
    ((count, distinct),) = rows(recorder, f"SELECT count(), uniqExact(_log, _seq) FROM {table}")
    assert count == distinct, f"{table}: {count} rows, {distinct} of them different"
    return int(count)


def resume(settings: Settings, live: int) -> dict[str, Any]:
    asked, found = threading.Event(), archive_look.RecorderArchive.found

    def noted(*arguments: Any, **named: Any) -> Any:
        asked.set()
        return found(*arguments, **named)

    vars(archive_look)["RecorderArchive"].found = noted
    with Recorder(settings, packs=packs_of(settings)) as recorder:
        if live and BESIDE in os.environ:
            wait_until(asked.is_set, "the question to the archive")
        put(recorder, 1_000_000, live, time.time_ns())
        recorder.flush(WAIT_S)
        given_up = recorder.earlier()["orders"].kept > 0
        wait_until(lambda: recorder.earlier()["orders"].done, "what earlier runs left")
        balance, earlier = recorder.balance()["orders"], recorder.earlier()["orders"]
        return {
            "exact": balance.exact,
            **balance.as_dict(),
            "earlier": [earlier.inserted, earlier.there, earlier.expired],
            "kept": earlier.kept,
            "why": earlier.kept_why,
            "given_up_first": given_up,
            "rows": [stored(recorder, table) for table in ("orders", "archived_orders")],
            "parquet": "pyarrow.parquet" in sys.modules,
        }


if __name__ == "__main__":
    vars(runtime)["LOG_CARE_S"] = 3_600.0 if sys.argv[1] == "record" else 0.1
    vars(archive_look)["PATIENCE_S"] = float(os.environ.pop("GONE_PATIENCE_S", "30"))
    step, *counts = sys.argv[1:]
    if step == "record":
        record(Settings(), *map(int, counts))
    else:
        print(json.dumps(resume(Settings(), *map(int, counts))))
