"""A process that archives rows and is killed at a named step: `archive_child.py ROOT STEP`."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import sys
from collections.abc import Iterator

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from harness.archives import Rows, rows

from retention.archive import FolderStore, Limits, write_partition


class Killed(FolderStore):
    """Dies when it comes to a step."""

    def at(self, step: str) -> None:
        if step == sys.argv[2]:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextlib.contextmanager
    def drafted(self, name: str) -> Iterator[pathlib.Path]:
        with super().drafted(name) as draft:
            if sys.argv[2] == "draft":
                draft.write_bytes(b"half")
            self.at("draft")
            yield draft

    def put(self, name: str, draft: pathlib.Path) -> None:
        self.at("before file")
        super().put(name, draft)
        self.at("after file")

    def create(self, name: str, content: bytes) -> bool:
        kind = "manifest" if "manifest-" in name else "receipt"
        self.at(f"before {kind}")
        made = super().create(name, content)
        self.at(f"after {kind}")
        return made


write_partition(
    Rows(rows(0, 300)),
    Killed(pathlib.Path(sys.argv[1])),
    recorder_version="1.2.3",
    limits=Limits(group_rows=64, file_bytes=4_000),
)
