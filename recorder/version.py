"""Which recorder this is, and the row that says so at every start."""

from __future__ import annotations

import importlib.metadata
import os
import socket
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recorder.settings import Settings
from schemas.pack import Pack

DISTRIBUTION = "coldpath-recorder"


def version() -> str:
    """The version of the installed distribution; `unknown` when run from a bare checkout."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def git_sha() -> str:
    """The commit this was built from: `RECORDER_GIT_SHA`, else that of the checkout it runs from, else empty."""
    if given := os.environ.get("RECORDER_GIT_SHA"):
        return given
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return ""
    try:
        asked = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.strip() if asked.returncode == 0 else ""


def run_row(recorder_run_id: str, settings: Settings, packs: Iterable[Pack]) -> dict[str, Any]:
    """The row of `recorder_runs` for this start."""
    return {
        "recorder_run_id": recorder_run_id,
        "ts_start": time.time_ns(),
        "version": version(),
        "git_sha": git_sha(),
        "config_hash": settings.config_hash,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "packs": {pack.name: str(pack.migrations[-1].number) if pack.migrations else "0" for pack in packs},
    }
