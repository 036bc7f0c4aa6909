"""Code in an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What became of it, and what it printed."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
