"""`recorder` in a process that kills itself: `python -m harness.tiers_child STEP ARGUMENTS…`.

STEP is `before` or `after` and how a statement begins that `retention.tiers` runs, such as `before ALTER TABLE`, or
`never`. ARGUMENTS are those of `recorder`. Partitions count as settled at once.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from typing import Any

from recorder.cli.group import main
from retention import runner, tiers
from retention.due import Limits


class Dying:
    """An executor that ends the process at one of its statements."""

    def __init__(self, executor: Any, step: str):
        self._executor, self.query = executor, executor.query
        self._when, _, self._begins = step.partition(" ")

    def command(self, sql: str) -> object:
        """Run a statement, and end before or after it."""
        mine = sql.startswith(self._begins)
        if mine and self._when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = self._executor.command(sql)
        if mine and self._when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return answer


if __name__ == "__main__":
    step, *arguments = sys.argv[1:]
    settled: Any = functools.partial(Limits, settle_s=-10.0)
    runner.Limits = settled  # type: ignore[misc]
    if step != "never":

        def moving(executor: Any, *arguments: Any, **options: Any) -> tiers.Moved:
            """As `move_partition`, but for the executor."""
            return tiers.move_partition(Dying(executor, step), *arguments, **options)

        runner.move_partition = moving
    main(arguments)
