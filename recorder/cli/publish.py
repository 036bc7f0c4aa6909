"""`recorder publish`."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

import click

from recorder.cli.errors import EXIT_FAILURE, EXIT_INTERRUPTED, Failure, Terminated
from recorder.cli.line_splitter import MAX_LINE_BYTES, LineSplitter
from recorder.cli.options import Invocation, Number, pass_invocation
from recorder.cli.output import counted, emit_json, note, note_bad_line, notes, progress

if TYPE_CHECKING:
    from recorder.bus.publisher import Publisher

TOPIC_CHARACTERS = 255
MESSAGE_BYTES = 1 << 20
"""A message goes at this size, however few its rows."""
READ_BYTES = 1 << 16
IDLE_S = 0.05
"""Rows go when nothing came for so long: `tail -f | recorder publish` is no file."""
ROOM = 0.8
"""Of the publisher's buffer; above it reading waits, so that nothing is shed."""
BUFFER_BYTES = 64 << 20
STEP_S = 0.1
STOPPED_S = 2.0
"""What an interrupted run waits for acknowledgements."""
PLAIN_EVERY_S = 5.0
SHOWN_BAD_LINES = 10


@dataclass
class Totals:
    """What a run did."""

    rows: int = 0
    messages: int = 0
    bytes: int = 0
    bad_lines: int = 0
    shed_messages: int = 0
    unacknowledged: int = 0
    began_s: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        """Since the start."""
        return time.monotonic() - self.began_s


@click.command()
@click.argument("file", type=click.File("rb"), default="-", metavar="[FILE|-]")
@click.option(
    "--bus", required=True, metavar="URL", help="Where the recorder listens, such as zmq://127.0.0.1:5570."
)
@click.option(
    "--topic", required=True, help='Topic: the table, unless the recorder\'s "topics" say otherwise.'
)
@click.option(
    "--rows-per-message",
    type=click.IntRange(1, 4_096),
    default=100,
    show_default=True,
    help="Rows in a message.",
)
@click.option(
    "--timeout",
    type=Number(min=0),
    default=30.0,
    show_default=True,
    metavar="S",
    help="How long to wait for acknowledgements at the end.",
)
@pass_invocation
def publish(
    invocation: Invocation, file: BinaryIO, bus: str, topic: str, rows_per_message: int, timeout: float
) -> None:
    """Publish rows, one JSON object a line, to a bus that "recorder run" subscribes to.

    It waits for room instead of shedding, and at the end until the recorder has acknowledged every message: the rows
    are then durable, or dead letters. Lines that are no JSON object are told and left out. Publishing the same rows
    again records them again: they are other messages.

    \b
    Exit codes: 0 all acknowledged, 1 bad lines, or not all acknowledged in time, 2 wrong use, 130 interrupted.

    \b
    Example:
        recorder publish --bus zmq://127.0.0.1:5570 --topic orders orders.ndjson
        tail -f orders.ndjson | recorder publish --bus zmq://127.0.0.1:5570 --topic orders
    """
    from recorder.bus.errors import BusError
    from recorder.bus.publisher import Publisher

    _check_topic(topic)
    _check_bus(bus)
    invocation.settings()  # sets up the log
    try:
        # What it says was not acknowledged must not arrive later, beside what is published again.
        publisher = Publisher(bus, buffer_bytes=BUFFER_BYTES, outlive_s=0)
    except BusError as error:
        raise click.UsageError(str(error)) from error
    totals = Totals()
    interrupted = 0
    try:
        with _shown(invocation, file, totals, publisher) as show:
            try:
                _publish_all(file, publisher, topic, rows_per_message, totals, show)
                _await_acks(publisher, timeout, show)
            except KeyboardInterrupt:
                interrupted = EXIT_INTERRUPTED
            except Terminated as end:
                interrupted = int(str(end.code))
        if interrupted:
            publisher.flush(STOPPED_S)
    finally:
        stats = publisher.stats()
        publisher.close(0.0)
    totals.shed_messages, totals.unacknowledged = stats.shed, stats.waiting
    _tell(invocation, totals)
    if interrupted:
        note("stopped")
        click.get_current_context().exit(interrupted)
    if totals.unacknowledged:
        raise Failure(
            f"{totals.unacknowledged:,} of {counted(totals.messages, 'message')} "
            f"{'was' if totals.unacknowledged == 1 else 'were'} not acknowledged within {timeout:g} s; "
            f'is "recorder run --bus {publisher.url}" up? They may be recorded or not'
        )
    if totals.bad_lines or totals.shed_messages:
        click.get_current_context().exit(EXIT_FAILURE)


def _check_topic(topic: str) -> None:
    """Refuse what names no table, and what cannot be sent."""
    if not topic.strip():
        raise click.UsageError(
            '--topic is empty; name the table, or what the recorder\'s "topics" map to one'
        )
    if len(topic) > TOPIC_CHARACTERS:
        raise click.UsageError(
            f"--topic has {len(topic):,} characters; at most {TOPIC_CHARACTERS}, and the topic names a table"
        )
    if not topic.isprintable():
        raise click.UsageError("--topic has characters that are no text; give the name of a table, or alike")


def _check_bus(url: str) -> None:
    """Refuse what no publisher can connect to."""
    from recorder.bus.endpoint import parse_zmq_url
    from recorder.bus.errors import BusUrlError

    if not url.startswith("zmq://"):
        raise click.UsageError(
            f"--bus {url!r}: rows are published to zmq://; write what the recorder listens at, such as "
            "zmq://127.0.0.1:5570"
        )
    try:
        endpoint = parse_zmq_url(url)
    except BusUrlError as error:
        raise click.UsageError(str(error)) from error
    if not endpoint.path and (endpoint.port == 0 or endpoint.host == "*"):
        raise click.UsageError(
            f"--bus {url}: names no place to connect to; give the host and port that the recorder listens at"
        )


class _Show:
    """How far it is, for people."""

    def __call__(self, *, waiting: bool = False) -> None:
        """Something happened; `waiting` for the recorder."""


def _publish_all(
    file: BinaryIO, publisher: Publisher, topic: str, rows_per_message: int, totals: Totals, show: _Show
) -> None:
    from recorder.bus.base import Encoding

    rows: list[bytes] = []

    def send() -> None:
        if not rows:
            return
        while publisher.stats().waiting_bytes > ROOM * BUFFER_BYTES:
            show(waiting=True)
            time.sleep(STEP_S)
        payload = rows[0] if len(rows) == 1 else b"[" + b",".join(rows) + b"]"
        if publisher.publish_raw(topic, payload, Encoding.JSON):
            totals.rows += len(rows)
        totals.messages += 1
        rows.clear()
        show()

    size = 0
    for number, line in _lines(file, totals):
        if number == 0:  # nothing came for a while
            send()
            size = 0
            continue
        if line is not None and not line.strip():
            continue
        if fault := _fault(line):
            totals.bad_lines += 1
            if totals.bad_lines <= SHOWN_BAD_LINES:
                note_bad_line(number, fault)
            elif totals.bad_lines == SHOWN_BAD_LINES + 1:
                note("more bad lines are counted and not shown")
            continue
        assert line is not None
        rows.append(line)
        size += len(line)
        if len(rows) >= rows_per_message or size >= MESSAGE_BYTES:
            send()
            size = 0
    send()


def _fault(line: bytes | None) -> str:
    """What is wrong with a line; empty where nothing is."""
    from recorder.normalise.base import BadMessage
    from recorder.normalise.internal import decode_json

    if line is None:
        return f"longer than {MAX_LINE_BYTES:,} bytes"
    try:
        value = decode_json(line)
    except BadMessage as error:
        return str(error)
    return "" if isinstance(value, dict) else f"a row is a JSON object, and this is a {type(value).__name__}"


def _lines(file: BinaryIO, totals: Totals) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines; number 0 says that nothing came for a while."""
    splitter, idle = LineSplitter(), True
    try:
        descriptor = file.fileno()
    except (OSError, io.UnsupportedOperation):
        descriptor = -1  # no real file: it has everything at hand
    while True:
        if descriptor >= 0 and not idle and not select.select([descriptor], [], [], IDLE_S)[0]:
            idle = True
            yield 0, None
        data = os.read(descriptor, READ_BYTES) if descriptor >= 0 else file.read(READ_BYTES)
        if not data:
            yield from splitter.finish()
            return
        idle = False
        totals.bytes += len(data)
        yield from splitter.feed(data)


def _await_acks(publisher: Publisher, timeout_s: float, show: _Show) -> None:
    end_s = time.monotonic() + timeout_s
    while not publisher.flush(min(STEP_S, max(0.0, end_s - time.monotonic()))):
        show(waiting=True)
        if time.monotonic() >= end_s:
            return


@contextlib.contextmanager
def _shown(invocation: Invocation, file: BinaryIO, totals: Totals, publisher: Publisher) -> Iterator[_Show]:
    """A bar on a terminal, lines elsewhere, nothing with `--json`."""
    if invocation.json:
        yield _Show()
    elif notes().is_terminal and not sys.stdin.isatty():
        with progress() as bar:
            yield _Bar(bar, file, totals, publisher)
    else:
        yield _Lines(totals, publisher)


class _Bar(_Show):
    def __init__(self, bar: object, file: BinaryIO, totals: Totals, publisher: Publisher):
        from rich.progress import Progress

        assert isinstance(bar, Progress)
        self._bar, self._totals, self._publisher = bar, totals, publisher
        size = None
        with contextlib.suppress(OSError, io.UnsupportedOperation):
            size = os.fstat(file.fileno()).st_size or None
        self._task = bar.add_task("publishing", total=size)

    def __call__(self, *, waiting: bool = False) -> None:
        totals, left = self._totals, self._publisher.stats().waiting
        description = counted(totals.rows, "row")
        if waiting:
            description += f", {counted(left, 'message')} to be acknowledged"
        rate = f"{totals.rows / max(totals.elapsed_s, 1e-9):,.0f}"
        self._bar.update(self._task, description=description, completed=totals.bytes, rate=rate)


class _Lines(_Show):
    def __init__(self, totals: Totals, publisher: Publisher):
        self._totals, self._publisher = totals, publisher
        self._next_s = time.monotonic() + PLAIN_EVERY_S

    def __call__(self, *, waiting: bool = False) -> None:
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + PLAIN_EVERY_S
        totals = self._totals
        waiting_now = counted(self._publisher.stats().waiting, "message")
        note(f"{counted(totals.rows, 'row')} published, {waiting_now} to be acknowledged")


def _tell(invocation: Invocation, totals: Totals) -> None:
    rate = totals.rows / max(totals.elapsed_s, 1e-9)
    if invocation.json:
        emit_json(
            {
                "rows": totals.rows,
                "messages": totals.messages,
                "bad_lines": totals.bad_lines,
                "shed_messages": totals.shed_messages,
                "unacknowledged_messages": totals.unacknowledged,
                "elapsed_s": round(totals.elapsed_s, 3),
            }
        )
        return
    click.echo(
        f"{counted(totals.rows, 'row')} in {counted(totals.messages, 'message')}, {totals.elapsed_s:.1f} s "
        f"({counted(round(rate), 'row')}/s); {counted(totals.unacknowledged, 'message')} not acknowledged, "
        f"{totals.shed_messages:,} shed, {counted(totals.bad_lines, 'bad line')}"
    )
