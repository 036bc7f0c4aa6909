"""A `recorder copy` that kills itself at a step: `python -m harness.copy_child STEP N ARGUMENTS…`, with small blocks.

Steps are each "insert", and each time that a partition is remembered as verified, "keep"; see `dying`.
"""

from __future__ import annotations

import sys

from harness.dying import Death

from recorder.cli import main
from recorder.copying import blocks
from recorder.copying.verified import Verified
from recorder.sink.client_sink import ClientSink

BLOCK_ROWS = 500

if __name__ == "__main__":
    step, number, *words = sys.argv[1:]
    death = Death(step, number)
    death.replace(ClientSink, "insert", "insert")
    death.replace(Verified, "keep", "keep")
    blocks.bounded.__defaults__ = (BLOCK_ROWS, 1 << 20)
    main(words)
