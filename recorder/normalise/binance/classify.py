"""Which message is this: by the stream's name where one wraps it, else by its event type, else by its shape.

The name decides without reading the message twice; a message that then does not fit is looked at again by content,
for the reason why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from recorder.normalise.base import BadMessage
from recorder.normalise.binance import messages, private
from recorder.normalise.binance.messages import PublicMessage
from recorder.normalise.binance.private import PrivateEvent, read_private

PARTIAL_DEPTHS = ("depth5", "depth10", "depth20")
PARTIAL_LEVELS = (5, 10, 20)

WITHOUT_TABLE = frozenset({
    "kline", "continuous_kline", "indexPrice_kline", "markPrice_kline",
    "24hrTicker", "24hrMiniTicker", "1hTicker", "4hTicker", "1dTicker", "avgPrice", "referencePrice",
    "markPriceUpdate", "indexPriceUpdate", "forceOrder", "compositeIndex", "assetIndexUpdate", "contractInfo",
    "tradingSession", "rpiDepthUpdate", "serverShutdown",
})  # fmt: skip
"""Event types of the public streams that no table takes."""

_WRAPPED: dict[bytes, Callable[[bytes], messages.Wrapped[Any]]] = {
    b"bookTicker": messages.decode_wrapped_book_ticker,
    b"trade": messages.decode_wrapped_trade,
    b"aggTrade": messages.decode_wrapped_agg_trade,
    **{
        b"depth" + speed: messages.decode_wrapped_depth
        for speed in (b"", b"@0ms", b"@100ms", b"@250ms", b"@500ms", b"@1000ms")
    },
}
_BARE: dict[str, Callable[[bytes], PublicMessage]] = {
    "bookTicker": messages.decode_book_ticker,
    "trade": messages.decode_trade,
    "aggTrade": messages.decode_agg_trade,
    "depthUpdate": messages.decode_depth,
}
WEBSOCKET_API = "(websocket API)"
"""What is taken for the name of the stream of events that the websocket API wraps."""
_HEAD = b'{"stream":"'
_STREAM_NAME_MAX = 200


class _Probe(Struct, gc=False):
    """What tells messages apart."""

    stream: str | UnsetType = UNSET
    data: Raw | UnsetType = UNSET
    event: Raw | UnsetType = UNSET
    e: str | UnsetType = UNSET
    lastUpdateId: Raw | UnsetType = UNSET  # noqa: N815 - the venue's name
    u: Raw | UnsetType = UNSET
    B: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    id: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET
    code: Raw | UnsetType = UNSET


class _ItemType(Struct, gc=False):
    e: str


_probe = msgspec.json.Decoder(_Probe).decode
_item_types = msgspec.json.Decoder(list[_ItemType]).decode
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Ignored(str):
    """The event type of a message that is known and has no table."""

    __slots__ = ()


def read_by_stream_name(payload: bytes) -> PublicMessage | None:
    """The message of a combined stream whose name says what it is; None if that is not so, or it does not fit."""
    if not payload.startswith(_HEAD):
        return None
    end = payload.find(b'"', len(_HEAD), _STREAM_NAME_MAX)
    at = payload.find(b"@", len(_HEAD), end) if end > 0 else -1
    decode = _WRAPPED.get(payload[at + 1 : end]) if at > 0 else None
    if decode is None:
        return None
    try:
        message: PublicMessage = decode(payload).data
    except _UNREADABLE:
        return None
    return message


def read(payload: bytes, topic: str) -> tuple[PublicMessage | PrivateEvent | Ignored, str]:
    """Any message, and its stream: of the wrapper, `WEBSOCKET_API`, else the topic if it looks like one, else empty.

    Raises:
        BadMessage: it cannot be decoded, misses a field, has a wrong value, or is of a kind the venue is not known for.
    """
    try:
        return _read(payload, topic)
    except msgspec.ValidationError as error:
        raise BadMessage("bad_field", str(error)) from None
    except msgspec.MsgspecError as error:
        raise BadMessage("not_json", str(error)) from None
    except UnicodeDecodeError as error:
        raise BadMessage("not_utf8", str(error)) from None
    except RecursionError:
        raise BadMessage("not_json", "nested too deeply to be a message of this venue") from None


def is_partial_by_shape(snapshot: messages.DepthSnapshot) -> bool:
    """Whether a snapshot that no stream's name goes with is one of spot's partial depth stream.

    The REST answer has the same shape. It is asked for to keep a book, so with hundreds of levels; the stream has
    exactly 5, 10 or 20 a side, and no time. A REST answer of just so many is taken for the stream's.
    """
    levels = len(snapshot.bids)
    return (
        levels in PARTIAL_LEVELS
        and len(snapshot.asks) == levels
        and snapshot.T is None
        and snapshot.E is None
        and snapshot.symbol is None
    )


def _read(payload: bytes, topic: str) -> tuple[PublicMessage | PrivateEvent | Ignored, str]:
    body = payload
    stream = topic if "@" in topic else ""
    if payload.lstrip()[:1] != b"[":
        probe = _probe(payload)
        if probe.stream is not UNSET and probe.data is not UNSET:
            stream = probe.stream
            body = bytes(probe.data)
        elif probe.event is not UNSET and bytes(probe.event)[:1] == b"{":  # user data over the websocket API
            stream = WEBSOCKET_API
            body = bytes(probe.event)
    if body.lstrip()[:1] == b"[":
        return _read_array(body), stream
    return _read_object(body), stream


def _read_array(body: bytes) -> Ignored:
    types = {item.e for item in _item_types(body)}
    if not types:
        return Ignored("empty_array")
    if unknown := sorted(types - WITHOUT_TABLE):
        raise BadMessage(
            "unknown_event", f"array of {', '.join(unknown)[:200]}; known arrays are tickers and marks"
        )
    return Ignored(sorted(types)[0])


def _read_object(body: bytes) -> PublicMessage | PrivateEvent | Ignored:
    probe = _probe(body)
    if probe.e is not UNSET:
        if decode := _BARE.get(probe.e):
            return decode(body)
        if probe.e in private.TYPES:
            return read_private(probe.e, body)
        if probe.e in WITHOUT_TABLE or probe.e in private.WITHOUT_TABLE:
            return Ignored(probe.e)
        raise BadMessage("unknown_event", f'event type "{probe.e[:100]}" is none of the venue\'s streams')
    if probe.lastUpdateId is not UNSET:
        return messages.decode_snapshot(body)
    if probe.u is not UNSET and probe.B is not UNSET:
        return messages.decode_book_ticker(body)
    if probe.error is not UNSET or probe.code is not UNSET:
        raise BadMessage("venue_error", f"the venue refused a request: {body[:200].decode(errors='replace')}")
    if (
        probe.result is not UNSET
        and probe.id is not UNSET
        and (bytes(probe.result) == b"null" or bytes(probe.result)[:1] == b"[")
    ):
        return Ignored("reply")
    raise BadMessage(
        "unknown_message", f"no event type and no known shape: {body[:100].decode(errors='replace')}"
    )
