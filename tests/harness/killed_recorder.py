"""`recorder` in a process that kills itself at a step: `python -m harness.killed_recorder STEP N ARGUMENTS…`.

STEP is `before`, `amid` or `after` and one of `CALLS`, such as `after drop`, or how a statement begins and of which of
`WAYS` it is, such as `before EXCHANGE of repartition`; or `never`. N is which call it is, from 1. ARGUMENTS are those
of `recorder`. Partitions count as settled at once.
"""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any

from harness.dying import Death, Statements

from recorder.cli.group import main
from retention import runner
from retention.due import Limits

CALLS = {
    "archive": ("retention.runner:Runner", "_prove"),
    "drop": ("retention.runner", "drop_part"),
    "hold": ("retention.live_holds", "append"),
    "TTL of a table": ("schemas.manager:Manager", "_run"),
}
"""Class or module, and function, by what it does."""
WAYS = {
    "move": ("retention.runner", "move_partition"),
    "repartition": ("recorder.repartition", "Repartition"),
}
"""Module, and what of it takes an executor first and changes things with its statements."""


def owner_of(path: str) -> Any:
    """A module, or a class of it."""
    module, _, name = path.partition(":")
    found = importlib.import_module(module)
    return getattr(found, name) if name else found


def prepare(death: Death) -> None:
    """Have the process come to its step."""
    begins, _, way = death.name.rpartition(" of ")
    if death.name in CALLS:
        owner, function = CALLS[death.name]
        death.replace(owner_of(owner), function, death.name)
    elif way in WAYS:
        module, name = owner_of(WAYS[way][0]), WAYS[way][1]
        original = getattr(module, name)

        def with_steps(executor: Any, *arguments: Any, **options: Any) -> Any:
            def named(sql: str) -> str:
                return death.name if sql.startswith(begins) else sql

            return original(Statements(executor, death, named), *arguments, **options)

        setattr(module, name, with_steps)
    elif death.name:
        raise ValueError(f"{death.name!r}: no step, expected one of {[*CALLS]} or a statement of {[*WAYS]}")


if __name__ == "__main__":
    step, number, *words = sys.argv[1:]
    settled: Any = functools.partial(Limits, settle_s=-10.0)
    runner.Limits = settled  # type: ignore[misc]
    prepare(Death(step, number))
    main(words)
