"""Retention carried out in a process of its own that kills itself: `python -m harness.apply_child STEP ARGUMENTS…`.

STEP is `archived` (the first partition's rows are in the archive), `dropped` (the first part is) or `never`. ARGUMENTS
are those of `recorder`. Partitions count as settled at once.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from recorder.cli.group import main
from retention import runner
from retention.due import Limits


def _then_die(call: Callable[..., Any]) -> Callable[..., Any]:
    def both(*arguments: Any) -> None:
        call(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    return both


if __name__ == "__main__":
    step, *arguments = sys.argv[1:]
    settled: Any = functools.partial(Limits, settle_s=-10.0)
    runner.Limits = settled  # type: ignore[misc]
    if step == "archived":
        runner.Runner._prove = _then_die(runner.Runner._prove)  # type: ignore[method-assign]
    elif step == "dropped":
        runner.drop_part = _then_die(runner.drop_part)
    main(arguments)
