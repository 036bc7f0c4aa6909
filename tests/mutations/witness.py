"""A plugin of pytest: what became of each test, and where the mutated modules were imported from, as JSON.

Written to the file that `MUTATION_REPORT` names; `MUTATION_REPORT_MODULES` says which modules, separated by commas.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
from typing import Any

import pytest

REPORT = "MUTATION_REPORT"
_tests: dict[str, dict[str, Any]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    seen = _tests.setdefault(
        report.nodeid, {"id": report.nodeid, "outcome": "passed", "when": "call", "message": ""}
    )
    if report.passed or seen["outcome"] == "failed":
        return
    crash = getattr(report.longrepr, "reprcrash", None)
    message = crash.message if crash is not None else str(report.longrepr)
    seen.update(outcome=report.outcome, when=report.when, message=message)


def pytest_sessionfinish() -> None:
    modules = [name for name in os.environ[f"{REPORT}_MODULES"].split(",") if name]
    found = {name: getattr(sys.modules.get(name), "__file__", None) for name in modules}
    pathlib.Path(os.environ[REPORT]).write_text(
        json.dumps({"tests": list(_tests.values()), "modules": found})
    )
