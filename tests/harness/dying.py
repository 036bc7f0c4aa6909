"""What ends this process amid its work, as `kill -9` does: at the n-th call of a step, which has a name.

    death = Death(*sys.argv[1:3])               # such as `after insert` and `4`, or `never` and `1`
    death.replace(ClientSink, "insert", "insert")
    with death.around("file"): ...

It is said in words when it ends: `before` a step, `after` it, once it was done without an error, or `amid` it, a moment
after it began. Whoever starts such a process is in `killing`; the steps of the log have marks that outlive a process,
and are in `log_steps`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import pathlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

NEVER = "never"
TIMES = ("before", "amid", "after")
AMID_S = 0.004
"""How long after it began a step is ended amid; one that is done sooner is ended behind it."""


def die() -> NoReturn:
    """As from outside: nothing of Python runs after it."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL came not before the call of kill returned")


class Death:
    """At which call of which step this process ends. With `notes`, a file gets the name of each step that was done,
    before the process goes on or ends."""

    def __init__(self, step: str, nth: int | str = 1, notes: pathlib.Path | None = None):
        self.when, _, self.name = step.partition(" ")
        self._left, self._notes = int(nth), notes
        if step != NEVER and (self.when not in TIMES or not self.name or self._left < 1):
            raise ValueError(
                f"{step!r}, call {nth}: expected {NEVER!r}, or one of {TIMES} and the name of a step"
            )

    @contextlib.contextmanager
    def around(self, name: str) -> Iterator[None]:
        """A call of a step, which may be the last thing that is done."""
        mine = self._is_mine(name)
        if mine and self.when == "before":
            die()
        if mine and self.when == "amid":
            threading.Timer(AMID_S, die).start()
        yield
        if self._notes is not None:
            with self._notes.open("a") as notes:
                notes.write(f"{name}\n")
        if mine:
            die()

    def at(self, name: str) -> None:
        """A step that is nothing but a place that is come to."""
        with self.around(name):
            pass

    def of(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """A function, of which each call is a step."""

        @functools.wraps(call)
        def called(*arguments: Any, **options: Any) -> Any:
            with self.around(name):
                return call(*arguments, **options)

        @functools.wraps(call)
        async def awaited(*arguments: Any, **options: Any) -> Any:
            with self.around(name):
                return await call(*arguments, **options)

        return awaited if inspect.iscoroutinefunction(call) else called

    def replace(self, owner: Any, function: str, name: str) -> None:
        """Make each call of a function of a class or module a step."""
        setattr(owner, function, self.of(name, getattr(owner, function)))

    def _is_mine(self, name: str) -> bool:
        if name != self.name:
            return False
        self._left -= 1
        return self._left == 0


class Statements:
    """An executor of which each statement that changes something is a step, of the name that `named` gives it."""

    def __init__(self, inner: Any, death: Death, named: Callable[[str], str]):
        self._inner, self._death, self._named = inner, death, named

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def command(self, sql: str) -> object:
        """Run a statement."""
        with self._death.around(self._named(sql)):
            return self._inner.command(sql)
