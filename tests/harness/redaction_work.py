"""What redaction costs, counted; and its bounds made small, so that little data reaches them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from unittest import mock

from recorder import redact_msgpack, redact_spans
from recorder.redact import Redactor


class Steps:
    """Counts the lines of the redaction's code that run: time that no other process can make longer."""

    def __init__(self, redactor: Redactor | None = None) -> None:
        self.lines = 0
        self._redactor = redactor or Redactor()

    def _trace(self, frame: object, event: str, _arg: object) -> object:
        self.lines += event == "line"
        return self._trace

    def of(self, data: bytes) -> int:
        """How many lines cutting takes."""
        self.lines = 0
        sys.settrace(self._trace)  # type: ignore[arg-type]
        try:
            self._redactor.cut(data)
        finally:
            sys.settrace(None)
        return self.lines


@contextlib.contextmanager
def bounds(
    *, marks: int = 10**9, objects: int = 10**9, nested_bytes: int = 10**9, containers: int = 10**9
) -> Iterator[None]:
    """Other bounds than the built-in ones; those not named are as good as none."""
    with (
        mock.patch.multiple(
            redact_spans, MARKS_MOST=marks, OBJECTS_MOST=objects, NESTED_BYTES_MOST=nested_bytes
        ),
        mock.patch.object(redact_msgpack, "CONTAINERS_MOST", containers),
    ):
        yield
