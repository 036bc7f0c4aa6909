"""Errors as ClickHouse tells them over HTTP: a code, a text with the code in it, and a status.

Source of the statuses: ClickHouse's mapping of exception codes to them (`exceptionCodeToHTTPStatus`).
"""

from __future__ import annotations

import enum
import re
from http import HTTPStatus


class Code(enum.IntEnum):
    """The codes of errors that the server raises itself."""

    BAD_ARGUMENTS = 36
    NOT_IMPLEMENTED = 48
    SYNTAX_ERROR = 62
    UNKNOWN_TYPE_OF_QUERY = 78
    UNKNOWN_SETTING = 115
    READONLY = 164
    TOO_MANY_SIMULTANEOUS_QUERIES = 202
    SOCKET_TIMEOUT = 209
    QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING = 216
    QUERY_IS_TOO_LARGE = 229
    CANNOT_DECOMPRESS = 271
    SUPPORT_IS_DISABLED = 344
    INTO_OUTFILE_NOT_ALLOWED = 358
    SESSION_NOT_FOUND = 372
    SESSION_IS_LOCKED = 373
    INVALID_SESSION_TIMEOUT = 374
    HTTP_LENGTH_REQUIRED = 381
    QUERY_WAS_CANCELLED = 394
    TOO_MANY_ROWS_OR_BYTES = 396
    UNKNOWN_ROLE = 511
    AUTHENTICATION_FAILED = 516
    STD_EXCEPTION = 1001


_STATUSES = {
    HTTPStatus.BAD_REQUEST: (
        6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167, 168, 223, 321, 376, 427, 441, 675, 676,
    ),
    HTTPStatus.UNAUTHORIZED: (194,),
    HTTPStatus.FORBIDDEN: (192, 193, 497, 512, 516),
    HTTPStatus.NOT_FOUND: (46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511),
    HTTPStatus.REQUEST_TIMEOUT: (159,),
    HTTPStatus.LENGTH_REQUIRED: (381,),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (229,),
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: (779,),
    HTTPStatus.NOT_IMPLEMENTED: (48,),
    HTTPStatus.SERVICE_UNAVAILABLE: (76, 209, 439),
}  # fmt: skip
_STATUS_OF = {code: status for status, codes in _STATUSES.items() for code in codes}

_CODE = re.compile(r"Code: (\d+)\. ")
_TWICE = re.compile(r"^(?:Code: \d+\. (?:DB::Exception: )+)+(?=Code: \d+\. )")
_VERSION = re.compile(r"(?: \(version [^()]*(?:\([^()]*\))?\)(?:\. \([A-Z0-9_]+\))?)+$")
_OWN_FILE = re.compile(r"\(in file/uri /proc/self/fd/\d+\): |/proc/self/fd/\d+")


class StatementError(Exception):
    """A statement that failed. `text` is ClickHouse's, without the version at its end."""

    def __init__(self, code: int, text: str):
        super().__init__(text)
        self.code = code
        self.text = text

    @classmethod
    def ours(cls, code: Code, message: str) -> StatementError:
        """An error that the server raises itself."""
        return cls(code, f"Code: {code.value}. DB::Exception: {message} ({code.name})")

    @classmethod
    def of_engine(cls, error: BaseException) -> StatementError:
        """An error of the engine, which wraps some of them twice."""
        text = str(error).strip()
        start = text.find("Code: ")
        text = _TWICE.sub("", text[start:] if start >= 0 else text)
        text = _OWN_FILE.sub("", _VERSION.sub("", text.split("\nStack trace:")[0].rstrip()))
        found = _CODE.match(text)
        if found is None:
            return cls.ours(Code.STD_EXCEPTION, text or type(error).__name__)
        return cls(int(found[1]), text)

    @property
    def status(self) -> int:
        """The HTTP status that ClickHouse answers it with."""
        return _STATUS_OF.get(self.code, HTTPStatus.INTERNAL_SERVER_ERROR)

    def told(self, version: str) -> str:
        """The whole text, as in a body."""
        return f"{self.text} (version {version} (official build))\n"
