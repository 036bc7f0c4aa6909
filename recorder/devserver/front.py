"""What every request of a server has in common."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from recorder.devserver.engine import Server
from recorder.devserver.execute import Executor
from recorder.devserver.hooks import Hooks
from recorder.devserver.request import Request
from recorder.devserver.running import Run, Running
from recorder.devserver.sessions import Sessions

PATIENCE_S = 30.0
"""Where the engine does not say."""
MAX_PATIENCE_S = 86_400.0


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

    def receive_s(self, request: Request) -> float:
        """How long the next piece of a body may take."""
        return self._patience_s(request, "http_receive_timeout")

    def send_s(self, request: Request) -> float:
        """How long a client may take nothing of its answer."""
        return self._patience_s(request, "http_send_timeout")

    def _patience_s(self, request: Request, name: str) -> float:
        usual_s = _seconds(self.server.defaults.get(name, ""), PATIENCE_S)
        given_s = _seconds(request.settings.get(name, ""), usual_s)
        return given_s if self.takes_data else min(given_s, usual_s)


def _seconds(text: str, otherwise: float) -> float:
    try:
        value = float(text)
    except ValueError:
        return otherwise
    return value if 0 < value < MAX_PATIENCE_S else otherwise
