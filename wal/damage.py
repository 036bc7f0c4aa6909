"""What is wrong in a log, as values: found by whoever reads, told in one line each, never raised."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Harm(enum.Enum):
    """What kind of damage, and what it costs."""

    PREAMBLE = "one of its two preambles is broken; nothing is lost"
    UNREADABLE = "both preambles are broken, or it is no file; its rows cannot be read"
    UNREAD = "the disk does not give it; what it holds is not lost, and stays for when it does"
    FOREIGN = "no segment of this log; left alone"
    NEWER = "written by a later version; left alone"
    TORN_TAIL = "an unfinished frame at the end, of a write that was cut off"
    HEADER = "bytes that are no frame, with sound frames after them"
    PAYLOAD = "a frame whose payload is not what was written"
    UNDECODABLE = "a frame whose payload is as it was written, and is no rows of this schema"
    MISSING = "sequences that no segment has"
    MISSING_SEGMENT = "a number between two others that has no file"
    REPEATED = "rows that an earlier frame has too; skipped"
    CHECKPOINT = "the checkpoint cannot be read; everything is replayed"
    CHECKPOINT_AHEAD = "the checkpoint speaks of rows that the log does not have"
    SEAL = "a seal whose rows are not all there; what is left of them is sent without its token"
    SUSPECT = "a write or sync of this segment failed; what was not certain was written again"


@dataclass(frozen=True)
class Damage:
    """One place of a log, and what is wrong there. `rows` is None where nobody can know."""

    harm: Harm
    file: str
    offset: int = 0
    nbytes: int = 0
    epoch: int = 0
    first: int = 0
    """Sequence of the first row concerned."""
    rows: int | None = 0
    """Rows that are lost by it; of `Harm.UNREAD`, that are missing for now."""
    detail: str = ""

    def __str__(self) -> str:
        where = f"{self.file} at {self.offset}" if self.offset or self.nbytes else self.file
        size = f", {self.nbytes} bytes" if self.nbytes else ""
        lost = (
            ", how many rows is unknown" if self.rows is None else f", {self.rows} rows" if self.rows else ""
        )
        return f"{where}{size}{lost}: {self.harm.value}{f' ({self.detail})' if self.detail else ''}"
