"""The recorder's own log lines.

Every logger is one of the standard library's, below `recorder`, so that a host program has them where it has its
others. `configure` is called by commands only: a library never configures its host's logging. Commands' lines go to
standard error, so that standard output stays a command's answer. Secrets are cut out of every line (`recorder.redact`),
of its fields and of tracebacks too. A line that cannot be written is lost, and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from recorder.redact import in_force, redacted

ROOT = "recorder"
PARTS = "recorder_parts"


def mask(value: Any, key: str = "") -> Any:
    """The value without secrets, inside mappings and sequences too; `***` where `key` is the name of one."""
    return in_force().value(value, key)


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: no line carries a secret."""
    return {key: value if key.startswith("_") else mask(value, key) for key, value in event.items()}


class QuietLogger(structlog.stdlib.BoundLogger):
    """A logger that never raises: a full disk or a closed pipe behind a handler must not stop who logs."""

    def _proxy_to_logger(
        self, method_name: str, event: str | None = None, *event_args: str, **event_kw: Any
    ) -> Any:
        with contextlib.suppress(Exception):
            return super()._proxy_to_logger(method_name, event, *event_args, **event_kw)
        return None


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one part, with structlog's keywords; `name` is below `recorder`."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        wrapper_class=QuietLogger,
        processors=[structlog.stdlib.filter_by_level, _for_handlers],
    )
    return logger


def _for_handlers(
    _logger: WrappedLogger, _method: str, event: EventDict
) -> tuple[tuple[str], dict[str, Any]]:
    """One line for whatever handlers there are, with its parts beside it for those that know them."""
    parts = {key: mask(value, key) for key, value in event.items() if key != "exc_info"}
    fields = (f"{key}={value!r}" for key, value in parts.items() if key != "event")
    text = redacted(" ".join([str(parts.get("event", "")), *fields]))
    error = _exc_info(event.get("exc_info"))
    if error is not None and (trace := "".join(traceback.format_exception(error[1]))) != (
        shown := redacted(trace)
    ):
        # A host's handlers would show it as it is.
        return (f"{text}\n{shown}",), {"exc_info": None, "extra": {PARTS: parts | {"exception": shown}}}
    return (text,), {"exc_info": error, "extra": {PARTS: parts}}


def _exc_info(given: Any) -> ExcInfo | None:
    """What `exc_info` of a line stands for."""
    if isinstance(given, BaseException):
        return type(given), given, given.__traceback__
    if isinstance(given, tuple):
        return given if given[1] is not None else None
    kind, error, trace = sys.exc_info() if given else (None, None, None)
    return (kind, error, trace) if kind is not None and error is not None else None


def _from_parts(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """What a line of ours was made of, instead of its text."""
    record = event.get("_record")
    parts = getattr(record, PARTS, None)
    if parts is None:
        return event
    return {**event, **parts}


def configure(level: str = "info", form: str = "console", *, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging for a command.

    `level` is the least severe that is shown; `form` is `console` for people or `json` for machines.
    """
    out = stream if stream is not None else sys.stderr
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _from_parts,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        mask_secrets,
    ]
    renderer: Processor
    if form == "json":
        renderer = structlog.processors.JSONRenderer(
            serializer=lambda event, **_: orjson.dumps(event, default=str).decode()
        )
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=out.isatty())
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries are chatty about what is not their user's business.
    root.setLevel(max(threshold, logging.WARNING) if threshold > logging.DEBUG else threshold)
    logging.getLogger(ROOT).setLevel(threshold)
    # It warns of every connection that is not made; whoever wanted it says so, and less often.
    logging.getLogger("urllib3.connectionpool").setLevel(
        logging.ERROR if threshold > logging.DEBUG else threshold
    )
