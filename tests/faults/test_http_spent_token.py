"""A server killed between its two writes of an insert: the token is in its deduplication log, the rows are nowhere.

ClickHouse writes the token down, then renames the part into its place. What is sent again under that token is answered
with a yes and dropped.
"""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import clickhouse_connect
import pytest
from harness.dev_server import DevServerProcess
from harness.recorders import order, wait_until

from recorder import Recorder, Settings

ROWS = 200


@pytest.mark.root
def test_rows_whose_token_outlived_them_are_in_once(tmp_path: pathlib.Path) -> None:
    """Killed at the rename of the part and started again, the server has every row once."""
    if shutil.which("strace") is None:
        pytest.skip("killing the server at a system call needs strace")
    with DevServerProcess(tmp_path / "db") as server:
        settings = Settings(
            target=server.url, database="spent", data_dir=tmp_path / "data", migrate_on_start=True,
            retry_initial_s=0.05, retry_max_s=0.2, defaults={"linger_ms": 1},
            tables={"metrics_timeseries": {"enabled": False}},
        )  # fmt: skip
        with Recorder(settings) as recorder:
            recorder.record("orders", order(0))
            recorder.flush(60)  # the recorder's own rows are in: the next part is of orders
            strace = subprocess.Popen(
                ["strace", "-f", "-p", str(server.pid), "-e", "trace=/rename.*",
                 "-e", "inject=/rename.*:signal=KILL:when=1"],
                stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert strace.stderr is not None
            while "attached" not in (line := strace.stderr.readline()):
                if not line:
                    pytest.skip("strace may not attach here")
            for n in range(1, ROWS):
                recorder.record("orders", order(n))
            server.wait_gone()
            strace.communicate()
            server.start()
            wait_until(lambda: recorder.balance()["orders"].pending == 0, "all rows in")
            assert recorder.balance()["orders"].inserted == ROWS
        client = clickhouse_connect.get_client(dsn=server.url)
        found = client.query("SELECT count(), uniqExact(client_order_id) FROM spent.orders").result_rows
        client.close()
    assert found == [(ROWS, ROWS)]
