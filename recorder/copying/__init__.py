"""Rows from one database into another: each once, verified partition by partition, to be gone on with after any kill.

    plan = look(source, target, packs, names, span)     what there is to copy, in order of time; refuses what cannot be
    await run(plan, source, target, writer, verified)   partition by partition: compare, copy what lacks, compare again

`tables` says which tables, `partitions` what they hold, `digest` how both sides sum up a partition where it lies,
`compare` which rows lack or differ where the sums do, `blocks` and `write` how rows get in, `partition` how one is
copied, `verified` what is remembered of it.

The target itself says what lacks: a run that was killed left nothing but rows that are there and rows that are not. A
row is known by `(_log, _seq)`, and one that is there is not sent again. Nothing is removed, on either side.
"""

from recorder.copying.ends import Side
from recorder.copying.errors import CannotCopy, CopyError, CopyStopped
from recorder.copying.partition import Outcome, State
from recorder.copying.partitions import Part, Span
from recorder.copying.run import Plan, look, run
from recorder.copying.verified import Verified
from recorder.copying.write import Writer

__all__ = [
    "CannotCopy",
    "CopyError",
    "CopyStopped",
    "Outcome",
    "Part",
    "Plan",
    "Side",
    "Span",
    "State",
    "Verified",
    "Writer",
    "look",
    "run",
]
