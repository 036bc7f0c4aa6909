"""`recorder` in a process that kills itself: `python -m harness.repartition_child STEP ARGUMENTS…`.

STEP is `before` or `after` and how a statement begins that changes a table's partitions, such as `before EXCHANGE`, or
`never`. ARGUMENTS are those of `recorder`.
"""

from __future__ import annotations

import sys
from typing import Any

from harness.tiers_child import Dying

from recorder import repartition
from recorder.cli.group import main


class Dies(repartition.Repartition):
    """A move that ends its process at one of its statements."""

    step = "never"

    def __init__(self, executor: Any, *arguments: Any, **options: Any):
        super().__init__(
            executor if self.step == "never" else Dying(executor, self.step), *arguments, **options
        )


if __name__ == "__main__":
    Dies.step, *arguments = sys.argv[1:]
    repartition.Repartition = Dies  # type: ignore[misc]
    main(arguments)
