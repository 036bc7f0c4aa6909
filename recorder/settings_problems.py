"""From pydantic's account of a bad value to one line for a person: where, what, and what to do."""

from __future__ import annotations

import typing
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from recorder.redact import redacted
from recorder.settings_sources import Trace, did_you_mean

_SHOWN_CHARS = 60


def problem_line(error: ErrorDetails, trace: Trace, model: type[BaseModel]) -> str:
    """One line for one error: source, key, what is wrong, and the remedy."""
    path = _path(error, model)
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        owner = _model_at(model, path[:-1])
        known = list(owner.model_fields) if owner is not None else []
        hint = did_you_mean(path[-1], known) or f"; known are {', '.join(known)}"
        return f"{trace.nearest_source(path)}: unknown key {key}{hint}"
    if error["type"] == "value_error":
        text = redacted(str(error.get("ctx", {}).get("error", error["msg"])))
    elif error["type"] in ("model_type", "dict_type"):
        text = f"must be a table of keys{_seen(error, path)}; see docs/settings.md"
    else:
        text = _reworded(error["msg"]) + _seen(error, path)
    if not path:
        first = text.split(" ", 1)[0].strip(":").split(".")
        return f"{trace.nearest_source(tuple(first))}: {text}"
    return f"{trace.nearest_source(path)}: {key}: {text}"


def _path(error: ErrorDetails, model: type[BaseModel]) -> tuple[str, ...]:
    """The keys down to the value; pydantic appends names of union members, which are no keys."""
    path: list[str] = []
    owner: type[BaseModel] | None = model
    for part in error["loc"]:
        if owner is None and path and path[0] != "tables" and path[0] != "normalisers":
            break
        path.append(str(part))
        owner = _model_at(model, tuple(path))
        if owner is None and len(path) > 1 and path[0] == "tables" and len(path) >= 3:
            break
    return tuple(path)


def _model_at(model: type[BaseModel], path: tuple[str, ...]) -> type[BaseModel] | None:
    """The model that holds the keys under `path`; None where the path ends in a value."""
    owner: Any = model
    for key in path:
        if isinstance(owner, type) and issubclass(owner, BaseModel):
            field = owner.model_fields.get(key)
            owner = field.annotation if field is not None else None
        elif typing.get_origin(owner) is dict:
            owner = typing.get_args(owner)[1]
        else:
            return None
    return owner if isinstance(owner, type) and issubclass(owner, BaseModel) else None


def _reworded(message: str) -> str:
    for stock, ours in (
        ("Input should be a valid integer, unable to parse string as an integer", "must be a whole number"),
        ("Input should be a valid integer, got a number with a fractional part", "must be a whole number"),
        ("Input should be a valid integer", "must be a whole number"),
        ("Input should be a valid number, unable to parse string as a number", "must be a number"),
        ("Input should be a valid boolean, unable to interpret input", "must be true or false"),
        ("Input should be a valid boolean", "must be true or false"),
        ("Input should be", "must be"),
        ("Tuple should have at least 1 item", "must name at least one"),
        ("String should have at least 1 character", "must not be empty"),
    ):
        if message.startswith(stock):
            return ours + (message[len(stock) :] if ours in ("must be",) else "")
    return message[:1].lower() + message[1:]


def _seen(error: ErrorDetails, path: tuple[str, ...]) -> str:
    """`, not 'abc'`: what was there. Of a target nothing is shown, since it may hold a password."""
    if path[:1] == ("target",):
        return ""
    text = redacted(repr(error["input"]))
    return f", not {text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + '…'}"
