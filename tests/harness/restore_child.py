"""`recorder` in small inserts that kills itself at a step of a restore: `restore_child.py STEP N ARGUMENTS…`.

Steps are each "insert", each "sums" (of the look-up, and then of the comparison) and each "identities" that it asks
for; see `dying`. ARGUMENTS are those of `recorder`.
"""

from __future__ import annotations

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from harness.dying import Death

from recorder.cli import archive_target, main
from retention.archive import Limits, restore

death = Death(*sys.argv[1:3])
for function, name in (("sums", "sums"), ("identities", "identities"), ("_insert", "insert")):
    death.replace(archive_target.TableTarget, function, name)
restore.Limits = lambda: Limits(group_rows=16, known_rows=20)  # type: ignore[misc,assignment]
sys.argv[:3] = ["recorder"]
main()
