"""What a sink can answer, by what the flush worker does next.

SinkError                 (code, message of the server)
├── Retryable             try again later, after the look-up
│   ├── SinkUnavailable   nobody answers
│   ├── InsertTimeout     cut at insert_timeout_s, killed on the server: the look-up is final
│   └── InsertStillRunning  cut at insert_timeout_s, and not ended yet: wait, then look up
├── DataError             a row of the batch can never be inserted: bisect
├── HoldError             the table cannot take rows until somebody mends it: hold and alarm
└── UnknownError          not in the table of codes: retry some times, then hold
"""

from __future__ import annotations

from recorder.redact import redacted


class SinkError(Exception):
    """An error of the sink; `code` is ClickHouse's, 0 where there is none.

    Servers quote the data they refuse, and drivers the URL they asked: secrets are cut out of the text here, so that it
    may be kept and shown.
    """

    def __init__(self, message: str, *, code: int = 0):
        super().__init__(redacted(message))
        self.code = code


class Retryable(SinkError):  # noqa: N818 - named for what the caller does
    """Passes by itself; the batch is sent again."""


class SinkUnavailable(Retryable):
    """Nobody answers."""


class InsertTimeout(Retryable):
    """An insert was cut at its time limit and killed on the server."""


class InsertStillRunning(Retryable):
    """An insert of this batch could not be killed yet and may still commit.

    Until it has ended, both the look-up and the insert of that batch raise this; the caller backs off, and
    the first look-up that answers is final.
    """


class DataError(SinkError):
    """A row of the batch can never be inserted."""


class HoldError(SinkError):
    """The table takes no rows until somebody mends it."""


class UnknownError(SinkError):
    """A code the recorder has no rule for."""
