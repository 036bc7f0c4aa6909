"""Laws of raising and clearing, over any sequence of looks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from recorder.alarms.alarm import Alarm, Key
from recorder.alarms.rules import AlarmPolicy, Look, TableLook, findings
from recorder.alarms.state import AlarmState, advance
from recorder.flush_worker import WorkerState

POLICY = AlarmPolicy(retry_s=5.0, clear_s=10.0, loss_s=30.0)
TABLES = {"orders": True, "market_data": False}

moments = st.tuples(
    st.sampled_from([0.5, 1.0, 4.0, 5.0, 10.0, 31.0]),
    st.sampled_from(["", "nobody answers"]),
    st.sampled_from([(), ("gaps died",)]),
    st.fixed_dictionaries({
        name: st.tuples(
            st.sampled_from(WorkerState), st.sampled_from([0.0, 4.0, 6.0]), st.sampled_from([0, 0, 0, 1, 40])
        )
        for name in TABLES
    }),
)  # fmt: skip
"""Time since the look before, contact, troubles; of each table its state, its lag, and rows shed since."""


def looks_of(
    steps: list[tuple[float, str, tuple[str, ...], dict[str, tuple[WorkerState, float, int]]]],
) -> list[Look]:
    now_s, shed, looks = 100.0, dict.fromkeys(TABLES, 0), []
    for pause_s, away, troubles, tables in steps:
        now_s += pause_s
        for name, (_, _, rows) in tables.items():
            shed[name] += rows
        looks.append(
            Look(
                now_s=now_s,
                away=away,
                troubles=troubles,
                tables=[
                    TableLook(table=name, critical=TABLES[name], state=state, waits_s=lag_s, linger_s=1.0,
                              shed={"full": shed[name]})
                    for name, (state, lag_s, _) in tables.items()
                ],
            )
        )  # fmt: skip
    return looks


@given(st.lists(moments, max_size=40).map(looks_of))
def test_raised_and_cleared_alternate_and_nothing_flaps(looks: list[Look]) -> None:
    """Of a key, a raise comes first and each is followed by the other; what was found stands at once or after its time,
    and for its time; what stands is what was raised and not cleared.
    """
    state, raised, last_found, first_found = AlarmState(), set[Key](), dict[Key, float](), dict[Key, float]()
    for look in looks:
        found = findings(look, POLICY, state.shed)
        for key in found:
            if key not in first_found:
                first_found[key] = look.now_s
        state, changes = advance(state, look, POLICY)
        assert len({change.key for change in changes}) == len(changes)
        for change in changes:
            assert change.raised == (change.key not in raised)
            if change.raised:
                assert change.key in found
                assert look.now_s - first_found[change.key] >= found[change.key].after_s
                raised.add(change.key)
            else:
                clear_s = POLICY.loss_s if change.key.alarm is Alarm.DATA_LOSS else POLICY.clear_s
                assert look.now_s - last_found[change.key] >= clear_s
                raised.remove(change.key)
                first_found.pop(change.key)
        for key, finding in found.items():
            last_found[key] = look.now_s
            assert key in raised or look.now_s - first_found[key] < finding.after_s
        for key in first_found.keys() - found.keys() - raised:
            first_found.pop(key)
        assert set(state.raised) == raised


@given(st.lists(moments, max_size=40).map(looks_of))
def test_no_shed_row_goes_without_its_alarm(looks: list[Look]) -> None:
    """Whenever a table's shed rows have grown, the alarm of its kind stands, and says how many in all."""
    state, before = AlarmState(), dict.fromkeys(TABLES, 0)
    for look in looks:
        state, _ = advance(state, look, POLICY)
        for table in look.tables:
            if table.shed_rows > before[table.table]:
                alarm = Alarm.DATA_LOSS if table.critical else Alarm.SHEDDING
                assert f"{table.shed_rows:,} rows in all" in state.raised[Key(alarm, table.table)].finding.why
            before[table.table] = table.shed_rows


@given(st.lists(moments, min_size=1, max_size=20).map(looks_of))
def test_all_is_cleared_once_all_is_well_for_long_enough(looks: list[Look]) -> None:
    """No alarm is stuck: after the longest time to clear, nothing stands."""
    state = AlarmState()
    for look in looks:
        state, _ = advance(state, look, POLICY)
    well = [
        TableLook(table=one.table, critical=one.critical, state=WorkerState.FLOWING, linger_s=1.0, shed=one.shed)
        for one in looks[-1].tables
    ]  # fmt: skip
    now_s = looks[-1].now_s
    for later_s in (0.5, max(POLICY.clear_s, POLICY.loss_s)):
        state, _ = advance(state, Look(now_s=now_s + later_s, tables=well), POLICY)
    assert not state.standing
