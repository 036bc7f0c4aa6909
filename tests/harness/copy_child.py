"""A `recorder copy` that is killed at a named step: `copy_child.py STEP N ARGUMENTS…`, with small blocks.

STEP is before or after the N-th "insert", or before or after the N-th time that a partition is remembered as verified
("keep"); "never" lets it end.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from recorder.cli import main
from recorder.copying import blocks
from recorder.copying.verified import Verified
from recorder.sink.client_sink import ClientSink

BLOCK_ROWS = 500

step, number = sys.argv[1], int(sys.argv[2])
counts = {"insert": itertools.count(1), "keep": itertools.count(1)}


def at(name: str) -> None:
    if name == step:
        os.kill(os.getpid(), signal.SIGKILL)


def marked(kind: str) -> Callable[[], tuple[str, str]]:
    """What the steps around this call are called, were it the N-th."""

    def names() -> tuple[str, str]:
        mine = next(counts[kind]) == number
        return (f"before {kind}", f"after {kind}") if mine else ("", "")

    return names


inserting, keeping = marked("insert"), marked("keep")
insert, keep = ClientSink.insert, Verified.keep


async def killed_insert(self: Any, *arguments: Any, **options: Any) -> None:
    before, after = inserting()
    at(before)
    await insert(self, *arguments, **options)
    at(after)


def killed_keep(self: Any, *arguments: Any) -> None:
    before, after = keeping()
    at(before)
    keep(self, *arguments)
    at(after)


ClientSink.insert = killed_insert  # type: ignore[method-assign]
Verified.keep = killed_keep  # type: ignore[method-assign]
blocks.bounded.__defaults__ = (BLOCK_ROWS, 1 << 20)
main(sys.argv[3:])
