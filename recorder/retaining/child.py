"""A run of retention in a process of its own, beside a recorder whose target is a server.

The recorder writes its settings to standard input (`sent`), so that the child has exactly those, secrets too, in no
argument and in no file. The child answers with lines of JSON on standard output: one an action, and one `End`. It ends
when it is told to (SIGTERM), and when standard input does: then the recorder is gone.

    python -m recorder.retaining.child < settings
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import pickle
import signal
import struct
import sys
import threading
from typing import IO, Any

import msgspec

from recorder.failure import Terminated
from recorder.log import configure
from recorder.packs import packs_of
from recorder.retaining.book import End, Told
from recorder.retaining.run import runner_of, said
from recorder.settings import Settings

NICE = 10
"""Beside a recorder, and beside trading processes of the same machine."""
OOM_FILE, OOM_MORE = pathlib.Path("/proc/self/oom_score_adj"), 500
"""Where memory runs out, this process goes and not the recorder: the next run goes on."""
ORPHAN_S = 10.0
"""How long a run whose recorder is gone may take to stop."""
LINE_BYTES = 1 << 20
"""No line of the child is longer."""
_LENGTH = struct.Struct("<Q")
_TOLD, _END = msgspec.json.Decoder(Told), msgspec.json.Decoder(End)


def sent(settings: Settings) -> bytes:
    """Settings as the child takes them."""
    content = pickle.dumps(settings)
    return _LENGTH.pack(len(content)) + content


def read_line(line: bytes) -> Told | End:
    """What a line of the child says.

    Raises:
        msgspec.MsgspecError: it is none.
    """
    return _END.decode(line) if line.startswith(b'{"how"') else _TOLD.decode(line)


def main() -> None:
    """See the module."""
    signal.signal(signal.SIGTERM, _terminate)
    for ignored in (
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGINT,
    ):  # the recorder's, and sent to its whole group
        signal.signal(ignored, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(NICE)
    with contextlib.suppress(OSError):  # of Linux alone
        OOM_FILE.write_text(str(min(1_000, int(OOM_FILE.read_text()) + OOM_MORE)))
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    (size,) = _LENGTH.unpack(_exactly(sys.stdin.buffer, _LENGTH.size))
    settings: Settings = pickle.loads(_exactly(sys.stdin.buffer, size))
    configure(settings.log_level, settings.log_format)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    packs = packs_of(settings)
    outcomes = said(settings, packs, runner_of(settings, packs, writes=True))
    with contextlib.suppress(BrokenPipeError):  # the recorder is gone, and with it whoever would be told
        for outcome in outcomes:
            line = msgspec.json.encode(outcome) + b"\n"
            while line:
                line = line[os.write(answers, line) :]


def _exactly(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise SystemExit("no settings came: this is for a recorder to start")
    return content


def _end_with_parent() -> None:
    """Stop when the recorder is gone, which holds standard input open."""
    with contextlib.suppress(OSError):
        while os.read(0, 4_096):
            pass
    threading.Timer(ORPHAN_S, os._exit, (1,)).start()
    os.kill(os.getpid(), signal.SIGTERM)


def _terminate(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


if __name__ == "__main__":
    main()
