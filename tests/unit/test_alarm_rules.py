"""What is an alarm, from one look: rules and stillness, which are pure."""

from __future__ import annotations

from typing import Any

import pytest

from recorder.alarms.alarm import Alarm, Key
from recorder.alarms.board import together
from recorder.alarms.rules import AlarmPolicy, Finding, Look, TableLook, findings, lag_limit_s
from recorder.alarms.state import AlarmState, Change, advance
from recorder.alarms.stillness import LONGEST_STEP_S, Stillness, Work
from recorder.flush_worker import WorkerState

POLICY = AlarmPolicy(retry_s=5.0, clear_s=10.0, loss_s=100.0)


def table(name: str = "orders", **fields: Any) -> TableLook:
    """A table that is well, but for what is given."""
    return TableLook(
        **({"table": name, "critical": True, "state": WorkerState.FLOWING, "linger_s": 1.0} | fields)
    )


def found(*tables: TableLook, before: dict[str, int] | None = None, **fields: Any) -> dict[Key, Finding]:
    return findings(Look(now_s=0.0, tables=tables, **fields), POLICY, before or {})


def test_a_recorder_that_is_well_has_no_findings() -> None:
    """Also with rows that wait for company, and with what was shed before."""
    assert found(table(waits_s=4.9, late_s=4.9, shed={"full": 3}), before={"orders": 3}) == {}


def test_a_table_that_is_held_is_a_failure_at_once_and_one_that_retries_after_a_while() -> None:
    """Troubles of seconds pass by themselves; a held table waits for somebody."""
    held = found(table(state=WorkerState.HELD, why="no such column"))
    assert held == {Key(Alarm.FAILURE, "orders"): Finding("is held: no such column", 0.0, POLICY.clear_s)}
    (retrying,) = found(table(state=WorkerState.RETRYING, why="reset")).values()
    assert retrying.after_s == POLICY.retry_s
    assert retrying.why.endswith(": reset")


def test_a_database_that_never_answered_is_one_failure_of_the_recorder() -> None:
    """Its tables wait with it, and are not told each."""
    tables = [table(name, state=WorkerState.RETRYING) for name in ("orders", "fills")]
    assert found(*tables, away="refused") == {
        Key(Alarm.FAILURE): Finding("has no contact with the database: refused", 0.0, POLICY.clear_s)
    }


def test_troubles_are_failures_of_whose_task_it_is() -> None:
    """Beside a table's state, in one alarm."""
    both = found(table(state=WorkerState.HELD, why="x", troubles=["worker died"]), troubles=["gaps died"])
    assert both[Key(Alarm.FAILURE, "orders")].why == "is held: x; worker died"
    assert both[Key(Alarm.FAILURE)].why == "gaps died"


@pytest.mark.parametrize(("linger_s", "limit_s"), [(0.25, 5.0), (1.0, 5.0), (2.0, 6.0), (60.0, 180.0)])
def test_lag_is_an_alarm_above_its_limit(linger_s: float, limit_s: float) -> None:
    """max(5 s, three lingers): of what got in, and of what waits; not at the limit itself."""
    assert lag_limit_s(linger_s) == limit_s
    for which in ("waits_s", "late_s"):
        assert not found(table(linger_s=linger_s, **{which: limit_s}))
        assert set(found(table(linger_s=linger_s, **{which: limit_s + 0.1}))) == {Key(Alarm.LAG, "orders")}


def test_shed_rows_are_a_loss_or_thinning_by_their_table() -> None:
    """Rows beyond those of the look before; the alarm says how many in all, and a loss stands longer."""
    shed = {"full": 1_200, "shutdown": 34}
    (loss,) = found(table(shed=shed), before={"orders": 1_233}).items()
    assert loss == (
        Key(Alarm.DATA_LOSS, "orders"),
        Finding("lost 1,234 rows in all (full 1,200, shutdown 34)", 0.0, POLICY.loss_s),
    )
    (thinned,) = found(table("market_data", critical=False, shed={"drop_oldest": 7})).items()
    assert thinned == (
        Key(Alarm.SHEDDING, "market_data"),
        Finding("shed 7 rows in all (drop_oldest 7)", 0.0, POLICY.clear_s),
    )


def test_a_loss_stands_for_its_time_after_the_last_row_lost() -> None:
    """And says then how many rows in all."""
    state, told = AlarmState(), []
    for now_s, rows in ((0.0, 1), (50.0, 1), (60.0, 4), (159.9, 4), (160.0, 4), (500.0, 4)):
        look = Look(now_s=now_s, tables=[table(shed={"full": rows})])
        state, changes = advance(state, look, POLICY)
        told += [(now_s, change.raised, change.why) for change in changes]
    assert told == [
        (0.0, True, "lost 1 rows in all (full 1)"),
        (160.0, False, "lost 4 rows in all (full 4)"),
    ]


def test_the_log_s_disk_has_a_place() -> None:
    """The alarm is reserved: whoever fills it in has it raised."""
    assert set(found(wal_disk="97 % full")) == {Key(Alarm.WAL_DISK)}


def test_tables_with_one_cause_share_a_line() -> None:
    """Whether the reason quotes the table's name or not; raised and cleared apart, as are alarms."""
    changes = [
        Change(Key(Alarm.FAILURE, "orders"), True, "is held: orders: gone", 0.0),
        Change(Key(Alarm.FAILURE, "fills"), True, "is held: gone", 0.0),
        Change(Key(Alarm.FAILURE, "quotes"), False, "is held: gone", 9.0),
        Change(Key(Alarm.FAILURE), True, "has no contact", 0.0),
    ]
    assert together(changes) == [
        (Alarm.FAILURE, True, "is held: gone", ["orders", "fills"]),
        (Alarm.FAILURE, False, "is held: gone", ["quotes"]),
        (Alarm.FAILURE, True, "has no contact", ["recorder"]),
    ]


def test_stillness_counts_while_the_same_work_is_there_and_nothing_moves() -> None:
    """It begins anew when something moved, when another has the work, and when there is none."""
    still = Stillness()
    for now_s, work, still_s in (
        (0.0, Work("worker", 1), 0.0),
        (1.0, Work("worker", 1), 1.0),
        (2.0, Work("worker", 1), 2.0),
        (3.0, Work("worker", 2), 0.0),
        (4.0, Work("worker", 2), 1.0),
        (5.0, Work("builder", 2), 0.0),
        (6.0, None, 0.0),
        (7.0, None, 0.0),
        (8.0, Work("builder", 2), 0.0),
    ):
        still = still.after(work, now_s)
        assert still.still_s == still_s, now_s


def test_time_in_which_nobody_looked_makes_nobody_still() -> None:
    """A process that was stopped for an hour could not move: it counts as one long step."""
    still = Stillness().after(Work("worker", 1), 0.0).after(Work("worker", 1), 3_600.0)
    assert still.still_s == LONGEST_STEP_S
