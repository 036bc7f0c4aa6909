"""Messages of a frame that does not decode as a whole: one wrong record costs itself, not those beside it. Pure.

A record that is none becomes a message too: its bytes as they came, said to be JSON. No such bytes are a row, since a
msgpack value of more than one byte begins with a byte that no JSON does. So it takes the way of every message that
cannot be read: a dead letter under its own position, acknowledged when that is durable, the same at every delivery.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec

from recorder.bus import wire
from recorder.bus.base import Encoding

_Text = Annotated[str, msgspec.Meta(max_length=255)]
_Id = Annotated[str, msgspec.Meta(max_length=1_024)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Raw = msgspec.Raw

_split = msgspec.msgpack.Decoder(list[_Raw]).decode
_fields = msgspec.msgpack.Decoder(tuple[_Raw, _Raw, _Raw, _Raw, _Raw]).decode
_record = msgspec.msgpack.Decoder(wire.Record).decode
_time = msgspec.msgpack.Decoder(_Time)
_topic = msgspec.msgpack.Decoder(_Text)
_bytes = msgspec.msgpack.Decoder(bytes)
_id = msgspec.msgpack.Decoder(_Id | None)
_ERRORS = (msgspec.MsgspecError, ValueError, RecursionError)


class Salvaged(NamedTuple):
    """All records of a frame, in order; and what is wrong with those that were none, by their place in it."""

    records: list[wire.Record]
    faults: dict[int, str]


def salvage(data: wire.Data) -> Salvaged | None:
    """The messages of DATA, each decoded by itself; None if its body is no array of as many values as it says."""
    if wire.array_length(data.body) != data.messages:  # before anything is decoded, as there
        return None
    try:
        parts = _split(data.body)
    except _ERRORS:
        return None
    records: list[wire.Record] = []
    faults: dict[int, str] = {}
    for place, part in enumerate(parts):
        try:
            records.append(_record(part))
        except _ERRORS as error:
            faults[place] = str(error)
            records.append(_as_it_came(part))
    return Salvaged(records, faults)


def _as_it_came(part: msgspec.Raw) -> wire.Record:
    """A record of the bytes of one that is none, with what of its time, topic and correlation id can be read."""
    ts_ns, topic, correlation_id = 0, "", None
    try:
        fields = _fields(part)
    except _ERRORS:
        pass
    else:
        ts_ns = _or(_time, fields[0], 0)
        topic = _or(_topic, fields[1], "") or _or(_bytes, fields[1], b"").decode("utf-8", "replace")[:255]
        correlation_id = _or(_id, fields[3], None)
    # A copy: the frame need not stay for one record of it.
    return ts_ns, topic, wire.ENCODING_NUMBERS[Encoding.JSON], correlation_id, bytes(part)


def _or(decoder: msgspec.msgpack.Decoder[Any], field: msgspec.Raw, otherwise: Any) -> Any:
    try:
        return decoder.decode(field)
    except _ERRORS:
        return otherwise
