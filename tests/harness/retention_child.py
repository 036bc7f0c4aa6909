"""`recorder` in a process that kills itself behind a step of retention: `python -m harness.retention_child NOTES STEP N
ARGUMENTS…`.

Steps are what changes something: statements of the run, those of bars, and files of the archive, each under a name;
`begin` is before the first. See `dying` for STEP and N. NOTES is a file that gets a line a step, flushed before the
process goes on. ARGUMENTS are those of `recorder`. Partitions count as settled at once.
"""

from __future__ import annotations

import functools
import pathlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from harness.dying import Death, Statements

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


class Files:
    """A store of which each change is a step."""

    def __init__(self, inner: Any, death: Death):
        self._inner, self._death = inner, death

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def create(self, name: str, content: bytes) -> bool:
        """A small file."""
        with self._death.around(_named(FILES, name)):
            made: bool = self._inner.create(name, content)
        return made

    def drop(self, name: str) -> None:
        """A file that is taken away."""
        with self._death.around(f"{_named(FILES, name)} taken away"):
            self._inner.drop(name)

    def put(self, name: str, draft: pathlib.Path) -> None:
        """A file of rows, under its name from now on."""
        self._death.at("draft")
        with self._death.around(_named(FILES, name)):
            self._inner.put(name, draft)

    def drafted(self, name: str) -> AbstractContextManager[pathlib.Path]:
        """See `Store`."""
        drafted: AbstractContextManager[pathlib.Path] = self._inner.drafted(name)
        return drafted


def _named(names: dict[str, str], text: str) -> str:
    return next((name for part, name in names.items() if part in text), text)


def stepping(death: Death, made: Callable[..., None]) -> Callable[..., None]:
    """The runner's `__init__`, with all that it changes a step."""

    def statements(executor: Any) -> Statements:
        return Statements(executor, death, lambda sql: _named(STATEMENTS, sql))

    def init(self: Any, executor: Any, database: str, **options: Any) -> None:
        options["store"] = Files(options["store"], death)
        if (barring := options.get("barring")) is not None:
            barring._executor = statements(barring._executor)
        made(self, statements(executor), database, **options)
        death.at("begin")

    return init


if __name__ == "__main__":
    notes, step, number, *arguments = sys.argv[1:]
    settled: Any = functools.partial(Limits, settle_s=-10.0)
    runner.Limits = settled  # type: ignore[misc]
    death = Death(step, number, pathlib.Path(notes))
    runner.Runner.__init__ = stepping(death, runner.Runner.__init__)  # type: ignore[method-assign]
    main(arguments)
