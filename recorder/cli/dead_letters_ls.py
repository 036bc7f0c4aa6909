"""`recorder dead-letters ls`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from recorder.cli.dead_letters_options import filter_of, filters, reading, when_shown
from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import counted, emit_json, emit_table, note

if TYPE_CHECKING:
    from recorder.dead_letters.listing import Listed, Listing
    from recorder.dead_letters.store import Group

SHOWN_CHARACTERS = 60
MESSAGE = "(message)"


@click.command()
@filters
@click.option(
    "--open/--all", "open_only", default=True, show_default=True, help="Only those that are open, or all."
)
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
@click.option("--summary", "as_summary", is_flag=True, help="How many there are, by table and reason.")
@pass_invocation
def ls(invocation: Invocation, /, open_only: bool, limit: int, as_summary: bool, **which: Any) -> None:
    """List dead letters, the newest first.

    Times are those of the rows where they came from a bus or a file, else when they were refused, UTC.

    \b
    Example:
        recorder dead-letters ls --summary
        recorder dead-letters ls --table orders --since 2h
        recorder dead-letters ls --all --reason not_json --json
    """
    from recorder.dead_letters.listing import listing, summary

    wanted = filter_of(**which)
    settings = invocation.settings()
    with reading(settings) as (store, examiner):
        if as_summary:
            groups = asyncio.run(summary(store, examiner, wanted))
            _tell_groups(invocation, [group for group in groups if group.open or not open_only])
        else:
            found = asyncio.run(listing(store, examiner, wanted, open_only=open_only, limit=limit))
            _tell(invocation, found, open_only)


def _tell(invocation: Invocation, found: Listing, open_only: bool) -> None:
    if invocation.json:
        emit_json([as_json(listed) for listed in found.letters])
    elif found.letters:
        emit_table(
            ["id", "time", "table", "reason", "state", "bytes", "origin", "detail"],
            [
                (
                    listed.letter.name,
                    when_shown(listed.letter.ts_local),
                    listed.letter.table or MESSAGE,
                    listed.letter.reason,
                    "open" if listed.open else "closed",
                    f"{listed.letter.payload_bytes:,}",
                    listed.letter.origin,
                    _cut(listed.letter.detail),
                )
                for listed in found.letters
            ],
            right=("bytes",),
        )
    else:
        note("no open dead letters" if open_only else "no dead letters")
    if found.cut:
        note(
            f"there may be more than these {counted(len(found.letters), 'letter')}; --limit shows more, --summary all"
        )


def as_json(listed: Listed) -> dict[str, Any]:
    """A letter for programs."""
    letter = listed.letter
    return {
        "id": letter.name,
        "ts_local": letter.ts_local,
        "time": when_shown(letter.ts_local),
        "table": letter.table,
        "reason": letter.reason,
        "detail": letter.detail,
        "origin": letter.origin,
        "open": listed.open,
        "source_log": letter.source[0] if letter.source else None,
        "source_seq": letter.source[1] if letter.source else None,
        "payload_bytes": letter.payload_bytes,
        "payload_format": letter.payload_format,
        "correlation_id": letter.correlation_id,
        "run_id": letter.run_id,
        "recorder_run_id": letter.recorder_run_id,
    }


def _tell_groups(invocation: Invocation, groups: list[Group]) -> None:
    if invocation.json:
        emit_json(
            [
                {
                    "table": group.table,
                    "reason": group.reason,
                    "letters": group.letters,
                    "open": group.open,
                    "first_ns": group.first_ns,
                    "last_ns": group.last_ns,
                }
                for group in groups
            ]
        )
        return
    if not groups:
        note("no dead letters")
        return
    emit_table(
        ["table", "reason", "letters", "open", "first", "last"],
        [
            (
                group.table or MESSAGE,
                group.reason,
                f"{group.letters:,}",
                f"{group.open:,}",
                when_shown(group.first_ns),
                when_shown(group.last_ns),
            )
            for group in groups
        ],
        right=("letters", "open"),
    )


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
