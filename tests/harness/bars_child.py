"""`recorder bars build` in a process that kills itself: `python -m harness.bars_child WHEN N`.

WHEN is `before`, `during` or `after` an insert, N is which one of them, from 1. Settings are those of the environment.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from recorder import Settings
from recorder.bars.build import build
from recorder.bars.survey import Scope
from recorder.bars.windows import ALL_BARS
from recorder.cli.bars import writing
from schemas.executor import SqlExecutor

SOON_S = 0.004


class Killing:
    """Passes everything on, and kills the process at its insert."""

    def __init__(self, inner: SqlExecutor, when: str, left: int):
        self._inner, self._when, self._left = inner, when, left

    def command(self, sql: str) -> object:
        """Run a statement, unless it ends here."""
        self._left -= sql.startswith("INSERT")
        mine = self._left == 0
        if mine and self._when == "during":
            threading.Thread(target=self._kill_soon).start()
        elif mine and self._when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = self._inner.command(sql)
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        """Rows of a statement."""
        return self._inner.query(sql, parameters)

    def _kill_soon(self) -> None:
        time.sleep(SOON_S)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    settings = Settings()
    with writing(settings) as executor:
        for bars in ALL_BARS:
            build(Killing(executor, sys.argv[1], int(sys.argv[2])), settings.database, bars, Scope())
