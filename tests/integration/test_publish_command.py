"""`recorder publish`: NDJSON to a bus, acknowledged; against the recorder's end of the bus in this process."""

from __future__ import annotations

import asyncio
import json
import pathlib
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from harness.ingest_files import COMMAND, child_environment, write_rows
from harness.ports import free_port
from harness.waiting import until
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.bus.base import BusMessage
from recorder.bus.decode import rows_of_message
from recorder.bus.open import open_subscription
from recorder.cli.line_splitter import LineSplitter


class Listener:
    """Takes messages, and acknowledges them if told to."""

    def __init__(self, url: str, *, acks: bool):
        self.url = url
        self.messages: list[BusMessage] = []
        self._acks = acks
        self._subscription = open_subscription(url)

    async def run(self) -> None:
        async for messages in self._subscription.messages():
            self.messages += messages
            if self._acks:
                await self._subscription.ack(messages)

    @property
    def rows(self) -> list[object]:
        """All rows, in the order of their messages."""
        ordered = sorted(self.messages, key=lambda message: (message.log, message.position))
        return [row.row for message in ordered for row in rows_of_message(message)]


@asynccontextmanager
async def listening(*, acks: bool = True) -> AsyncIterator[Listener]:
    """A listener on a free port."""
    listener = Listener(f"zmq://127.0.0.1:{free_port()}", acks=acks)
    await listener._subscription.start()
    task = asyncio.create_task(listener.run())
    try:
        yield listener
    finally:
        await listener._subscription.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def command(
    cwd: pathlib.Path, *arguments: str, stdin: int | None = subprocess.DEVNULL
) -> asyncio.subprocess.Process:
    """`recorder publish` in a process of its own."""
    return await asyncio.create_subprocess_exec(
        *COMMAND, "publish", *arguments, cwd=cwd, env=child_environment(),
        stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    """Exit code, output, errors."""
    out, errors = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), errors.decode()


async def test_every_row_of_a_file_arrives_and_is_acknowledged(tmp_path: pathlib.Path) -> None:
    """In messages of the size asked for; numbers come through with every digit; blank lines are nothing."""
    rows = [{"n": n, "qty": 0.1 + n} for n in range(250)]
    write_rows(tmp_path / "rows.ndjson", [*rows, b"", b'{"big": 123456789012345678.123456789012345678}'])
    async with listening() as listener:
        process = await command(
            tmp_path,
            "--bus",
            listener.url,
            "--topic",
            "orders",
            "--rows-per-message",
            "100",
            "--json",
            "rows.ndjson",
        )
        code, out, errors = await ended(process)
        assert code == 0, errors
        told = json.loads(out)
        assert (told["rows"], told["messages"], told["unacknowledged_messages"]) == (251, 3, 0)
        assert listener.rows[:250] == rows
        assert str(listener.rows[250]) == "{'big': Decimal('123456789012345678.123456789012345678')}"
        assert {message.topic for message in listener.messages} == {"orders"}


async def test_bad_lines_are_told_with_their_numbers_and_cost_nothing_else(tmp_path: pathlib.Path) -> None:
    """Exit code 1; the good rows are published all the same."""
    lines = [
        b'{"n": 1}',
        b"nonsense",
        b'{"n": 2}',
        b"[1]",
        b'{"n": "' + b"x" * (1 << 20) + b'"}',
        b'{"n": 3}',
    ]
    write_rows(tmp_path / "rows.ndjson", lines)
    async with listening() as listener:
        code, out, errors = await ended(
            await command(tmp_path, "--bus", listener.url, "--topic", "orders", "rows.ndjson")
        )
        assert code == 1
        told = [line.partition(":")[0] for line in errors.splitlines()]
        assert told == ["line 2", "line 4", "line 5"]
        assert "3 rows in 1 message, " in out
        assert "3 bad lines" in out
        assert listener.rows == [{"n": 1}, {"n": 2}, {"n": 3}]


async def test_rows_of_a_pipe_go_before_the_message_is_full(tmp_path: pathlib.Path) -> None:
    """`tail -f | recorder publish` shows each row at once, and SIGINT ends it cleanly."""
    async with listening() as listener:
        process = await command(
            tmp_path, "--bus", listener.url, "--topic", "orders", "-", stdin=subprocess.PIPE
        )
        assert process.stdin is not None
        for n in range(3):
            process.stdin.write(b'{"n": %d}\n' % n)
            await until(lambda n=n: len(listener.rows) == n + 1, "a row")  # type: ignore[misc]
        process.send_signal(signal.SIGINT)
        code, out, errors = await ended(process)
        assert (code, errors.splitlines()[-1]) == (130, "stopped")
        assert "3 rows in 3 messages" in out
        assert "0 messages not acknowledged" in out


async def test_what_is_not_acknowledged_in_time_is_an_error(tmp_path: pathlib.Path) -> None:
    """Exit code 1 and how many."""
    write_rows(tmp_path / "rows.ndjson", [{"n": n} for n in range(5)])
    async with listening(acks=False) as listener:
        process = await command(
            tmp_path, "--bus", listener.url, "--topic", "orders", "--rows-per-message", "2", "--timeout", "0.5",
            "rows.ndjson",
        )  # fmt: skip
        code, _, errors = await ended(process)
        assert code == 1
        assert "error: 3 of 3 messages were not acknowledged within 0.5 s" in errors
        await until(lambda: len(listener.rows) == 5, "the rows")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--topic", "orders"), "--bus"),
        (("--bus", "zmq://127.0.0.1:5570"), "--topic"),
        (("--bus", "carrier-pigeon://loft", "--topic", "orders"), "carrier-pigeon"),
        (("--bus", "zmq://127.0.0.1:5570", "--topic", "orders", "no-such-file"), "no-such-file"),
        (("--bus", "zmq://127.0.0.1:5570", "--topic", ""), "--topic is empty"),
        (("--bus", "zmq://127.0.0.1:5570", "--topic", "a\x07"), "--topic has characters that are no text"),
        (("--bus", "", "--topic", "orders"), "--bus '': rows are published to zmq://"),
        (("--bus", "zmq+sub://127.0.0.1:1", "--topic", "orders"), "rows are published to zmq://"),
        (("--bus", "zmq://127.0.0.1:0", "--topic", "orders"), "names no place to connect to"),
        (("--bus", "zmq://*:5570", "--topic", "orders"), "names no place to connect to"),
        (("--bus", "zmq://bad host:1", "--topic", "orders"), "names no host and port"),
        (("--bus", "zmq://127.0.0.1:5570", "--topic", "orders", "--timeout", "nan"), "'nan' is no number"),
        (("--bus", "zmq://127.0.0.1:5570", "--topic", "  "), "--topic is empty"),
    ],
)
async def test_wrong_use_is_one_line_and_exit_code_2(
    tmp_path: pathlib.Path, arguments: tuple[str, ...], word: str
) -> None:
    """What is missing or wrong is named."""
    code, _, errors = await ended(await command(tmp_path, *arguments))
    assert code == 2
    (line,) = errors.splitlines()
    assert line.startswith("error: ")
    assert word in line


async def test_without_zeromq_it_is_wrong_use(tmp_path: pathlib.Path) -> None:
    """What is missing, and how it is installed."""
    (tmp_path / "zmq.py").write_text("raise ImportError('not here')")
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "publish", "--bus", "zmq://127.0.0.1:5570", "--topic", "orders", cwd=tmp_path,
        env=child_environment(PYTHONPATH=str(tmp_path)), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    code, _, errors = await ended(process)
    assert code == 2
    (line,) = errors.splitlines()
    assert "pip install 'coldpath-recorder[zmq]'" in line


async def test_for_programs_everything_is_json(tmp_path: pathlib.Path) -> None:
    """Bad lines too, with their numbers, one object a line."""
    write_rows(tmp_path / "rows.ndjson", [b"nonsense", b'{"n": 1}', b"[1]"])
    async with listening(acks=False) as listener:
        options = ("--bus", listener.url, "--topic", "orders", "--timeout", "0.3", "--json")
        code, out, errors = await ended(await command(tmp_path, *options, "rows.ndjson"))
    assert code == 1
    assert json.loads(out)["bad_lines"] == 2
    told = [json.loads(line) for line in errors.splitlines()]
    assert [error.get("line") for error in told] == [1, 3, None]
    assert told[-1]["error"].startswith("1 of 1 message was not acknowledged within 0.3 s")


@settings(deadline=None)
@given(st.lists(st.binary(max_size=12)), st.integers(1, 8), st.data())
def test_lines_are_the_same_however_they_come(pieces: list[bytes], longest: int, data: st.DataObject) -> None:
    """Cut anywhere; a line that is too long is None and keeps its number."""
    whole = b"".join(pieces)
    splitter = LineSplitter(longest)
    found = []
    rest = whole
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        found += list(splitter.feed(rest[:size]))
        rest = rest[size:]
    found += list(splitter.finish())
    lines = whole.split(b"\n")
    if not lines[-1]:
        lines.pop()
    assert found == [(number, line if len(line) <= longest else None) for number, line in enumerate(lines, 1)]


async def test_a_topic_that_is_too_long_is_wrong_use(tmp_path: pathlib.Path) -> None:
    """One line, before anything is read."""
    code, _, errors = await ended(
        await command(tmp_path, "--bus", f"zmq://127.0.0.1:{free_port()}", "--topic", "t" * 300)
    )
    assert code == 2
    assert "--topic has 300 characters; at most 255" in errors
    assert "--debug" not in errors
