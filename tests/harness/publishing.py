"""A publishing process: rows of `orders` through `recorder.Publisher` at a rate, as a trading process would.

with PublishingProcess(bus_url, rows_per_s=10_000) as publishing:
    publishing.phase("trouble")        # calls from now on are measured under this name
    published = publishing.finish()    # publishes no more, waits until all is acknowledged, and tells

Each row has its number as `client_order_id`, and all else in it follows from that. The child obeys lines on its stdin
and ends when that closes.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

TESTS = pathlib.Path(__file__).parents[1]
FLUSH_S = 120.0
NS_A_ROW = 100_000
"""Between the times of two rows."""


@dataclass(frozen=True)
class Calls:
    """What calls of `publish` took in one phase, in microseconds: of the clock, and of the processor."""

    count: int
    p50_us: float
    p999_us: float
    max_us: float
    cpu_p999_us: float


@dataclass(frozen=True)
class Published:
    """What a publishing process did.

    `offered` rows were handed to `publish`, messages by messages of `rows_a_message`; `shed` are the numbers of the
    messages that it did not take; `calls` by phase; `acknowledged` says that all it took was, `stats` are its counts.
    It published for `seconds`; `first_ns` is the time of row 0.
    """

    offered: int
    rows_a_message: int
    shed: tuple[int, ...]
    calls: Mapping[str, Calls]
    acknowledged: bool
    stats: Mapping[str, int]
    seconds: float
    first_ns: int

    @property
    def rows_per_s(self) -> float:
        """The rate that rows were really offered at."""
        return self.offered / self.seconds

    def wrong_rows(self, table: str, *, timed: bool = True) -> str:
        """A query of how many rows of a table are not as they were published, whichever of them are there.

        Their times are left out unless they are `timed`, which they are on a clock that does not jump.
        """
        times = f"OR toUnixTimestamp64Nano(ts_local) != {self.first_ns} + n * {NS_A_ROW}" if timed else ""
        return (
            f"SELECT countIf(symbol != concat('S', toString(n % 7)) OR status != 'Open' "
            f"OR toDecimal128(qty, 18) != n + toDecimal128('0.000000000000000001', 18) {times}) "
            f"FROM (SELECT *, toInt64(client_order_id) AS n FROM {table})"
        )

    def accepted(self) -> list[int]:
        """The numbers of all rows that it took, in order."""
        lost = frozenset(self.shed)
        size = self.rows_a_message
        return [number for number in range(self.offered) if number // size not in lost]


class PublishingProcess:
    """See the module. `options` go to `Publisher` by name. With `clock_jump_s` its clock is set back and forth by so
    much all the while, and rows have the time of their message."""

    def __init__(
        self,
        url: str,
        *,
        rows_per_s: float = 10_000,
        rows_a_message: int = 10,
        clock_jump_s: float = 0.0,
        **options: Any,
    ):
        said = {
            "url": url, "rows_per_s": rows_per_s, "rows_a_message": rows_a_message, "clock_jump_s": clock_jump_s,
            "options": options,
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-m", "harness.publishing_child", json.dumps(said)],
            env=os.environ | {"PYTHONPATH": str(TESTS)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def phase(self, name: str) -> None:
        """Measure the calls from now on under this name."""
        self._say(f"phase {name}")

    def finish(self) -> Published:
        """Have it publish no more, wait for all acknowledgements, and tell."""
        self._say("finish")
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the publishing process has ended; its error is above"
        told = json.loads(line)
        calls = {name: Calls(**found) for name, found in told.pop("calls").items()}
        return Published(calls=calls, shed=tuple(told.pop("shed")), **told)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it. Idempotent."""
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(FLUSH_S)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
