"""A process that archives rows and kills itself at a step, see `dying`: `archive_child.py ROOT STEP`."""

from __future__ import annotations

import contextlib
import pathlib
import sys
from collections.abc import Iterator

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from harness.archives import Rows, rows
from harness.dying import Death

from retention.archive import FolderStore, Limits, write_partition

ROOT, STEP = sys.argv[1:]
DEATH = Death(STEP)


class Killed(FolderStore):
    """Dies when it comes to a step."""

    @contextlib.contextmanager
    def drafted(self, name: str) -> Iterator[pathlib.Path]:
        with super().drafted(name) as draft:
            if STEP == "before draft":
                draft.write_bytes(b"half")
            DEATH.at("draft")
            yield draft

    def put(self, name: str, draft: pathlib.Path) -> None:
        with DEATH.around("file"):
            super().put(name, draft)

    def create(self, name: str, content: bytes) -> bool:
        kind = "manifest" if "manifest-" in name else "receipt"
        with DEATH.around(kind):
            return super().create(name, content)


write_partition(
    Rows(rows(0, 300)),
    Killed(pathlib.Path(ROOT)),
    recorder_version="1.2.3",
    limits=Limits(group_rows=64, file_bytes=4_000),
)
