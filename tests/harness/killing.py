"""Commands in processes of their own that kill themselves at a step, and what is there after them.

What the steps are is said by the module that is run, `killed_recorder` unless another is named; `dying` says how.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.backends import Place

TESTS = pathlib.Path(__file__).parents[1]
ENVIRONMENT = {"HOME": "/nonexistent", "LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"}
TIMEOUT_S = 120
CHILD = ("harness.killed_recorder",)


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A module and its arguments in a process that has nothing of this one but its modules."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
        cwd=TESTS,
        env=ENVIRONMENT | environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


@dataclass(frozen=True)
class Killable:
    """`recorder` on a data folder and a database. With a `step` a command is one that may kill itself: a module, what
    it takes before the step, and the step."""

    data_dir: pathlib.Path
    place: Place
    settings: Mapping[str, str] = field(default_factory=dict)
    child: tuple[str, ...] = CHILD

    def run(
        self, *arguments: str, step: str = "", nth: int = 1, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """What became of a command."""
        command = [*self.child, step, str(nth)] if step else ["recorder"]
        environment = {**self.settings, **self.place.variables, **settings}
        return python(*command, "--data-dir", str(self.data_dir), *arguments, **environment)

    def done(self, *arguments: str, step: str = "", **settings: str) -> str:
        """What a command answered that must have ended well."""
        ended = self.run(*arguments, step=step, **settings)
        assert ended.returncode == 0, (arguments, ended.stdout, ended.stderr)
        return ended.stdout

    def killed(self, *arguments: str, step: str, nth: int = 1, **settings: str) -> None:
        """A command that must have killed itself."""
        ended = self.run(*arguments, step=step, nth=nth, **settings)
        assert ended.returncode == -signal.SIGKILL, (step, ended.returncode, ended.stdout, ended.stderr)

    def asked(self, sql: str) -> list[dict[str, Any]]:
        """Rows of a query."""
        found: list[dict[str, Any]] = json.loads(self.done("query", "--json", sql))
        return found

    def ingested(self, table: str, *rows: Mapping[str, Any]) -> None:
        """Bring rows into a table."""
        file = self.data_dir / "ingested.ndjson"
        file.write_text("\n".join(map(json.dumps, rows)))
        self.done("ingest", "--table", table, str(file))
