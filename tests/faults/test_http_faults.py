"""The recorder on a server behind HTTP that fails, and on a network that does, while 10,000 rows a second arrive.

Each kind of trouble comes while rows flow, is felt, lasts a while and passes. The producer is never told but by what
`record` returns; memory stays in its bounds; afterwards every accepted row is in the table once, and every other one
is counted and told in `recorder_gaps`.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from harness.dev_server import DevServerProcess
from harness.producing import DRAIN_ROWS, OrderLoad, check_accounted
from harness.recorders import wait_until
from harness.troubles import TROUBLES, Road, Trouble, road_to

from recorder import Recorder, Settings

QUEUE_ROWS, BATCH_ROWS = 8_000, 4_000
LASTS_S = 1.0
"""How long each trouble lasts after it was felt: more rows arrive than the queue holds."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServerProcess]:
    with DevServerProcess(tmp_path_factory.mktemp("server") / "db") as server:
        yield server


@pytest.fixture
def road(server: DevServerProcess) -> Iterator[Road]:
    with road_to(server) as road:
        yield road


def settings_for(road: Road, folder: pathlib.Path, **changes: Any) -> Settings:
    quick: dict[str, Any] = {
        "target": f"http://127.0.0.1:{road.proxy.port}", "database": road.database, "data_dir": folder,
        "migrate_on_start": True, "insert_timeout_s": 0.5, "retry_initial_s": 0.05, "retry_max_s": 0.2,
        "hold_probe_s": 0.2, "gap_window_s": 0.1, "wal": False, "defaults": {"linger_ms": 50, "linger_max_ms": 100},
        "tables": {"orders": {"queue_rows": QUEUE_ROWS, "batch_rows": BATCH_ROWS}},
    }  # fmt: skip
    return Settings(**(quick | changes))


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_a_server_that_fails_while_rows_arrive_loses_nothing_unsaid(
    road: Road, trouble: Trouble, tmp_path: pathlib.Path
) -> None:
    """`record` never raises, memory stays in bounds, each accepted row is in once, each other one counted and told."""
    with Recorder(settings_for(road, tmp_path)) as recorder, OrderLoad(recorder) as load:

        def state() -> str:
            return str(recorder.status()["tables"]["orders"]["state"])

        def felt() -> bool:
            return state() != "flowing" or recorder.balance()["orders"].shed > 0

        def inserted() -> int:
            return recorder.balance()["orders"].inserted

        wait_until(lambda: inserted() > 1_000, "rows in before the trouble")
        with trouble(road):
            wait_until(felt, "the trouble felt")
            time.sleep(LASTS_S)  # the trouble's length, and no wait for a condition
        before = inserted()
        wait_until(lambda: state() == "flowing" and inserted() > before, "rows in after the trouble")
        check_accounted(load, road.client, road.database)
        # Three batches may be on their way beside the queue; a batch is sealed at the end of a drain.
        assert load.most_pending <= QUEUE_ROWS + 3 * (BATCH_ROWS + DRAIN_ROWS)
