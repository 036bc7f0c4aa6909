"""One mutation tried: a copy of the code in a folder of its own, one piece taken out, and the named test run there.

A mutation is *missed* when its test fails in its own body with the failure that the table announces. Everything else is
told apart from that: a test that still passes (the mutation survived), one that fails otherwise (an import error, a
time limit), a run that used other code than the copy. The checkout itself is never touched.
"""

from __future__ import annotations

import enum
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]
COPIED = (
    "recorder",
    "retention",
    "wal",
    "schemas",
    "tests/harness",
    "tests/mutations",
    "tests/conftest.py",
    "pyproject.toml",
)
"""What every run of tests needs."""
REPORT = "MUTATION_REPORT"
"""The environment variable that says where the run writes what it saw; see `mutations.witness`."""
TEST_TIMEOUT_S = 40
RUN_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Edit:
    """Code that stands exactly once in a file, and what stands there instead."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutation:
    """`test` is the node id of the test that must fail, with a message that matches `says`.

    `why` tells what goes wrong without the piece. `root`: the test needs root, and is skipped elsewhere.
    """

    name: str
    edits: tuple[Edit, ...]
    test: str
    says: str
    why: str
    root: bool = False


class Verdict(enum.Enum):
    """What became of a trial. Only `MISSED` is well."""

    MISSED = "missed"
    SURVIVED = "survived"
    FAILED_OTHERWISE = "failed otherwise"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Outcome:
    """`message` is the failure of the test, or what else there is to say."""

    mutation: Mutation
    verdict: Verdict
    message: str
    seconds: float


class CodeMoved(Exception):  # noqa: N818 - says what is the case
    """The code that a mutation takes out is not there any more, or not once: the table must follow it."""


def mutated(text: str, edit: Edit) -> str:
    """A file's text after an edit.

    Raises:
        CodeMoved: the old code does not stand in it exactly once.
    """
    count = text.count(edit.old)
    if count != 1:
        raise CodeMoved(
            f"{edit.file}: the code of a mutation stands there {count} times, expected once; mend "
            f"tests/mutations/table.py:\n{edit.old}"
        )
    return text.replace(edit.old, edit.new)


def try_out(mutation: Mutation) -> Outcome:
    """Take it out of a copy and run its test there."""
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        folder = pathlib.Path(name)
        copy_code(folder, [mutation.test])
        try:
            take_out(folder, mutation)
        except CodeMoved as error:
            verdict, message = Verdict.FAILED_OTHERWISE, str(error)
        else:
            report = run(folder, [mutation.test], {edit.file for edit in mutation.edits})
            verdict, message = judge(mutation, report)
    return Outcome(mutation, verdict, message, time.monotonic() - started_s)


def take_out(folder: pathlib.Path, mutation: Mutation) -> None:
    """Change the copy in a folder.

    Raises:
        CodeMoved: there is nothing to take out.
    """
    for edit in mutation.edits:
        path = folder / edit.file
        path.write_text(mutated(path.read_text(), edit))
        for stale in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            stale.unlink()  # its time and length may be those of the file as it is now


def baseline(tests: Collection[str]) -> dict[str, str]:
    """What is wrong with these tests where nothing is taken out: their failures, by test; empty if all pass."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        folder = pathlib.Path(name)
        copy_code(folder, tests)
        report = run(folder, sorted(tests), set(), timeout_s=RUN_TIMEOUT_S * 4)
    seen = {test["id"]: test for test in report.get("tests", [])}
    wrong = {}
    for test in tests:
        if test not in seen:
            wrong[test] = f"it was not run: {report['end']}"
        elif seen[test]["outcome"] == "failed":
            wrong[test] = seen[test]["message"]
    return wrong


def copy_code(folder: pathlib.Path, tests: Collection[str]) -> None:
    """What a run of these tests needs, with what Python has compiled of it."""
    files = {pathlib.Path(test.partition("::")[0]) for test in tests}
    files |= {file.parent / "conftest.py" for file in files}
    compiled = [
        found.relative_to(ROOT)
        for file in files
        for found in (ROOT / file).parent.glob(f"__pycache__/{file.stem}.*.pyc")
    ]
    for name in [*map(pathlib.Path, COPIED), *files, *compiled]:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*"))
        elif source.exists() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def run(
    folder: pathlib.Path, tests: Sequence[str], files: Collection[str], timeout_s: float = RUN_TIMEOUT_S
) -> dict[str, Any]:
    """Run tests of a copy: what the witness saw, and in `end` how it ended."""
    report, temporary = folder / "report.json", folder / "temporary"
    temporary.mkdir()
    command = [
        *(sys.executable, "-m", "pytest", "-q", "--tb=short", "--color=no", "-p", "mutations.witness"),
        *(
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "-p",
            "no:hypothesispytest",
        ),  # which cost more than the test
        *("-o", f"timeout={TEST_TIMEOUT_S}"),
        *(f"--basetemp={temporary / 'pytest'}", *tests),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {
        "PYTHONPATH": f"{folder}{os.pathsep}{folder / 'tests'}",
        "TMPDIR": str(temporary),
        REPORT: str(report),
    }
    modules = [file.removesuffix(".py").replace("/", ".") for file in files]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment | {f"{REPORT}_MODULES": ",".join(modules)}, check=False,
            capture_output=True, text=True, timeout=timeout_s,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"end": f"it took more than {timeout_s:g} s"}
    end = f"exit status {done.returncode}\n{done.stdout[-2_000:]}{done.stderr[-2_000:]}"
    try:
        seen: dict[str, Any] = json.loads(report.read_text())
    except FileNotFoundError:
        return {"end": end}
    for module, file in seen["modules"].items():
        if not file or not pathlib.Path(file).is_relative_to(folder):
            return {"end": f"it ran {module} from {file or 'nowhere'}, and not from the copy in {folder}"}
    return seen | {"end": end}


def judge(mutation: Mutation, report: dict[str, Any]) -> tuple[Verdict, str]:
    """What a run says of a mutation."""
    tests = [test for test in report.get("tests", []) if test["id"] == mutation.test]
    if not tests:
        return Verdict.FAILED_OTHERWISE, f"the test was not run: {report['end']}"
    test = tests[0]
    if test["outcome"] == "passed":
        return Verdict.SURVIVED, "the test passes without it"
    if test["outcome"] == "skipped":
        return Verdict.SKIPPED, test["message"]
    if test["when"] != "call" or not re.search(mutation.says, test["message"], re.DOTALL):
        return (
            Verdict.FAILED_OTHERWISE,
            f"in its {test['when']}, expected {mutation.says!r}, found: {test['message']}",
        )
    return Verdict.MISSED, test["message"]
