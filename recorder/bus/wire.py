"""The protocol between `Publisher` and recorder over ZeroMQ, version 1.

The recorder binds a ROUTER, publishers connect a DEALER each. A frame is one ZeroMQ message of one part, little-endian:

| offset | bytes | |
|---|---|---|
| 0 | 2 | magic `CR` |
| 2 | 1 | version, 1 |
| 3 | 1 | kind, below |
| 4 | 8 | epoch: a random number that a publisher draws when it starts |
| 12 | | by kind |

From a publisher:

| kind | name | then |
|---|---|---|
| 1 | HELLO | base u64, sent_to u64, shed u64, shed_told u64, name (UTF-8, at most 255 bytes, to the end) |
| 2 | DATA | flags u8 (1: redelivered), follows u64, first u64, count u32 (1 to 4,096), shed u64, body to the end |
| 3 | PING | sent_to u64, shed u64 |
| 4 | BYE | nothing |

From the recorder:

| kind | name | then |
|---|---|---|
| 17 | ACK | flags u8 (1: welcome, 2: resend), run u64, resolved u64, expected u64, shed_seen u64, window_messages u32,
|    |     | window_bytes u64, ranges u32, then for each: start u64, end u64 |
| 18 | UNKNOWN | run u64 |

A publisher numbers its messages from 0. `body` is a msgpack array of `count` arrays [ts_ns, topic, encoding (0 JSON, 1
msgpack), correlation id or nil, payload], numbered from `first` on.

- HELLO opens an epoch at a recorder: everything below `base` is resolved, everything below `sent_to` was sent before.
  It is answered by ACK with the flag welcome, after which DATA may follow. It is repeated until it is answered, after a
  silence, and whenever the recorder says UNKNOWN or another `run` (a random number per start of a subscription): the
  publisher then sends everything unresolved again.
- DATA is taken if its `follows` is not above what is expected next; `first` is above `follows` where what lies between
  is resolved and is not sent again. What is below the expected position is a repeat: dropped, counted, acknowledged. A
  hole before `follows` is answered by ACK with the flag resend: go on from `expected`.
- PING is sent once a heartbeat, and answered by ACK. If it says that more was sent than has come, that asks for it.
- ACK: everything below `resolved` and in `ranges` is safe. At most `window_messages` of together `window_bytes` may be
  unresolved at a time; one message may always be on its way. It never shrinks what is resolved: any frame may be lost,
  doubled or late.
- `shed` counts the messages that the publisher dropped since it started; `shed_seen` gives it back, and `shed_told` in
  HELLO says up to where a recorder was told.
- DATA, PING of an epoch the recorder does not know are answered by UNKNOWN. BYE ends an epoch of which all is resolved.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import msgspec

from recorder.bus.base import Encoding

MAGIC = b"CR"
VERSION = 1
NAME_BYTES = 255
MAX_RANGES = 512
"""In one acknowledgement; what is above them is told when those below are resolved."""
MAX_MESSAGES = 4_096
"""In one frame, so that taking it stays short."""
MAX_FRAME_BYTES = 16 * 1024 * 1024 + 64 * 1024
"""What a recorder takes at all; ZeroMQ ends the connection of who sends more."""
MAX_POSITION = 2**51
"""Positions stay below this, so that `position x 4,096 + slot` is a u64 and a double holds it."""


class Kind(enum.IntEnum):
    """What a frame is."""

    HELLO = 1
    DATA = 2
    PING = 3
    BYE = 4
    ACK = 17
    UNKNOWN = 18


class WireError(ValueError):
    """A frame that is none."""


REDELIVERED = 1
WELCOME = 1
RESEND = 2

ENCODINGS = (Encoding.JSON, Encoding.MSGPACK)
"""By number."""
ENCODING_NUMBERS = {encoding: number for number, encoding in enumerate(ENCODINGS)}

Record = tuple[
    Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)],
    Annotated[str, msgspec.Meta(max_length=255)],
    Annotated[int, msgspec.Meta(ge=0, le=1)],
    Annotated[str, msgspec.Meta(max_length=1_024)] | None,
    bytes,
]
"""ts_ns, topic, encoding, correlation id, payload."""

_HEADER = struct.Struct("<2sBBQ")
_HELLO = struct.Struct("<QQQQ")
_DATA = struct.Struct("<BQQIQ")
_PING = struct.Struct("<QQ")
_ACK = struct.Struct("<BQQQQIQI")
_UNKNOWN = struct.Struct("<Q")
_RANGE = struct.Struct("<QQ")
_ARRAY = struct.Struct(">BI")
_decode_records = msgspec.msgpack.Decoder(list[Record]).decode
_encode = msgspec.msgpack.Encoder().encode


class Hello(NamedTuple):
    """A publisher begins, or begins again."""

    base: int
    sent_to: int
    shed: int
    shed_told: int
    name: str


class Data(NamedTuple):
    """Messages. `body` is not yet decoded: of a repeat it need not be."""

    redelivered: bool
    follows: int
    first: int
    messages: int
    shed: int
    body: memoryview


class Ping(NamedTuple):
    """A publisher's heartbeat."""

    sent_to: int
    shed: int


class Bye(NamedTuple):
    """An epoch's end."""


class Ack(NamedTuple):
    """What is resolved, expected and allowed."""

    welcome: bool
    resend: bool
    run: int
    resolved: int
    expected: int
    shed_seen: int
    window_messages: int
    window_bytes: int
    ranges: Sequence[tuple[int, int]]


class Unknown(NamedTuple):
    """The recorder does not know the epoch."""

    run: int


def record(ts_ns: int, topic: str, encoding: int, correlation_id: str | None, payload: bytes) -> bytes:
    """One message as it stands in a body."""
    return _encode((ts_ns, topic, encoding, correlation_id, payload))


def pack_hello(epoch: int, hello: Hello) -> bytes:
    """HELLO; the name is cut to its bound."""
    name = hello.name.encode("utf-8", "replace")[:NAME_BYTES].decode("utf-8", "ignore").encode()
    return _HEADER.pack(MAGIC, VERSION, Kind.HELLO, epoch) + _HELLO.pack(*hello[:4]) + name


def pack_data(
    epoch: int,
    *,
    redelivered: bool,
    follows: int,
    first: int,
    shed: int,
    records: Sequence[bytes | memoryview],
) -> bytes:
    """DATA of encoded records."""
    count = len(records)
    return b"".join(
        (
            _HEADER.pack(MAGIC, VERSION, Kind.DATA, epoch),
            _DATA.pack(REDELIVERED if redelivered else 0, follows, first, count, shed),
            _ARRAY.pack(0xDD, count),
            *records,
        )
    )


def pack_ping(epoch: int, sent_to: int, shed: int) -> bytes:
    """PING."""
    return _HEADER.pack(MAGIC, VERSION, Kind.PING, epoch) + _PING.pack(sent_to, shed)


def pack_bye(epoch: int) -> bytes:
    """BYE."""
    return _HEADER.pack(MAGIC, VERSION, Kind.BYE, epoch)


def pack_ack(epoch: int, ack: Ack) -> bytes:
    """ACK, with at most `MAX_RANGES` of its ranges."""
    ranges = ack.ranges[:MAX_RANGES]
    flags = (WELCOME if ack.welcome else 0) | (RESEND if ack.resend else 0)
    head = _ACK.pack(
        flags,
        ack.run,
        ack.resolved,
        ack.expected,
        ack.shed_seen,
        ack.window_messages,
        ack.window_bytes,
        len(ranges),
    )
    return b"".join(
        (_HEADER.pack(MAGIC, VERSION, Kind.ACK, epoch), head, *(_RANGE.pack(*pair) for pair in ranges))
    )


def pack_unknown(epoch: int, run: int) -> bytes:
    """UNKNOWN."""
    return _HEADER.pack(MAGIC, VERSION, Kind.UNKNOWN, epoch) + _UNKNOWN.pack(run)


FromPublisher = Hello | Data | Ping | Bye
FromRecorder = Ack | Unknown


def _open(frame: bytes) -> tuple[int, int]:
    if len(frame) < _HEADER.size:
        raise WireError(f"{len(frame)} bytes; a frame has at least {_HEADER.size}")
    magic, version, kind, epoch = _HEADER.unpack_from(frame)
    if magic != MAGIC:
        raise WireError(f"begins with {magic!r}; a frame begins with {MAGIC!r}")
    if version != VERSION:
        raise WireError(f"version {version}; this one speaks version {VERSION}")
    return kind, epoch


def unpack_from_publisher(frame: bytes) -> tuple[int, FromPublisher]:
    """The epoch and content of a frame for the recorder.

    Raises:
        WireError: it is none.
    """
    kind, epoch = _open(frame)
    at = _HEADER.size
    try:
        if kind == Kind.DATA:
            flags, follows, first, count, shed = _DATA.unpack_from(frame, at)
            if not (follows <= first <= first + count <= MAX_POSITION and 0 < count <= MAX_MESSAGES):
                raise WireError(f"{count} messages from {first} on after {follows}")
            body = memoryview(frame)[at + _DATA.size :]
            return epoch, Data(bool(flags & REDELIVERED), follows, first, count, shed, body)
        if kind == Kind.PING:
            return epoch, Ping(*_PING.unpack_from(frame, at))
        if kind == Kind.HELLO:
            base, sent_to, shed, shed_told = _HELLO.unpack_from(frame, at)
            name = frame[at + _HELLO.size :]
            if not (base <= sent_to <= MAX_POSITION and shed_told <= shed and len(name) <= NAME_BYTES):
                raise WireError(f"sent {sent_to} from {base} on, shed {shed}, a name of {len(name)} bytes")
            return epoch, Hello(base, sent_to, shed, shed_told, name.decode())
        if kind == Kind.BYE:
            return epoch, Bye()
    except (struct.error, UnicodeDecodeError) as error:
        raise WireError(f"{Kind(kind).name}: {error}") from None
    raise WireError(f"kind {kind}; a publisher sends none such")


def unpack_records(data: Data) -> list[Record]:
    """The messages of DATA.

    Raises:
        WireError: they are none, or not as many as it says.
    """
    # Before anything is decoded: a body of 16 MiB may hold as many values, and each costs an object.
    said = array_length(data.body)
    if said != data.messages:
        what = "no array" if said is None else f"{said} messages, said to be {data.messages}"
        raise WireError(f"DATA: {what}")
    try:
        records = _decode_records(data.body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise WireError(f"DATA: {error}") from None
    return records


def array_length(body: memoryview) -> int | None:
    """How many values a msgpack array says it has; None if it is none."""
    first = body[0] if len(body) else 0
    if first & 0xF0 == 0x90:
        return first & 0x0F
    size = {0xDC: 2, 0xDD: 4}.get(first)
    return None if size is None else int.from_bytes(body[1 : 1 + size], "big")


def unpack_from_recorder(frame: bytes) -> tuple[int, FromRecorder]:
    """The epoch and content of a frame for a publisher.

    Raises:
        WireError: it is none.
    """
    kind, epoch = _open(frame)
    at = _HEADER.size
    try:
        if kind == Kind.ACK:
            flags, run, resolved, expected, shed_seen, messages, bytes_, count = _ACK.unpack_from(frame, at)
            at += _ACK.size
            if count > MAX_RANGES or len(frame) != at + count * _RANGE.size:
                raise WireError(f"ACK: {count} ranges in {len(frame)} bytes")
            ranges = list(_RANGE.iter_unpack(frame[at:])) if count else []
            return epoch, Ack(
                bool(flags & WELCOME),
                bool(flags & RESEND),
                run,
                resolved,
                expected,
                shed_seen,
                messages,
                bytes_,
                ranges,
            )
        if kind == Kind.UNKNOWN:
            return epoch, Unknown(*_UNKNOWN.unpack_from(frame, at))
    except struct.error as error:
        raise WireError(f"{Kind(kind).name}: {error}") from None
    raise WireError(f"kind {kind}; a recorder sends none such")
