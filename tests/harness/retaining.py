"""`recorder` whose runs of retention take partitions as settled at once, and may be held up or killed amid one:
`python -m harness.retaining ARGUMENTS…`, and `python -m harness.retaining run-of-retention` for the process of a run.

With `RETAINING_GATE` a run that has archived a partition makes the file `<gate>.reached`, and goes on when there is
`<gate>.open`.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

from harness.backends import Place
from harness.ingest_files import child_environment, run_command, write_rows
from harness.running import RunningRecorder

TESTS = pathlib.Path(__file__).parents[1]
CHILD = "run-of-retention"
FIRST_NS = 1_723_075_200_000_000_000  # 2024-08-08
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)]),
    "RECORDER_TABLES__MARKET_DATA__ARCHIVE_AFTER_DAYS": "5",
    "RECORDER_RETENTION_SCHEDULE": "off",
}
ONE_AFTER_THE_OTHER = """
import sys
from recorder.cli import main
for command in sys.argv[1:]:
    sys.argv = ["recorder", *command.split()]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""


def running(folder: pathlib.Path, place: Place, **environment: str) -> RunningRecorder:
    """A service whose runs of retention are begun by SIGUSR1 alone, unless its environment says otherwise."""
    recorder = RunningRecorder(folder, **(ENVIRONMENT | place.variables | environment))
    recorder.command = [sys.executable, "-m", "harness.retaining"]
    return recorder


def record_old_rows(folder: pathlib.Path, place: Place, *numbers: int) -> None:
    """Rows of market data of 2024, recorded before the service starts."""
    rows = [{"ts_local": FIRST_NS + number, "symbol": "BTCUSDT"} for number in numbers]
    file = write_rows(folder / f"rows-{numbers[0]}.ndjson", rows)
    # A database that `ingest` makes keeps its rows for ever, so it is made before.
    commands = (("migrate", "up"), ("ingest", "--table", "market_data", str(file)))
    done = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_THE_OTHER, *(" ".join(command) for command in commands)],
        env=child_environment(**(ENVIRONMENT | place.variables), RECORDER_DATA_DIR=str(folder / "data")),
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def asked(folder: pathlib.Path, place: Place, sql: str) -> list[dict[str, Any]]:
    """What the database answers when no service has it open."""
    done = run_command(
        "--data-dir",
        str(folder / "data"),
        "query",
        "--json",
        sql,
        cwd=folder,
        **(ENVIRONMENT | place.variables),
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def _gated(call: Any) -> Any:
    def both(*arguments: Any) -> Any:
        done = call(*arguments)
        if gate := os.environ.get("RETAINING_GATE"):
            pathlib.Path(f"{gate}.reached").touch()
            while not pathlib.Path(f"{gate}.open").exists():
                time.sleep(0.01)
        return done

    return both


if __name__ == "__main__":
    from recorder.cli.group import main
    from recorder.retaining import child as retention_child
    from recorder.service import retention_ways
    from retention import runner
    from retention.due import Limits

    settled: Any = functools.partial(Limits, settle_s=-10.0)
    runner.Limits = settled  # type: ignore[misc]
    runner.Runner._prove = _gated(runner.Runner._prove)  # type: ignore[method-assign]
    retention_ways.CHILD = ("-m", "harness.retaining", CHILD)
    if sys.argv[1:] == [CHILD]:
        retention_child.main()
    else:
        main()
