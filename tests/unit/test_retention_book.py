"""What a recorder knows of its runs of retention, and when that is an alarm: pure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.alarms.alarm import Alarm, Key
from recorder.alarms.rules import AlarmPolicy, Look
from recorder.alarms.state import AlarmState, advance
from recorder.retaining.book import OVERDUE_GRACE_S, WHYS_MOST, Book, End, Ended, Run, Told, summary
from recorder.retaining.schedule import Schedule
from retention.due import Action, Kind
from retention.runner import Outcome, State

S = 1_000_000_000
DAY = 86_400 * S
NIGHTLY = Schedule("0 2 * * *")
TWO = NIGHTLY.after_ns(20_000 * DAY)
"""02:00 of some day."""
DONE, FAILED, LEFT = End(how=Ended.DONE), End(how=Ended.FAILED, why="no room"), End(how=Ended.LEFT)


def told(kind: str = "drop", state: str = "done", **fields: Any) -> Told:
    defaults: dict[str, Any] = {"table": "orders", "partition": "202408", "rows": 5, "bytes_on_disk": 50,
                                "told": "said"}  # fmt: skip
    return Told(kind=kind, state=state, **(defaults | fields))


def after(*ends: tuple[End, int], started_ns: int = TWO) -> Book:
    book = Book(started_ns=started_ns)
    for end, at_ns in ends:
        book = book.begun(at_ns - 60 * S).ended(end, at_ns)
    return book


def test_what_runs_did_is_counted() -> None:
    """By kind and state; rows and bytes of what was done alone; how long the last run took."""
    book = Book(started_ns=TWO).begun(TWO)
    for one in (told("archive"), told(), told(state="failed", rows=9), told("held", "left", rows=7)):
        book = book.told(one)
    stats = book.ended(DONE, TWO + 30 * S).stats(NIGHTLY, TWO + 31 * S)
    assert stats.actions == {
        ("archive", "done"): 1, ("drop", "done"): 1, ("drop", "failed"): 1, ("held", "left"): 1,
    }  # fmt: skip
    assert (stats.rows, stats.nbytes) == ({"archive": 5, "drop": 5}, {"archive": 50, "drop": 50})
    assert (stats.runs["done"], stats.runs["failed"], stats.last_seconds) == (1, 0, 30.0)


def test_a_run_of_which_an_action_failed_has_failed() -> None:
    """It names the first ones, and says how many more; one that was left or stopped is no failure."""
    run = Run(began_ns=TWO)
    assert run.end(DONE) is DONE
    for number in range(WHYS_MOST + 2):
        run = run.told(told(state="failed", partition=str(number)))
    end = run.end(DONE)
    assert end.how is Ended.FAILED
    assert "orders 0: drop: said" in end.why
    assert end.why.endswith(", and 2 more")
    assert run.end(LEFT) is LEFT
    message, details = summary(run, end, TWO + 3 * S)
    assert message.startswith("a run of retention failed (5 failed): orders 0")
    assert (details["outcome"], details["seconds"]) == ("failed", 3.0)


def test_a_failure_is_trouble_until_a_run_succeeds() -> None:
    """One that was left to another recorder neither is one nor ends one."""
    assert after((DONE, TWO)).trouble(NIGHTLY, TWO + 1) == ""
    failed = after((DONE, TWO), (FAILED, TWO + DAY))
    assert "no room" in failed.trouble(NIGHTLY, TWO + DAY + 1)
    assert failed.trouble(None, TWO + DAY + 1) != "", "somebody has just begun it"
    assert after((FAILED, TWO), (LEFT, TWO + DAY)).trouble(NIGHTLY, TWO + DAY + 1) != ""
    assert after((FAILED, TWO), (DONE, TWO + DAY)).trouble(NIGHTLY, TWO + DAY + 1) == ""


@pytest.mark.parametrize("ends", [[], [(DONE, TWO + 300 * S)], [(DONE, TWO + 300 * S), (LEFT, TWO + DAY)]])
def test_two_times_without_a_success_are_trouble(ends: list[tuple[End, int]]) -> None:
    """From the second time on, and a moment for it to begin; a run that began in time may yet succeed."""
    book = after(*ends)
    second = TWO + 2 * DAY
    grace = int(OVERDUE_GRACE_S) * S
    assert book.trouble(NIGHTLY, second + grace) == ""
    assert "two of its times have passed" in book.trouble(NIGHTLY, second + grace + 1)
    assert book.trouble(None, second + 9 * DAY) == ""
    assert book.begun(second + S).trouble(NIGHTLY, second + DAY) == ""
    assert book.begun(second + DAY).trouble(NIGHTLY, second + DAY + 1) != ""


def test_a_run_that_never_ends_is_trouble() -> None:
    """One that hangs is told when two of its times have passed since it began; that they are skipped ends nothing."""
    book = after((DONE, TWO)).begun(TWO + DAY)
    grace = int(OVERDUE_GRACE_S) * S
    assert book.trouble(NIGHTLY, TWO + 3 * DAY + grace) == ""
    late = TWO + 3 * DAY + grace + 1
    assert "at work since" in book.trouble(NIGHTLY, late)
    assert "at work since" in book.passed(Ended.SKIPPED).trouble(NIGHTLY, late)
    assert book.trouble(None, late) == ""
    assert book.ended(DONE, late).trouble(NIGHTLY, late + 1) == ""


def test_what_is_told_of_an_action_has_no_secret() -> None:
    """It goes to the log, the alarm and the status, also as the reason of a run that failed."""
    action = Action(kind=Kind.ARCHIVE, table="orders", why="due", partition="202408")
    one = Told.of(Outcome(action, State.FAILED, "no answer of https://me:hunter2@bucket.example/x"))
    assert "bucket.example" in one.told
    assert "hunter2" not in one.told
    assert "hunter2" not in Run(began_ns=TWO).told(one).end(DONE).why


def test_what_other_recorders_did_counts_if_it_is_newer() -> None:
    """A success of another one ends the trouble; what is older than the last own run changes nothing."""
    failed = after((FAILED, TWO + DAY))
    assert failed.judged(DONE, TWO) == failed
    assert failed.judged(DONE, TWO + 2 * DAY).trouble(NIGHTLY, TWO + 2 * DAY + 1) == ""
    done = after((DONE, TWO))
    assert "no room" in done.judged(FAILED, TWO + DAY).trouble(NIGHTLY, TWO + DAY + 1)
    assert done.judged(DONE, TWO + DAY).trouble(NIGHTLY, TWO + 3 * DAY) == ""


def test_where_nothing_runs_by_itself_failures_of_before_are_no_trouble() -> None:
    """Neither those before it was switched off, nor those of an earlier recorder: no later run would end them."""
    failed = after((FAILED, TWO))
    assert failed.switched_off().trouble(None, TWO + 1) == ""
    learned = Book(started_ns=TWO + DAY).judged(FAILED, TWO)
    assert learned.trouble(None, TWO + DAY) == ""
    assert "no room" in learned.trouble(NIGHTLY, TWO + DAY)
    again = failed.switched_off().begun(TWO + S).ended(FAILED, TWO + 2 * S)
    assert "no room" in again.trouble(None, TWO + 3 * S)
    assert "no room" in again.judged(FAILED, TWO + 2 * S + 1).trouble(None, TWO + 3 * S), (
        "its own row, read back"
    )
    assert again.judged(DONE, TWO + 3 * S).judged(FAILED, TWO + 4 * S).trouble(None, TWO + 5 * S) == ""


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(Ended)), st.integers(-3 * DAY, 3 * DAY)), max_size=12))
def test_after_an_own_success_there_is_no_trouble(ends: list[tuple[Ended, int]]) -> None:
    """Whatever was before, and however the clock went: also behind a run that was told from the future."""
    book = after(*((End(how=how), TWO + 9 * DAY + offset) for how, offset in ends))
    assert book.begun(TWO).ended(DONE, TWO + 1).trouble(NIGHTLY, TWO + 2) == ""


def test_the_alarm_is_raised_and_cleared_with_the_trouble() -> None:
    """At once, both: a run does not flap."""
    policy = AlarmPolicy(retry_s=5.0, clear_s=10.0, loss_s=100.0)
    state, seen = AlarmState(), []
    for now_s, trouble in ((0.0, ""), (1.0, "failed"), (2.0, "failed"), (3.0, ""), (4.0, "")):
        state, changes = advance(state, Look(now_s=now_s, retention=trouble), policy)
        seen += [(now_s, change.key, change.raised) for change in changes]
    key = Key(Alarm.RETENTION)
    assert seen == [(1.0, key, True), (3.0, key, False)]
