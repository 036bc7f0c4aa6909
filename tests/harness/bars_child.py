"""`recorder bars build` in a process that kills itself: `python -m harness.bars_child STEP N`.

Steps are its statements, by their first word: `before INSERT`, `amid INSERT`; see `dying`. Settings are those of the
environment.
"""

from __future__ import annotations

import sys

from harness.dying import Death, Statements

from recorder import Settings
from recorder.bars.build import build
from recorder.bars.survey import Scope
from recorder.bars.windows import ALL_BARS
from recorder.cli.bars import writing

if __name__ == "__main__":
    settings, death = Settings(), Death(*sys.argv[1:3])
    with writing(settings) as executor:
        for bars in ALL_BARS:
            statements = Statements(executor, death, lambda sql: sql.partition(" ")[0])
            build(statements, settings.database, bars, Scope())
