"""Which alarms stand, and what was raised or cleared by a look: hysteresis, so that none flaps. Pure.

A key's life:

    quiet ──found──► pending ──lasted `after_s`──► raised ──not found for `clear_s`──► quiet
                        └──not found──► quiet

Invariants
- Of a key, raised and cleared alternate, raised first.
- A key stays raised for `clear_s` at least after it was last found.
- Shed rows are found at the look that sees their number grow, never twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from recorder.alarms.alarm import Key
from recorder.alarms.rules import AlarmPolicy, Finding, Look, findings


@dataclass(frozen=True)
class Standing:
    """One key that is pending or raised; times on the clock of the looks."""

    finding: Finding
    """As it was last found."""
    since_s: float
    """When it was first found, of this time."""
    found_s: float
    """When it was last found."""
    raised: bool


@dataclass(frozen=True)
class Change:
    """A key was raised or cleared."""

    key: Key
    raised: bool
    why: str
    """What raised it, as it was last found."""
    lasted_s: float
    """From when it was first found to when it was last found."""


@dataclass(frozen=True)
class AlarmState:
    """What is remembered from look to look."""

    standing: Mapping[Key, Standing] = field(default_factory=dict)
    shed: Mapping[str, int] = field(default_factory=dict)
    """Rows that each table had shed at the last look."""

    @property
    def raised(self) -> dict[Key, Standing]:
        """The alarms that stand."""
        return {key: one for key, one in self.standing.items() if one.raised}


def advance(state: AlarmState, look: Look, policy: AlarmPolicy) -> tuple[AlarmState, list[Change]]:
    """The state after a look that is later than all before, and what changed by it."""
    found = findings(look, policy, state.shed)
    standing: dict[Key, Standing] = {}
    changes: list[Change] = []
    for key in dict.fromkeys((*state.standing, *found)):
        before = state.standing.get(key)
        after = _next(before, found.get(key), look.now_s)
        if after is not None:
            standing[key] = after
        told = after or before
        if told is not None and (before is not None and before.raised) != (
            after is not None and after.raised
        ):
            changes.append(
                Change(key, after is not None, told.finding.why, told.found_s - told.since_s)
            )  # fmt: skip
    shed = {table.table: table.shed_rows for table in look.tables}
    return AlarmState(standing, {**state.shed, **shed}), changes


def _next(before: Standing | None, finding: Finding | None, now_s: float) -> Standing | None:
    """What becomes of one key."""
    if finding is not None:
        since_s = now_s if before is None else before.since_s
        raised = now_s - since_s >= finding.after_s or (before is not None and before.raised)
        return Standing(finding, since_s, now_s, raised)
    if before is None or not before.raised:
        return None
    return before if now_s - before.found_s < before.finding.clear_s else None
