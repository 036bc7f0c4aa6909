"""What an error of ClickHouse or its driver means for the flush worker.

The server's code alone does not decide: 252 is both "too many parts", in a partition or in all of them (passes), and
"too many partitions in one insert" (does not), 469 is both a violated constraint and a failing view. `classify` is a
pure function of code and message; `sink_error` turns whatever the driver raised into a `SinkError` of that class. A
class says nothing about whether rows arrived: only the look-up does.
"""

from __future__ import annotations

from clickhouse_connect.driver import exceptions as driver

from recorder.sink.errors import (
    DataError,
    HoldError,
    InsertTimeout,
    Retryable,
    SinkError,
    SinkUnavailable,
    UnknownError,
)

MESSAGE_CHARS = 600
"""Longest part of a server's message that an error keeps; a message may quote the statement or the data."""

TIMED_OUT = frozenset(
    {
        159,  # TIMEOUT_EXCEEDED: max_execution_time, so the server itself has ended the statement
    }
)
UNAVAILABLE = frozenset(
    {
        209,  # SOCKET_TIMEOUT
        210,  # NETWORK_ERROR
        279,  # ALL_CONNECTION_TRIES_FAILED
    }
)
RETRYABLE = frozenset(
    {
        160,  # TOO_SLOW
        202,  # TOO_MANY_SIMULTANEOUS_QUERIES
        241,  # MEMORY_LIMIT_EXCEEDED
        242,  # TABLE_IS_READ_ONLY: a replica without its keeper
        243,  # NOT_ENOUGH_SPACE
        285,  # TOO_FEW_LIVE_REPLICAS
        286,  # UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE
        319,  # UNKNOWN_STATUS_OF_INSERT
        394,  # QUERY_WAS_CANCELLED
        425,  # SYSTEM_ERROR
        473,  # DEADLOCK_AVOIDED
        710,  # FAULT_INJECTED: a failpoint of the server
        999,  # KEEPER_EXCEPTION
    }
)
HOLD = frozenset(
    {
        10,  # NOT_FOUND_COLUMN_IN_BLOCK
        16,  # NO_SUCH_COLUMN_IN_TABLE
        47,  # UNKNOWN_IDENTIFIER
        60,  # UNKNOWN_TABLE
        81,  # UNKNOWN_DATABASE
        164,  # READONLY
        192,  # UNKNOWN_USER
        193,  # WRONG_PASSWORD
        194,  # REQUIRED_PASSWORD
        218,  # TABLE_IS_DROPPED
        497,  # ACCESS_DENIED
        516,  # AUTHENTICATION_FAILED
    }
)
DATA = frozenset(
    {
        6,  # CANNOT_PARSE_TEXT
        26,  # CANNOT_PARSE_QUOTED_STRING
        27,  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
        38,  # CANNOT_PARSE_DATE
        41,  # CANNOT_PARSE_DATETIME
        53,  # TYPE_MISMATCH
        69,  # ARGUMENT_OUT_OF_BOUND
        70,  # CANNOT_CONVERT_TYPE
        72,  # CANNOT_PARSE_NUMBER
        117,  # INCORRECT_DATA
        130,  # CANNOT_READ_ARRAY_FROM_TEXT
        131,  # TOO_LARGE_STRING_SIZE
        153,  # ILLEGAL_DIVISION
        321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        395,  # FUNCTION_THROW_IF_VALUE_IS_NON_ZERO
        407,  # DECIMAL_OVERFLOW
        469,  # VIOLATED_CONSTRAINT
        691,  # UNKNOWN_ELEMENT_OF_ENUM
    }
)

_TOO_MANY_PARTS_OR_PARTITIONS = 252
_CONSTRAINT = 469
# A disk that is full or read-only shows under many codes: 75, 76, 88, 1001 and others.
_DISK_WORDS = ("no space left", "errno: 28", "read-only file system", "errno: 30", "input/output error")


def classify(code: int, message: str) -> type[SinkError]:
    """The class of an error by ClickHouse's code (0 where there is none) and message."""
    text = message.lower()
    if code == _TOO_MANY_PARTS_OR_PARTITIONS:
        return HoldError if "too many partitions" in text else Retryable
    if code == _CONSTRAINT and "view" in text and "constraint" not in text:
        return HoldError
    for codes, kind in (
        (TIMED_OUT, InsertTimeout),
        (UNAVAILABLE, SinkUnavailable),
        (RETRYABLE, Retryable),
        (HOLD, HoldError),
        (DATA, DataError),
    ):
        if code in codes:
            return kind
    return Retryable if any(word in text for word in _DISK_WORDS) else UnknownError


def sink_error(error: BaseException, what: str) -> SinkError:
    """The `SinkError` for whatever a call of the driver raised; `what` names the table or statement.

    An error of the network or the operating system is `SinkUnavailable`: what became of the call is unknown.
    """
    if isinstance(error, SinkError):
        return error
    message = " ".join(str(error).split())
    code = getattr(error, "code", None) or 0
    kind: type[SinkError]
    if code:
        kind = classify(code, message)
    elif isinstance(error, driver.OperationalError | OSError):
        kind = SinkUnavailable
    else:
        kind = UnknownError
    if len(message) > MESSAGE_CHARS:
        message = message[:MESSAGE_CHARS] + " …"
    return kind(f"{what}: {message or type(error).__name__}", code=code)
