"""Whether somebody who has work stands still. Pure.

Time counts only as looks come: where nobody looked for long, the recorder's loop stood still or the whole process did,
and whoever is watched could not move either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

LONGEST_STEP_S = 2.0
"""What the time between two looks counts at most."""


class Work(NamedTuple):
    """Who has work, and a number that changes whenever he does some of it."""

    who: str
    moved: int


@dataclass(frozen=True)
class Stillness:
    """For how long the same worker has had work and did none of it."""

    work: Work | None = None
    looked_s: float = 0.0
    still_s: float = 0.0

    def after(self, work: Work | None, now_s: float) -> Stillness:
        """The same after a look that finds that work."""
        if work is None or work != self.work:
            return Stillness(work, now_s)
        return Stillness(work, now_s, self.still_s + min(now_s - self.looked_s, LONGEST_STEP_S))
