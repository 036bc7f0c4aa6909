"""Bytes of a dead letter for people: JSON with indents, what MessagePack says as JSON, text, or hex. Pure."""

from __future__ import annotations

import json
from typing import Any

import msgspec

HEX_BYTES = 16


def readable(payload: bytes, payload_format: str) -> tuple[str, str]:
    """How bytes are shown, and as what: JSON with indents, what MessagePack says as JSON, text, or hex."""
    if payload_format == "msgpack" or (payload_format == "binary" and payload[:1] >= b"\x80"):
        try:
            value = msgspec.msgpack.decode(payload)
            return "MessagePack", json.dumps(value, indent=2, ensure_ascii=False, default=_jsonable)
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
            pass
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return "hex", _hex(payload)
    if payload_format in ("json", "text"):
        try:
            # Numbers as they are written: a float would lose digits in the showing.
            value = json.loads(text, parse_float=_Number, parse_int=_Number)
            return "JSON", _indented(value)
        except (ValueError, RecursionError):
            pass
    if all(char.isprintable() or char in "\n\t" for char in text):
        return "text", text
    return "hex", _hex(payload)


class _Number(str):
    """A number as it was written."""


def _indented(value: Any, depth: int = 0) -> str:
    inner, outer = "  " * (depth + 1), "  " * depth
    if isinstance(value, _Number):
        return value
    if isinstance(value, dict) and value:
        items = [
            f"{inner}{json.dumps(k, ensure_ascii=False)}: {_indented(v, depth + 1)}" for k, v in value.items()
        ]
        return "{\n" + ",\n".join(items) + f"\n{outer}}}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(inner + _indented(item, depth + 1) for item in value) + f"\n{outer}]"
    return json.dumps(value, ensure_ascii=False)


def _jsonable(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else str(value)


def _hex(payload: bytes) -> str:
    lines = []
    for start in range(0, len(payload), HEX_BYTES):
        part = payload[start : start + HEX_BYTES]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{start:08x}  {part.hex(' '):<{3 * HEX_BYTES}} {text}")
    return "\n".join(lines)
