"""Three questions people ask a flight recorder, as SQL over the core tables.

The statements are shown as they are run, values included, so that each can be pasted into `recorder query`. The
values are ids the simulator made, of letters, digits and dashes; `_literal` refuses any other.
"""

from __future__ import annotations

import re


def _literal(value: str) -> str:
    """A quoted SQL string.

    Raises:
        ValueError: the value has a character that ids do not have.
    """
    if not re.fullmatch(r"[\w.~:-]+", value):
        raise ValueError(f"{value!r} is no id")
    return f"'{value}'"


def life_of_an_order(client_order_id: str) -> str:
    """Every step of one order, in order of time: columns step, time, us after the step before, what."""
    order_id = _literal(client_order_id)
    return f"""\
WITH {order_id} AS id,
     (SELECT (any(intent_id), any(correlation_id))
      FROM orders WHERE client_order_id = id) AS ids,
     steps AS
     (
        SELECT ts_local AS at, 1 AS n, 'quote' AS step,
               concat(toString(bid_px1), ' / ', toString(ask_px1)) AS what
        FROM market_data WHERE correlation_id = ids.2
      UNION ALL
        SELECT ts_intent, 2, 'intent', concat(side, ' ', toString(qty), ' ', symbol, ' at ',
               ifNull(toString(limit_px), 'market'), ' ', tif, ', ', strategy)
        FROM orders WHERE client_order_id = id AND status = 'Submitted'
      UNION ALL
        SELECT ts_local, 3, concat('risk: ', decision),
               concat(reason_code, ', position ', toString(position))
        FROM risk_decisions WHERE intent_id = ids.1
      UNION ALL
        SELECT ts_local, 4, concat('order: ', status), ifNull(broker_order_id, '')
        FROM orders WHERE client_order_id = id
      UNION ALL
        SELECT ts_first_local, 5, concat('fill: ', liquidity),
               concat(toString(fill_qty), ' at ', toString(fill_price),
                      ', fee ', toString(fees))
        FROM fills_unique WHERE client_order_id = id
      UNION ALL
        SELECT ts_local, 6, 'position',
               concat(toString(position_qty), ', realised ', toString(realized_pnl))
        FROM positions_intraday WHERE correlation_id = ids.2
     )
SELECT step, toString(at) AS time,
       dateDiff('nanosecond', lagInFrame(at, 1, at) OVER w, at) / 1000 AS after_us, what
FROM steps
WINDOW w AS (ORDER BY at, n ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
ORDER BY at, n"""


def fills_of_a_strategy(strategy: str, run_id: str) -> str:
    """A strategy's fills per symbol, each fill once: fills, quantities, volume-weighted price, notional, fees."""
    return f"""\
SELECT symbol, count() AS fills, sum(fill_qty) AS quantity,
       sum(toDecimal256(fill_price, 18) * fill_qty) AS notional,
       toFloat64(notional) / toFloat64(quantity) AS vwap,
       sum(fees) AS fees_paid, countIf(liquidity = 'maker') AS maker
FROM fills_unique
WHERE strategy = {_literal(strategy)} AND run_id = {_literal(run_id)}
GROUP BY symbol
ORDER BY notional DESC"""


def top_of_book_around_a_fill(fill_id: str) -> str:
    """The last five rows of market data before a fill at the venue, and the next five: ms from it, touch, trade."""
    return f"""\
WITH {_literal(fill_id)} AS id,
     (SELECT (any(symbol), any(ts_exchange), any(run_id))
      FROM fills_unique WHERE fill_id = id) AS fill,
     seen AS
     (
        SELECT *, dateDiff('nanosecond', fill.2, ts_local) AS away_ns
        FROM market_data
        WHERE symbol = fill.1 AND run_id = fill.3
          AND ts_local BETWEEN fill.2 - INTERVAL 5 SECOND AND fill.2 + INTERVAL 5 SECOND
     )
SELECT away_ns / 1000000 AS from_fill_ms,
       bid_sz1, bid_px1, ask_px1, ask_sz1, last_side, last_qty, last_price
FROM
(
    (SELECT * FROM seen WHERE away_ns <= 0 ORDER BY away_ns DESC LIMIT 5)
    UNION ALL
    (SELECT * FROM seen WHERE away_ns > 0 ORDER BY away_ns LIMIT 5)
)
ORDER BY away_ns"""
