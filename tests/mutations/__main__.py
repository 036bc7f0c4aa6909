"""Take each piece out, and see that it is missed: `python -m mutations`, `--help` for its options.

Ends with 1 where a piece is not missed, or where a named test fails with everything in place.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import sys

from rich.console import Console
from rich.table import Table

from mutations.table import MUTATIONS
from mutations.trial import Outcome, Verdict, baseline, try_out

COLOURS = {
    Verdict.MISSED: "green",
    Verdict.SURVIVED: "red",
    Verdict.FAILED_OTHERWISE: "red",
    Verdict.SKIPPED: "yellow",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutations", description=__doc__)
    parser.add_argument("--only", metavar="TEXT", default="", help="mutations whose names hold this")
    parser.add_argument("--json", action="store_true", help="one object a mutation, on lines of their own")
    parser.add_argument("--no-baseline", action="store_true", help="do not run the tests unmutated before")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="so many at the same time")
    asked = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if asked.only in mutation.name]
    if not chosen:
        parser.error(
            f"no mutation has {asked.only!r} in its name; there are {', '.join(m.name for m in MUTATIONS)}"
        )
    if not asked.no_baseline and (wrong := baseline({mutation.test for mutation in chosen})):
        for test, message in wrong.items():
            print(f"{test} fails where nothing was taken out: {message}", file=sys.stderr)
        return 1
    with concurrent.futures.ThreadPoolExecutor(max(1, asked.jobs)) as pool:
        outcomes = list(pool.map(try_out, chosen))
    show_json(outcomes) if asked.json else show_table(outcomes)
    well = {Verdict.MISSED} if os.geteuid() == 0 else {Verdict.MISSED, Verdict.SKIPPED}
    return int(any(outcome.verdict not in well for outcome in outcomes))


def show_json(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        mutation = outcome.mutation
        told = {
            "name": mutation.name, "why": mutation.why, "files": [edit.file for edit in mutation.edits],
            "test": mutation.test, "verdict": outcome.verdict.value, "message": outcome.message,
            "seconds": round(outcome.seconds, 2),
        }  # fmt: skip
        print(json.dumps(told))


def show_table(outcomes: list[Outcome]) -> None:
    table = Table(title="What is taken out, and which test misses it", show_lines=True)
    for heading in ("taken out", "file", "without it", "test", "verdict", "s"):
        table.add_column(heading, justify="right" if heading == "s" else "left", overflow="fold")
    for outcome in outcomes:
        mutation, colour = outcome.mutation, COLOURS[outcome.verdict]
        table.add_row(
            mutation.name,
            "\n".join(dict.fromkeys(edit.file for edit in mutation.edits)),
            mutation.why,
            mutation.test.partition("::")[2],
            f"[{colour}]{outcome.verdict.value}[/]",
            f"{outcome.seconds:.1f}",
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)
    for outcome in outcomes:
        if outcome.verdict is not Verdict.MISSED:
            console.print(f"{outcome.mutation.name}: {outcome.message}", markup=False)
    missed = sum(outcome.verdict is Verdict.MISSED for outcome in outcomes)
    console.print(f"{missed} of {len(outcomes)} are missed, in {sum(o.seconds for o in outcomes):.0f} s")


if __name__ == "__main__":
    sys.exit(main())
