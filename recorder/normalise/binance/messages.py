"""What the venue sends: one struct per message, with the bounds that a real message keeps.

Decoding is where bad values stop. Prices and sizes come as strings and become floats once, in the decoder; NaN,
infinities, negative numbers and prices of zero are refused there, as are missing fields and other types. (A number in
quotes passes where a bare one is usual: its value is the same.) Fields that no row needs are not named and are skipped.

Sources: Binance's API documents, "Market Streams" of spot, USD-M and COIN-M.
"""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from msgspec import Meta, Struct
from msgspec.json import Decoder

PRICE_MAX = 1e12
SIZE_MAX = 1e18
ID_MAX = 2**63 - 1
TIME_MIN_MS = 1_200_000_000_000
TIME_MAX_MS = 4_100_000_000_000
"""Times outside 2008 to 2099 are refused."""
TIME_MAX_US = TIME_MAX_MS * 1_000

Price = Annotated[float, Meta(gt=0, le=PRICE_MAX)]
Size = Annotated[float, Meta(ge=0, le=SIZE_MAX)]
Quantity = Annotated[float, Meta(gt=0, le=SIZE_MAX)]
SidePrice = Annotated[float, Meta(ge=0, le=PRICE_MAX)]
"""A best price; the venue writes 0, with size 0, where the side is empty."""
VenueId = Annotated[int, Meta(ge=0, le=ID_MAX)]
VenueTime = Annotated[int, Meta(ge=TIME_MIN_MS, le=TIME_MAX_US)]
"""Milliseconds since the epoch, or microseconds on connections that ask for them."""
Symbol = Annotated[str, Meta(min_length=1, max_length=64)]
Level = tuple[Price, Size]
Levels = list[Level]


class BookTicker(Struct, gc=False):
    """Best bid and ask. Spot sends neither event type nor time."""

    u: VenueId
    s: Symbol
    b: SidePrice
    B: Size
    a: SidePrice
    A: Size
    T: VenueTime | None = None
    E: VenueTime | None = None
    e: Literal["bookTicker"] | None = None


class Trade(Struct, gc=False):
    """One trade. `X` is the futures' kind of trade, "MARKET" unless the order book had no part; `M` is spot's only.

    Futures send placeholders too, with X "NA" and neither price nor quantity: they take up a trade id.
    """

    e: Literal["trade"]
    E: VenueTime
    s: Symbol
    t: VenueId
    p: SidePrice
    q: Size
    m: bool
    T: VenueTime | None = None
    X: str | None = None
    M: bool | None = None


class AggTrade(Struct, gc=False):
    """Fills of one taker order at one price, as one trade. `M` is sent by spot only."""

    e: Literal["aggTrade"]
    E: VenueTime
    s: Symbol
    a: VenueId
    p: Price
    q: Quantity
    m: bool
    T: VenueTime | None = None
    M: bool | None = None


class DepthUpdate(Struct, gc=False):
    """Changed levels, from update `U` to `u`; `pu`, the last update of the message before, is sent by futures only."""

    e: Literal["depthUpdate"]
    E: VenueTime
    s: Symbol
    U: VenueId
    u: VenueId
    b: Levels
    a: Levels
    T: VenueTime | None = None
    pu: Annotated[int, Meta(ge=-1, le=ID_MAX)] | None = None


class DepthSnapshot(Struct, gc=False):
    """The REST answer, and spot's partial depth stream. Spot has no time in it; only COIN-M names the symbol."""

    lastUpdateId: VenueId  # noqa: N815 - the venue's name
    bids: Levels
    asks: Levels
    E: VenueTime | None = None
    T: VenueTime | None = None
    symbol: Symbol | None = None


PublicMessage = BookTicker | Trade | AggTrade | DepthUpdate | DepthSnapshot

M = TypeVar("M")


class Wrapped(Struct, Generic[M], gc=False):
    """A message as a combined stream wraps it; `stream` is read elsewhere."""

    data: M


# Not strict, so that the decoder turns the venue's strings into numbers: five times faster than Python does.
decode_wrapped_book_ticker = Decoder(Wrapped[BookTicker], strict=False).decode
decode_wrapped_trade = Decoder(Wrapped[Trade], strict=False).decode
decode_wrapped_agg_trade = Decoder(Wrapped[AggTrade], strict=False).decode
decode_wrapped_depth = Decoder(Wrapped[DepthUpdate], strict=False).decode

decode_book_ticker = Decoder(BookTicker, strict=False).decode
decode_trade = Decoder(Trade, strict=False).decode
decode_agg_trade = Decoder(AggTrade, strict=False).decode
decode_depth = Decoder(DepthUpdate, strict=False).decode
decode_snapshot = Decoder(DepthSnapshot, strict=False).decode
