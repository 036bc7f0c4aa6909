"""The most memory a process has held since a moment, as Linux keeps it: no sample falls between two looks.

`proc(5)`: `VmHWM` is the peak of the resident set, and writing 5 to `clear_refs` starts it anew.
"""

from __future__ import annotations

import re
from pathlib import Path

_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def peak_bytes(pid: int | str = "self") -> int:
    """The peak of what the process held since it started, or since `forget_peak`.

    Raises:
        OSError: this system does not tell.
    """
    found = _PEAK.search(Path(f"/proc/{pid}/status").read_text())
    if found is None:
        raise OSError(f"/proc/{pid}/status has no VmHWM")
    return int(found[1]) * 1024


def forget_peak(pid: int | str = "self") -> int:
    """Start the peak anew, from what is held now; that, in bytes."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak_bytes(pid)
