"""Which tables share a reason, so that one cause is told once and not a dozen times. Pure."""

from __future__ import annotations

from collections.abc import Mapping


def by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """Tables by why they do not flow, in their order; `orders: gone` and `fills: gone` are one reason, `gone`."""
    found: dict[str, list[str]] = {}
    for table, why in reasons.items():
        found.setdefault(why.removeprefix(f"{table}: "), []).append(table)
    return found


def as_sentences(verb: str, reasons: Mapping[str, str]) -> list[str]:
    """One sentence for each reason, such as `orders, fills are held: gone`; `verb` is `held` or `retrying`."""
    return [
        f"{tables[0]} is {verb}: {reasons[tables[0]]}"
        if len(tables) == 1
        else f"{', '.join(tables)} are {verb}: {why}"
        for why, tables in by_reason(reasons).items()
    ]
