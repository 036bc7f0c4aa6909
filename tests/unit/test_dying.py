"""A process that is to end at a step ends there and nowhere else: before, amid or behind the call that was named."""

from __future__ import annotations

import pathlib
import signal

import pytest
from harness.dying import NEVER, Death
from harness.running_code import run

SECOND = 2
CALLS = f"""
    import asyncio, pathlib, sys, time
    sys.path.insert(0, {str(pathlib.Path(__file__).parents[1])!r})
    from harness.dying import Death, Statements

    death = Death(*sys.argv[1:3], notes=pathlib.Path(sys.argv[3]))
    say = lambda *words: print(*words, flush=True)

    class Work:
        def call(self, n):
            say("call", n)
            time.sleep(60 * (n == 2 and death.when == "amid"))
            return n

        async def wait(self, n):
            say("wait", n)

        def command(self, sql):
            say(sql)

    death.replace(Work, "call", "call")
    death.replace(Work, "wait", "wait")
    work = Work()
    statements = Statements(work, death, lambda sql: sql.split()[0])
    for n in (1, 2, 3):
        assert work.call(n) == n
        asyncio.run(work.wait(n))
        statements.command(f"INSERT {{n}}")
"""


@pytest.mark.parametrize(("step", "said", "noted"), [
    ("before call", 3, 3), ("amid call", 4, 3), ("after call", 4, 4), ("before wait", 4, 4), ("after wait", 5, 5),
    ("before INSERT", 5, 5), ("after INSERT", 6, 6), (NEVER, 9, 9),
])  # fmt: skip
def test_it_ends_at_the_second_call_of_its_step(
    tmp_path: pathlib.Path, step: str, said: int, noted: int
) -> None:
    """What was said before the end is what was begun, and what is noted is what was done; others go on."""
    ended = run(CALLS, step, str(SECOND), str(tmp_path / "notes"))
    assert ended.returncode == (0 if step == NEVER else -signal.SIGKILL), ended.stderr
    words = [f"{word} {n}" for n in (1, 2, 3) for word in ("call", "wait", "INSERT")]
    assert ended.stdout.splitlines() == words[:said]
    assert (tmp_path / "notes").read_text().split() == [word.split()[0] for word in words[:noted]]


def test_a_step_that_fails_is_not_done(tmp_path: pathlib.Path) -> None:
    """An error goes on, notes nothing and does not end the process; it was a call all the same."""
    death = Death("after call", 1, tmp_path / "notes")

    def fails() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        death.of("call", fails)()
    with death.around("call"):
        pass
    assert (tmp_path / "notes").read_text() == "call\n"


@pytest.mark.parametrize(
    ("step", "nth"), [("", 1), ("insert", 1), ("behind insert", 1), ("after ", 1), ("after x", 0)]
)
def test_words_that_would_never_end_it_are_refused(step: str, nth: int) -> None:
    """A test whose step is misspelt would be one in which nothing dies."""
    with pytest.raises(ValueError, match="expected"):
        Death(step, nth)
