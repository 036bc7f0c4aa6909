"""SIGKILL of a recorder, at random and at every step of a row's way: what was durable is in the database, once.

On the embedded engine, which dies with its recorder, and on a server, which goes on with what it was sent. Of every 200
kills (`make torture` does thousands), half are at a step. A test that fails says its seed and which run went wrong;
`RECORDER_TEST_SEED` runs the same kills again, as far as another machine's pace lets it.
"""

from __future__ import annotations

import os
import pathlib
import random
from collections.abc import Iterator

import pytest
from harness.dev_server import DevServerProcess
from harness.log_kills import Chain, Nursery
from harness.log_steps import AFTER_A_KILL, STEPS

KILLS = int(os.environ.get("RECORDER_TEST_KILLS", "10")) * 20
"""Over all tests here; for others that read it, a kill takes twenty times as long."""
ROUNDS = {"embedded": max(1, KILLS // 200), "server": max(1, 3 * KILLS // 200)}
"""How often every step is come to, with 26 kills each time. An engine takes half a second to start."""
RANDOM = {"embedded": 3 * KILLS // 20, "server": 7 * KILLS // 20}
WHOLE_EVERY = 20
"""Kills between two checks of all there is."""
NTH_MAX = 4
"""Steps are killed at the first to this time that a run comes to them."""
KILL_S_MAX = 0.01
"""How long after it began something is killed in its midst."""

pytestmark = [pytest.mark.slow, pytest.mark.torture, pytest.mark.timeout(120 + 5 * KILLS)]


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("nursery")) as nursery:
        yield nursery


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServerProcess]:
    with DevServerProcess(tmp_path_factory.mktemp("server") / "db") as server:
        yield server


@pytest.fixture(params=["embedded", "server"])
def database(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def chain(request: pytest.FixtureRequest, nursery: Nursery, database: str, tmp_path: pathlib.Path) -> Chain:
    target = request.getfixturevalue("server").url if database == "server" else ""
    return Chain(
        nursery, tmp_path / "data", target=target, database=f"kills_{request.node.name[12:18]}".strip("_")
    )


def seed() -> int:
    """Of this run; said first, so that also a test that is cut off has told it."""
    value = int(os.environ.get("RECORDER_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
    print(f"RECORDER_TEST_SEED={value}")
    return value


def checked(chain: Chain, value: int, told: AssertionError | None = None) -> None:
    """Say where kills fell, or that it failed."""
    fell = ", ".join(f"{place} {count}" for place, count in sorted(chain.fell.items()))
    print(f"{chain.kills} kills, {chain.idle} with nothing to do; they fell in: {fell}")
    if told is not None:
        runs = "\n".join(f"{number + 1}: {run}" for number, run in enumerate(chain.runs))
        raise AssertionError(f"{told}\nRECORDER_TEST_SEED={value}, runs:\n{runs}") from told


def steps_in_turn(rng: random.Random, rounds: int) -> list[str]:
    """Every step equally often, in any order."""
    return [step for _ in range(rounds) for step in rng.sample(sorted(STEPS), len(STEPS))]


def test_killed_at_every_step_it_loses_and_doubles_nothing(chain: Chain, database: str) -> None:
    """Whatever a row's log, its database or its checkpoint was told last, the next run makes of it what it was."""
    value = seed()
    rng = random.Random(value)
    try:
        chain.whole()  # makes the tables
        for number, step in enumerate(steps_in_turn(rng, ROUNDS[database]), start=1):
            if (before := AFTER_A_KILL.get(step)) is not None:
                chain.killed_at(before, rng.randint(1, NTH_MAX), rng.uniform(0, KILL_S_MAX))
            nth = 1 if before is not None else rng.randint(1, NTH_MAX)
            chain.killed_at(step, nth, rng.uniform(0, KILL_S_MAX))
            if number % WHOLE_EVERY == 0:
                chain.whole()
        chain.whole()
    except AssertionError as error:
        checked(chain, value, error)
    checked(chain, value)
    missed = [step for step in STEPS if not chain.fell[f"step: {step}"]]
    assert not missed, f"no run came to {missed}"


def test_killed_at_random_it_loses_and_doubles_nothing(chain: Chain, database: str) -> None:
    """At any moment of its life, one in four while it starts and gets in what the run before left."""
    value = seed()
    rng = random.Random(value)
    kills = RANDOM[database]
    try:
        chain.whole()
        for number in range(1, kills + 1):
            if rng.random() < 0.25:
                chain.killed_after(rng.uniform(0.05, 0.6), young=True)
            else:
                chain.killed_after(rng.uniform(0, 0.25))
            if number % WHOLE_EVERY == 0:
                chain.whole()
        chain.whole()
    except AssertionError as error:
        checked(chain, value, error)
    checked(chain, value)
    assert chain.kills == kills
    assert chain.idle <= kills / 2, "kills hit recorders with nothing to do"
