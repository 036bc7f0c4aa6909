"""Runs of a recorder on one folder and one database, one after the other, most of them killed; and what must be true.

with Nursery(folder) as nursery:
    chain = Chain(nursery, folder / "data", target="", database="default")
    chain.killed_at("after seal", nth=2)
    chain.killed_after(0.2)
    chain.whole()           # a run that is let be; checks all there is
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any, Self

import msgspec

from .ingest_files import child_environment
from .log_child import PIECE, Run

TESTS = pathlib.Path(__file__).parents[1]
GAP = 1_000_000
"""Row numbers of a run."""


class Nursery:
    """A process that forks recorders; see `log_child`."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / "temporary"
        temporary.mkdir(exist_ok=True)
        self._errors = (self._folder / "errors").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "harness.log_child", str(self._folder / "answer")],
            cwd=TESTS, text=True, bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            env=child_environment(TMPDIR=str(temporary), PYTHONPATH=f"{TESTS.parent}{os.pathsep}{TESTS}"),
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()

    def send(self, run: Run) -> None:
        """Begin a run."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(run).decode() + "\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL of the run under way, now."""
        assert self._process.stdin is not None
        self._process.stdin.write("!")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """How it ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"the forking process has ended: {self.tail()}")
        told: dict[str, Any] = json.loads(line)
        assert told["status"] in (0, -signal.SIGKILL), f"{told.get('said')}\n{self.tail()}"
        return told

    def tail(self) -> str:
        """The end of what its recorders said."""
        self._errors.flush()
        return pathlib.Path(self._errors.name).read_text()[-4_000:]


class Chain:
    """See the module. `killed` counts kills by where they fell, `durable` is what each run was told."""

    def __init__(self, nursery: Nursery, data_dir: pathlib.Path, *, target: str = "", database: str):
        self._nursery = nursery
        self.target = target
        self._fixed = {"data_dir": str(data_dir), "database": database}
        self._first = 0
        self.runs: list[str] = []
        """What each run was, for who has to find out."""
        self.durable: list[tuple[int, int]] = []
        """First row of a run, and the row up to which it was told durable."""
        self.fell: collections.Counter[str] = collections.Counter()
        """By where, how many kills fell there; one may fall in several places."""
        self.idle = 0
        """Kills with no row under way and nothing being done."""
        self.kills = 0

    def begin(self, **how: Any) -> None:
        """Start a run; `end` sees its end."""
        self.runs.append(" ".join(f"{name}={value}" for name, value in how.items()))
        self._nursery.send(Run(first=self._first, target=self.target, **self._fixed, **how))

    def end(self) -> dict[str, Any]:
        """A run is over."""
        try:
            told = self._nursery.answer()
        except AssertionError as error:
            raise AssertionError(f"run {len(self.runs)} ({self.runs[-1]}): {error}") from error
        # One that was killed before it recorded was told nothing.
        self.durable.append((self._first, max(self._first, told["durable"])))
        self._first += GAP
        if told["status"]:
            self.kills += 1
            self.fell.update(told["inside"])
            self.idle += not told["inside"] and told["recorded"] == told["durable"]
        return told

    def killed_now(self) -> None:
        """Kill the run that was begun."""
        self._nursery.kill()
        assert self.end()["status"] == -signal.SIGKILL, "it ended before it was killed"

    def killed_at(self, step: str, nth: int, kill_s: float = 0.0) -> None:
        """A run that is killed the nth time it comes to a step, or so long after."""
        self.begin(step=step, nth=nth, kill_s=kill_s)
        told = self.end()
        assert told["came"], f"run {len(self.runs)} did not come to {step!r} for the {nth}. time: {told}"
        self.fell[f"step: {step}"] += 1

    def killed_after(self, kill_s: float, *, young: bool = False) -> None:
        """A run that is killed so long after its recorder started, or after the fork."""
        self.begin(kill_s=kill_s, young=young)
        self.end()

    def whole(self) -> None:
        """A run that is let be: every durable row is there once, no identity is there twice, and all is counted."""
        self.begin(rows=3 * PIECE)
        told = self.end()
        assert told["status"] == 0, told
        assert self.durable[-1][1] == self.durable[-1][0] + 3 * PIECE
        for table, stored in told["found"]["stored"].items():
            numbers = [number for _, _, number in stored]
            assert len({(log, seq) for log, seq, _ in stored}) == len(stored), f"{table}: an identity twice"
            there = set(numbers)
            if len(there) != len(numbers):
                twice = [n for n, times in collections.Counter(numbers).items() if times > 1]
                raise AssertionError(f"{table}: {len(twice)} rows twice, of runs {self._of(twice)}")
            missing = [n for first, upto in self.durable for n in range(first, upto) if n not in there]
            assert not missing, f"{table}: {len(missing)} durable rows are lost, of runs {self._of(missing)}"
        for table, (balance, exact) in told["found"]["balances"].items():
            assert exact, (table, balance)
            assert balance["shed"] == balance["pending"] == 0, (table, balance)

    def _of(self, numbers: list[int]) -> str:
        """The runs that recorded them, and the first of them."""
        runs = sorted({number // GAP for number in numbers})
        named = ", ".join(f"{run + 1} ({self.runs[run]})" for run in runs[:5])
        return f"{named}; rows {numbers[:5]}"
