"""`recorder` in small inserts, killed at a named step of a restore: `restore_child.py STEP arguments of recorder…`."""

from __future__ import annotations

import os
import pathlib
import signal
import sys
import threading
from collections.abc import Iterator

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import pyarrow as pa

from recorder.batch import Batch
from recorder.cli import archive_target, main
from retention.archive import Limits, Times, restore

STEP, AMID_S = sys.argv[1], 0.004


def die() -> None:
    """As from outside: nothing of Python runs after it."""
    os.kill(os.getpid(), signal.SIGKILL)


class Killed(archive_target.TableTarget):
    """Dies when it comes to a step."""

    asked = 0

    def at(self, step: str) -> None:
        if step == STEP:
            die()

    def sums(self, times: Times | None) -> tuple[int, int]:
        self.asked += 1
        self.at("before the look-up" if self.asked == 1 else "before the comparison")
        return super().sums(times)

    def identities(self, times: Times | None, number: int, of: int) -> Iterator[pa.RecordBatch]:
        self.at("in the look-up")
        return super().identities(times, number, of)

    def insert(self, rows: pa.RecordBatch, token: str) -> None:
        self.at("before an insert")
        super().insert(rows, token)
        self.at("after an insert")

    async def _insert(self, batch: Batch) -> None:
        if STEP == "amid an insert":
            threading.Timer(AMID_S, die).start()
        await super()._insert(batch)


archive_target.TableTarget = Killed  # type: ignore[misc]
restore.Limits = lambda: Limits(group_rows=16, known_rows=20)  # type: ignore[misc,assignment]
sys.argv[:2] = ["recorder"]
main()
