"""What every request of a server has in common."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from recorder.devserver.engine import Server
from recorder.devserver.execute import Executor
from recorder.devserver.hooks import Hooks
from recorder.devserver.running import Run, Running
from recorder.devserver.sessions import Sessions


@dataclass(frozen=True)
class Front:
    """The server as its requests see it.

    `admits` says whether a user and a password are the right ones, `beside` lets something go on after a request,
    `end` ends a statement. Statements run on threads of priority `nice`. Bodies may have `body_bytes`, statements
    `query_bytes`, answers that are waited for whole `answer_bytes`; what is too much for memory lies in `folder`.
    `takes_data` is whether inserts and tables may come with a request at all.
    """

    server: Server
    executor: Executor
    running: Running
    sessions: Sessions
    hooks: Hooks | None
    nice: int
    admits: Callable[[str, str], bool]
    beside: Callable[[Coroutine[Any, Any, None]], None]
    end: Callable[[Run], None]
    body_bytes: int
    query_bytes: int
    answer_bytes: int
    takes_data: bool
    folder: pathlib.Path
