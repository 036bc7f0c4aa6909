"""Binance's public market streams of spot, USD-M and COIN-M, as rows of `market_data`, `book_deltas`, `system_events`.

`messages` says what the venue sends, `classify` which message is which, `book` and `sync` keep the depth book by the
venue's published procedure, `ids` watches ids for holes, `rows` writes rows, `state` keeps what is known of a symbol,
`quotes` and `depth` decide which rows a message makes, `normaliser` which message it is.
"""

from __future__ import annotations

from recorder.normalise.binance.normaliser import BinanceNormaliser
from recorder.normalise.binance.rows import Slot
from recorder.normalise.binance.state import SYMBOLS_MAX

__all__ = ["SYMBOLS_MAX", "BinanceNormaliser", "Slot"]
