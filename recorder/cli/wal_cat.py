"""`recorder wal cat`: rows as JSON lines, as they stand in the log; or its seals."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from recorder.cli.errors import Failure
from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import note, write_bytes
from recorder.cli.wal_filter import Wanted, wanted_options
from recorder.cli.wal_logs import loses, place_options, places, tell
from recorder.cli.wal_rows import json_line, json_rows
from recorder.log_holder import torn_tail
from wal.errors import FormatError
from wal.format import Kind
from wal.reader import Contents, Entry, LogReader
from wal.seals import read_seal, read_void

POLL_S = 0.1


@click.command()
@click.argument("table", required=False)
@place_options
@wanted_options
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most so many lines.")
@click.option("--follow", is_flag=True, help="Go on with what comes, until interrupted.")
@click.option("--seals", is_flag=True, help="Seals and voids, instead of rows.")
@click.option("--places", "with_places", is_flag=True, help="Say where each row stands.")
@click.option("--iso", is_flag=True, help="Times as ISO text instead of nanoseconds since 1970.")
@pass_invocation
def cat(
    invocation: Invocation,
    table: str | None,
    folder: Path | None,
    second: Path | None,
    since: int | None,
    until: int | None,
    epoch: int | None,
    first: int,
    stop: int | None,
    limit: int | None,
    follow: bool,
    seals: bool,
    with_places: bool,
    iso: bool,
) -> None:
    """Print the rows of a log as JSON lines, in its order, each once.

    Times are nanoseconds since 1970, decimals texts; bytes that are no UTF-8 are {"base64": "…"}. A time is ISO, UTC
    where it names no zone, or nanoseconds. --from and --to count rows within an epoch.

    \b
    Exit codes: 0 done, 1 rows are lost or cannot be read: the others are printed, and a note says which.

    \b
    Example:
        recorder wal cat fills --limit 10
        recorder wal cat fills --since 2024-08-08T12:00 --iso | jq .fill_price
        recorder wal cat orders --follow
        recorder wal cat fills --seals
    """
    log = places(invocation, folder, second).one(table)
    wanted = Wanted(since, until, epoch, first, stop)
    reader = LogReader(log.folders)
    entries = (
        reader.follow(stop=lambda: False, poll_s=POLL_S, check=False)
        if follow
        else reader.entries(check=False)
    )
    left = limit
    with contextlib.suppress(KeyboardInterrupt) if follow else contextlib.nullcontext():
        for entry, contents in entries if limit != 0 else ():
            lines = list(
                _seals(entry, contents, wanted) if seals else _rows(entry, contents, wanted, with_places, iso)
            )[:left]
            if lines:
                write_bytes(b"".join(map(json_line, lines)))
            if left is not None:
                left -= len(lines)
                if left <= 0:
                    break
    # Who stopped before the end was asked for nothing behind it.
    damage = [*reader.damage, *(torn_tail(log.folders) if left is None or left > 0 else ())]
    tell(log, damage)
    if any(map(loses, damage)):
        raise Failure(f'{log.name}: rows are lost or cannot be read; see "recorder wal verify {log.name}"')


def _rows(
    entry: Entry, contents: Contents, wanted: Wanted, with_places: bool, iso: bool
) -> Iterator[dict[str, Any]]:
    part = wanted.places(entry.range)
    if entry.kind is not Kind.ROWS or not part.rows:
        return
    rows = contents.rows()
    if rows is None:
        return
    rows = rows.slice(part.first - entry.range.first, part.rows)
    keep = wanted.by_time(rows)
    for at, row in enumerate(json_rows(rows, iso=iso)):
        if keep is not None and not keep[at]:
            continue
        if with_places:
            place = {"segment": entry.segment, "epoch": f"{part.epoch:016x}", "sequence": part.first + at}
            yield {**place, "row": row}
        else:
            yield row


def _seals(entry: Entry, contents: Contents, wanted: Wanted) -> Iterator[dict[str, Any]]:
    if entry.kind is Kind.ROWS or wanted.epoch not in (None, entry.range.epoch):
        return
    payload = contents.payload()
    if payload is None:
        return
    where = {"segment": entry.segment, "offset": entry.frame.offset, "epoch": f"{entry.range.epoch:016x}"}
    try:
        if entry.kind is Kind.VOID:
            yield {"kind": "void", **where, "tokens": list(read_void(payload).tokens)}
            return
        seal = read_seal(payload)
    except FormatError as error:
        note(f"{entry.path} at {entry.frame.offset}: {error}")
        return
    if (wanted.since_ns is not None and seal.max_ns < wanted.since_ns) or (
        wanted.until_ns is not None and seal.min_ns >= wanted.until_ns
    ):
        return
    yield {
        "kind": "seal",
        **where,
        "token": seal.token,
        "ranges": [one.as_json() for one in seal.ranges],
        "rows": seal.rows,
        "min_ns": seal.min_ns,
        "max_ns": seal.max_ns,
        "about": seal.about,
    }
