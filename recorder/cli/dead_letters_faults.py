"""How the commands tell what is still wrong with dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recorder.cli.dead_letters_ls import MESSAGE
from recorder.cli.output import emit_table

if TYPE_CHECKING:
    from recorder.dead_letters.letter import Letter
    from recorder.dead_letters.rebuild import Fault

SHOWN_GROUPS = 20
SHOWN_CHARACTERS = 80

Faulty = tuple["Letter", Sequence["Fault"]]


def faults_as_json(found: Sequence[Faulty]) -> list[dict[str, Any]]:
    """For programs, one for each fault of each letter."""
    return [
        {"id": letter.name, "table": letter.table, "reason": fault.reason, "detail": fault.detail}
        for letter, faults in found
        for fault in faults
    ]


def show_faults(found: Sequence[Faulty]) -> None:
    """What is still wrong, one line for all letters of one table and reason."""
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for letter, faults in found:
        for fault in faults:
            groups.setdefault((fault.table or letter.table, fault.reason), []).append(
                (letter.name, fault.detail)
            )
    if not groups:
        return
    emit_table(
        ["table", "still wrong", "times", "such as", "detail"],
        [
            (table or MESSAGE, reason, f"{len(some):,}", some[0][0], _cut(some[0][1]))
            for (table, reason), some in sorted(groups.items(), key=lambda item: -len(item[1]))[:SHOWN_GROUPS]
        ],
        right=("times",),
        caption=f"and {len(groups) - SHOWN_GROUPS} more reasons; --json has all"
        if len(groups) > SHOWN_GROUPS
        else None,
    )


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
