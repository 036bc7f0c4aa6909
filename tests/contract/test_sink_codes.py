"""What each error of ClickHouse means: by code and message, never by guess."""

from __future__ import annotations

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError, ProgrammingError

from recorder.sink.codes import MESSAGE_CHARS, classify, sink_error
from recorder.sink.errors import (
    DataError,
    HoldError,
    InsertTimeout,
    Retryable,
    SinkError,
    SinkUnavailable,
    UnknownError,
)

TABLE: list[tuple[type[SinkError], list[int]]] = [
    (InsertTimeout, [159]),
    (SinkUnavailable, [209, 210]),
    (Retryable, [202, 241, 242, 243, 285, 286, 319, 394, 425, 999]),
    (HoldError, [16, 47, 60, 81, 192, 193, 194, 497, 516]),
    (DataError, [6, 27, 38, 41, 53, 69, 70, 117, 130, 131, 321, 349, 469, 691]),
    (UnknownError, [0, 1, 49, 62, 12_345]),
]


@pytest.mark.parametrize(("expected", "code"), [(kind, code) for kind, codes in TABLE for code in codes])
def test_a_code_has_one_meaning(expected: type[SinkError], code: int) -> None:
    """The table of the design, code by code."""
    assert classify(code, "Violated constraint or whatever") is expected


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        (
            252,
            "Too many parts (3000 with average size of 1.00 KiB) in table 't'. Merges are slower",
            Retryable,
        ),
        (252, "Too many parts (1) in all partitions in total in table 't'. This indicates wrong", Retryable),
        (252, "Too many partitions for single INSERT block (more than 100).", HoldError),
        (469, "Constraint `small` for table d.t is violated at row 6", DataError),
        (469, "while pushing to view d.mv: something failed", HoldError),
        (75, "Cannot write to file: , errno: 28, strerror: No space left on device", Retryable),
        (76, "Cannot open file x: , errno: 30, strerror: Read-only file system", Retryable),
        (1001, "std::exception: filesystem error: No space left on device", Retryable),
        (1001, "std::exception: something else", UnknownError),
    ],
)
def test_the_message_decides_where_the_code_does_not(
    code: int, message: str, expected: type[SinkError]
) -> None:
    """One code for two causes is told apart by its words."""
    assert classify(code, message) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OperationalError("connection refused"), SinkUnavailable),
        (ConnectionResetError("reset by peer"), SinkUnavailable),
        (TimeoutError("read timed out"), SinkUnavailable),
        (OSError(28, "No space left on device"), SinkUnavailable),
        (ProgrammingError("used wrongly"), UnknownError),
        (ValueError("?"), UnknownError),
        (DatabaseError("Code: 60. DB::Exception: no table", code=60), HoldError),
    ],
)
def test_errors_of_the_driver_and_the_system(error: Exception, expected: type[SinkError]) -> None:
    """Nobody answering is an outage; what nobody foresaw is unknown, never dropped."""
    told = sink_error(error, "fills")
    assert type(told) is expected
    assert str(told).startswith("fills: ")


def test_a_sink_error_stays_what_it_is_and_messages_are_bounded() -> None:
    """Classifying twice changes nothing; a server that quotes a whole statement does not flood the log."""
    error = HoldError("held", code=60)
    assert sink_error(error, "t") is error
    assert len(str(sink_error(DatabaseError("x" * 100_000, code=1), "t"))) < MESSAGE_CHARS + 20
