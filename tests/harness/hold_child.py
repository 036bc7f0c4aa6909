"""A hold in a process of its own that kills itself at a step: `python -m harness.hold_child STEP ARGUMENTS…`.

STEP is `before`, `written` (the hold's row is durable) or `taken` (the first table has no TTL any more). ARGUMENTS are
those of `recorder`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from recorder.cli.group import main
from retention import live_holds
from schemas.manager import Manager


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _then_die(call: Callable[..., Any]) -> Callable[..., Any]:
    def both(*arguments: Any) -> None:
        call(*arguments)
        _die()

    return both


if __name__ == "__main__":
    step, *arguments = sys.argv[1:]
    if step == "before":
        live_holds.append = _die
    elif step == "written":
        live_holds.append = _then_die(live_holds.append)
    else:
        Manager._run = _then_die(Manager._run)  # type: ignore[method-assign]
    main(arguments)
