"""`recorder` in a process that kills itself behind a step of retention: `python -m harness.retention_child NOTES STEP N
ARGUMENTS…`.

Steps are what changes something: statements of the run, those of bars, and files of the archive, each under a name;
`begin` is before the first. It kills itself behind step STEP when it comes to it for the Nth time; `never` does not.
NOTES is a file that gets a line a step, flushed before the process goes on. ARGUMENTS are those of `recorder`.
Partitions count as settled at once.
"""

from __future__ import annotations

import functools
import os
import pathlib
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from recorder.cli.group import main
from retention import runner
from retention.due import Limits

STATEMENTS = {
    "DROP PART ": "part dropped",
    "MOVE PARTITION ": "partition moved",
    "CREATE TABLE ": "table of older rows made",
    "CREATE OR REPLACE VIEW ": "view made",
    "market_bars_1s": "bars of a second built",
    "market_bars_1m": "bars of a minute built",
}
FILES = {"manifest-": "manifest", "receipt-": "receipt", "bars/": "receipt of bars", ".parquet": "file"}


class Steps:
    """Notes what is done, and ends the process."""

    def __init__(self, notes: pathlib.Path, step: str, number: int):
        self._notes, self._step, self._left = notes, step, number

    def done(self, step: str) -> None:
        """It was done: this may be the end."""
        with self._notes.open("a") as notes:
            notes.write(f"{step}\n")
        if step == self._step:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class Noting:
    """An executor, or a store, of which each change is a step."""

    def __init__(self, inner: Any, steps: Steps):
        self._inner, self._steps = inner, steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def command(self, sql: str) -> object:
        """A statement."""
        answer = self._inner.command(sql)
        self._steps.done(_named(STATEMENTS, sql))
        return answer

    def create(self, name: str, content: bytes) -> bool:
        """A small file."""
        made: bool = self._inner.create(name, content)
        self._steps.done(_named(FILES, name))
        return made

    def drop(self, name: str) -> None:
        """A file that is taken away."""
        self._inner.drop(name)
        self._steps.done(f"{_named(FILES, name)} taken away")

    def put(self, name: str, draft: pathlib.Path) -> None:
        """A file of rows, under its name from now on."""
        self._steps.done("draft")
        self._inner.put(name, draft)
        self._steps.done(_named(FILES, name))

    def drafted(self, name: str) -> AbstractContextManager[pathlib.Path]:
        """See `Store`."""
        drafted: AbstractContextManager[pathlib.Path] = self._inner.drafted(name)
        return drafted


def _named(names: dict[str, str], text: str) -> str:
    return next((name for part, name in names.items() if part in text), text)


def noting(steps: Steps, made: Callable[..., None]) -> Callable[..., None]:
    """The runner's `__init__`, with all that it changes noted."""

    def init(self: Any, executor: Any, database: str, **options: Any) -> None:
        options["store"] = Noting(options["store"], steps)
        if (barring := options.get("barring")) is not None:
            barring._executor = Noting(barring._executor, steps)
        made(self, Noting(executor, steps), database, **options)
        steps.done("begin")

    return init


if __name__ == "__main__":
    notes, step, number, *arguments = sys.argv[1:]
    settled: Any = functools.partial(Limits, settle_s=-10.0)
    runner.Limits = settled  # type: ignore[misc]
    init = noting(Steps(pathlib.Path(notes), step, int(number)), runner.Runner.__init__)
    runner.Runner.__init__ = init  # type: ignore[method-assign]
    main(arguments)
