"""SIGKILL of the server behind HTTP again and again while rows arrive: at any moment, and at the worst ones.

`RECORDER_TEST_KILLS` says how many times (`make torture` runs it long).
"""

from __future__ import annotations

import os
import pathlib
import random
import time

import clickhouse_connect
import pytest
from harness.dev_server import DevServerProcess, Fault
from harness.producing import OrderLoad, check_accounted
from harness.recorders import wait_until

from recorder import Recorder, Settings

KILLS = int(os.environ.get("RECORDER_TEST_KILLS", "50"))
DATABASE = "killed"


def kill(server: DevServerProcess, rng: random.Random) -> str:
    """Kill the server before, in the middle of, while the engine is at, or after an insert, or anywhere; returns when
    it has gone."""
    moment = rng.choice(("before", "middle", "at it", "after", "any"))
    if moment == "any":
        time.sleep(rng.uniform(0, 0.2))
        server.kill()
    elif moment == "at it":
        server.arm(Fault("before", "kill", table="orders", seconds=rng.uniform(0.0005, 0.01)))
        server.wait_gone()
    else:
        server.arm(Fault(moment, "kill", table="orders"))  # type: ignore[arg-type]
        server.wait_gone()
    return moment


@pytest.mark.slow
@pytest.mark.torture
@pytest.mark.timeout(120 + 10 * KILLS)
def test_rows_are_in_once_through_sigkills_of_the_server(tmp_path: pathlib.Path) -> None:
    """However often and whenever the server is killed, what was accepted is in once: by tokens and look-up."""
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    moments = []
    with DevServerProcess(tmp_path / "db") as server:
        settings = Settings(
            target=server.url, database=DATABASE, data_dir=tmp_path / "data", migrate_on_start=True,
            insert_timeout_s=5, retry_initial_s=0.02, retry_max_s=0.1, hold_probe_s=0.1, gap_window_s=0.1,
            defaults={"linger_ms": 50, "linger_max_ms": 100},
        )  # fmt: skip
        with Recorder(settings) as recorder, OrderLoad(recorder) as load:
            for number in range(KILLS):
                before = recorder.balance()["orders"].inserted
                wait_until(lambda before=before: recorder.balance()["orders"].inserted > before, "rows in")
                moments.append(kill(server, rng))
                server.start()
                if (number + 1) % 10 == 0:
                    print(f"seed {seed}: {number + 1} of {KILLS} kills, {load.offered} rows offered")
            client = clickhouse_connect.get_client(dsn=server.url, autogenerate_session_id=False)
            try:
                balance = check_accounted(load, client, DATABASE)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, killed {moments}: {error}") from error
            finally:
                client.close()
            print(f"seed {seed}: {KILLS} kills, each of {balance.inserted} rows in once, {balance.shed} shed")
