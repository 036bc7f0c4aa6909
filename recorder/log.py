"""The process's own log lines. Called by commands only: a library never configures its host's logging.

Lines go to standard error, so that standard output stays a command's answer. Secrets are masked in every
line: values of keys that name one, and passwords inside URLs, in exceptions too.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from recorder.target import MASK, mask_urls

SECRET_KEY = re.compile(
    r"(^|[_-])(password|passwd|pwd|secret|token|signature|credential|credentials|authorization|api_?key|private_?key)$",
    re.IGNORECASE,
)


def mask(value: Any, key: str = "") -> Any:
    """The value with secrets replaced by `***`, inside mappings and sequences too."""
    if key and SECRET_KEY.search(key) and value not in (None, ""):
        return MASK
    if isinstance(value, str):
        return mask_urls(value) if "://" in value else value
    if isinstance(value, Mapping):
        return {name: mask(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [mask(item) for item in value]
    return value


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: no line carries a secret."""
    return {key: mask(value, key) for key, value in event.items()}


def _mask_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if isinstance(text := event.get("exception"), str):
        event["exception"] = mask_urls(text)
    return event


def configure(level: str = "info", form: str = "console", *, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging for a command.

    `level` is the least severe that is shown; `form` is `console` for people or `json` for machines.
    """
    out = stream if stream is not None else sys.stderr
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        mask_secrets,
        _mask_exception,
    ]
    renderer: Processor
    if form == "json":
        renderer = structlog.processors.JSONRenderer(
            serializer=lambda event, **_: orjson.dumps(event, default=str).decode()
        )
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=out.isatty())
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
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
