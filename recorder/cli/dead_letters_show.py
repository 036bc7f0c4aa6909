"""`recorder dead-letters show`."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

import click

from recorder.cli.dead_letters_ls import MESSAGE
from recorder.cli.dead_letters_options import filter_of, reading, when_shown
from recorder.cli.errors import Failure
from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import counted, emit_json, shown

if TYPE_CHECKING:
    from recorder.dead_letters.examine import Examined
    from recorder.dead_letters.letter import Letter

SHOWN_BYTES = 64 << 10


@click.command()
@click.argument("name", metavar="ID")
@click.option("--raw", is_flag=True, help="Only the bytes, as they are, on standard output.")
@pass_invocation
def show(invocation: Invocation, name: str, raw: bool) -> None:
    """Show a dead letter: why, where from, its bytes (as they are kept: without secrets), and what a retry would do.

    Bytes are shown as JSON, as what their MessagePack says, as text, or in hex.

    \b
    Example:
        recorder dead-letters show 9f3c0a1b2c3d4e5f-12
        recorder dead-letters show --raw 9f3c0a1b2c3d4e5f-12 > message.bin
    """
    wanted = filter_of([name], table=None, reason=None, since=None, until=None, origin=None)
    settings = invocation.settings()
    with reading(settings) as (store, examiner):

        async def find() -> Examined | None:
            async for page in store.pages(wanted):
                async for letters in store.read(page):
                    return (await examiner.examine(letters))[0]
            return None

        found = asyncio.run(find())
    if found is None:
        raise Failure(f'there is no dead letter {name}; "recorder dead-letters ls --all" lists them')
    payload = found.letter.payload or b""
    if raw:
        from recorder.cli.output import write_bytes

        write_bytes(payload)
    elif invocation.json:
        emit_json(_as_json(found))
    else:
        _tell(found)


def _as_json(found: Examined) -> dict[str, Any]:
    from recorder.cli.dead_letters_ls import as_json
    from recorder.dead_letters.examine import State
    from recorder.dead_letters.listing import Listed
    from recorder.dead_letters.readable import readable

    letter = found.letter
    payload = letter.payload or b""
    kind, text = readable(payload, letter.payload_format)
    return {
        **as_json(Listed(letter, found.state is not State.CLOSED)),
        "payload_shown_as": kind,
        "payload": text,
        "payload_base64": base64.b64encode(payload).decode(),
        "retry": {
            "state": str(found.state),
            "there": [_place(table, identity) for table, identity in found.there],
            "would_insert": [_place(row.table, row.identity) for row in found.absent],
            "faults": [fault._asdict() for fault in found.faults],
        },
    }


def _place(table: str, identity: tuple[int, int]) -> dict[str, Any]:
    return {"table": table, "log": identity[0], "seq": identity[1]}


def _tell(found: Examined) -> None:
    letter = found.letter
    from recorder.dead_letters.readable import readable

    kind, text = readable((letter.payload or b"")[:SHOWN_BYTES], letter.payload_format)
    for name, value in _facts(letter):
        click.echo(f"{name:<12} {shown(value)}")
    more = f", the first {SHOWN_BYTES:,}" if letter.payload_bytes > SHOWN_BYTES else ""
    click.echo(f"\n{counted(letter.payload_bytes, 'byte')}{more}, shown as {kind}:\n")
    click.echo(shown(text))
    click.echo("\nretried now:")
    for line in outcome(found):
        click.echo(f"  {shown(line)}")


def _facts(letter: Letter) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = [
        ("id", letter.name),
        ("time", f"{when_shown(letter.ts_local)} UTC"),
        ("table", letter.table or MESSAGE),
        ("reason", letter.reason),
        ("detail", letter.detail),
        ("origin", letter.origin or (None if letter.of_a_source else "a producer in the recorder's process")),
        ("identity", f"{letter.source[0]} {letter.source[1]}" if letter.source else None),
        ("correlation", letter.correlation_id),
        ("run", letter.run_id),
        ("recorder run", letter.recorder_run_id),
    ]
    return [(name, value) for name, value in facts if value not in (None, "")]


def outcome(found: Examined) -> list[str]:
    """What a retry of a letter would do, a line each."""
    lines = []
    if found.there:
        tables = ", ".join(sorted({table for table, _ in found.there}))
        lines.append(f"{counted(len(found.there), 'row')} there already: {tables}")
    lines += [
        f"would be inserted into {row.table} as {row.identity[0]} {row.identity[1]}" for row in found.absent
    ]
    return lines + [f"still wrong, {fault.reason}: {fault.detail}" for fault in found.faults]
