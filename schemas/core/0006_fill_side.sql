-- An account that trades with itself has two fills of one trade: the venue gives both sides the same id. The side tells
-- them apart, else the sums over fills would lack one of the two.

-- One row an execution of one side, however often the venue sent it. Each column is the latest that is not null.
CREATE OR REPLACE VIEW {{db}}.fills_unique {{on_cluster}} AS
SELECT
    f.venue AS venue,
    f.account_id AS account_id,
    f.symbol AS symbol,
    f.fill_id AS fill_id,
    argMax(f.ts_exchange, f.place) AS ts_exchange,
    max(f.ts_local) AS ts_local,
    min(f.ts_local) AS ts_first_local,
    argMax(f.client_order_id, f.place) AS client_order_id,
    argMax(f.broker_order_id, f.place) AS broker_order_id,
    argMax(f.strategy, f.place) AS strategy,
    f.side AS side,
    argMax(f.fill_qty, f.place) AS fill_qty,
    argMax(f.fill_price, f.place) AS fill_price,
    argMax(f.fees, f.place) AS fees,
    argMax(f.fee_currency, f.place) AS fee_currency,
    argMax(f.tax, f.place) AS tax,
    argMax(f.liquidity, f.place) AS liquidity,
    argMax(f.source, f.place) AS source,
    argMax(f.raw_json, f.place) AS raw_json,
    argMax(f.correlation_id, f.place) AS correlation_id,
    argMax(f.run_id, f.place) AS run_id,
    count() AS copies
FROM (SELECT *, (ts_local, _log, _seq) AS place FROM {{db}}.fills) AS f
GROUP BY f.venue, f.account_id, f.symbol, f.fill_id, f.side;
