"""SIGKILL of a recorder, at random and at every step of a row's way: what was durable is in the database, once."""

from __future__ import annotations

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
from typing import Any

import pytest
from harness.ingest_files import child_environment
from harness.log_child import STEPS

TESTS = pathlib.Path(__file__).parents[1]
ROUNDS = int(os.environ.get("RECORDER_TEST_KILLS", "20"))
ROWS = 400

AFTER_A_KILL = {
    "during replay": "before seal",
    "during replay of a seal": "before confirm",
    "look-up": "before confirm",
}
"""Steps that only a run comes to whose predecessor was killed, and where that one is."""

pytestmark = [pytest.mark.slow, pytest.mark.torture]


class Killed:
    """Runs on one folder, each killed; `durable` is how far the last one was told."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.first = 0
        self.durable: list[tuple[int, int]] = []
        """First row of a run, and the row up to which it was told durable."""
        self._told = folder / "told"
        self._temporary = folder / "temporary"
        self._temporary.mkdir(parents=True)

    def start(self, count: int, *step: object) -> subprocess.Popen[str]:
        self._told.write_text(str(self.first))
        command = [sys.executable, "-m", "harness.log_child", str(self.folder / "data"), str(self._told)]
        return subprocess.Popen(
            [*command, str(self.first), str(count), *map(str, step)], cwd=TESTS, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=child_environment(TMPDIR=str(self._temporary), PYTHONPATH=f"{TESTS.parent}{os.pathsep}{TESTS}"),
        )  # fmt: skip

    def ended(self, count: int) -> None:
        """A run of so many rows is over."""
        self.durable.append((self.first, int(self._told.read_text() or self.first)))
        self.first += count

    def whole(self) -> None:
        """A last run that is let be: every durable row is there once, and no identity twice; all is counted."""
        done = self.start(50)
        out, err = done.communicate(timeout=120)
        assert done.returncode == 0, err
        self.ended(50)
        found: dict[str, Any] = json.loads(out)
        for table, stored in found["stored"].items():
            numbers = [number for _, _, number in stored]
            assert len({(log, seq) for log, seq, _ in stored}) == len(stored), f"{table}: an identity twice"
            assert len(set(numbers)) == len(numbers), f"{table}: a row twice"
            there = set(numbers)
            missing = [n for first, upto in self.durable for n in range(first, upto) if n not in there]
            assert not missing, f"{table}: {len(missing)} durable rows are lost, first {missing[:5]}"
        for table, (balance, exact) in found["balances"].items():
            assert exact, (table, balance)
            assert balance["shed"] == 0, (table, balance)


def test_killed_at_random_it_loses_and_doubles_nothing(tmp_path: pathlib.Path) -> None:
    """Again and again on the same log and database, also while it gets in what the runs before left."""
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    killed = Killed(tmp_path)
    for _ in range(ROUNDS):
        run = killed.start(100_000)
        try:
            run.communicate(timeout=rng.uniform(0.8, 2.5))
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            run.communicate()
        killed.ended(100_000)
    killed.whole()


@pytest.mark.parametrize("step", sorted(STEPS))
def test_killed_at_a_step_it_loses_and_doubles_nothing(tmp_path: pathlib.Path, step: str) -> None:
    """The first time it comes there, and later ones; each run begins with what the one before left."""
    killed = Killed(tmp_path)
    came = 0
    if step in AFTER_A_KILL:
        killed.start(ROWS, AFTER_A_KILL[step], 5).communicate(timeout=120)
        killed.ended(ROWS)
    for nth in (1, 3):
        run = killed.start(ROWS, step, nth)
        _, err = run.communicate(timeout=120)
        assert run.returncode in (0, -signal.SIGKILL), err
        came += run.returncode != 0
        killed.ended(ROWS)
    killed.whole()
    assert came, f"no run came to {step!r}"
