"""What the numbers were measured on: without it a benchmark's result means nothing."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_load_at_start = os.getloadavg()[0]
"""Read when the process begins: later it is the benchmark's own."""


@dataclass(frozen=True)
class Machine:
    """The machine, the interpreter, and the versions of what the recorder stands on."""

    cores: int
    processor: str
    memory_bytes: int
    system: str
    python: str
    engine: str
    packages: dict[str, str]
    load_1min: float
    """The load average before the run: above a fraction of the cores, the numbers are not clean."""
    server: str = ""
    """The URL of the server that was measured; empty for the embedded engine."""

    def line(self) -> str:
        """One line for people."""
        where = f"at {self.server}" if self.server else f"in chDB {self.packages.get('chdb', '?')}"
        engine = f"ClickHouse {self.engine} {where}, " if self.engine else ""
        return (
            f"{self.cores} cores ({self.processor}), {self.memory_bytes / 2**30:.0f} GiB, {self.system}, "
            f"Python {self.python}, {engine}load {self.load_1min:.1f} at start"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def describe_machine(engine: str, *, server: str = "") -> Machine:
    """This machine; `engine` is the version that the database gave, empty where none is part of the run; `server` where
    that is, if not in this process."""
    return Machine(
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        processor=_processor(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        engine=engine,
        packages={
            name: _version(name) for name in ("chdb", "clickhouse-connect", "pyarrow", "numpy", "uvloop")
        },
        load_1min=round(_load_at_start, 2),
        server=server,
    )


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
