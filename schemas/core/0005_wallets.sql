-- An account is a wallet at a venue in a currency, and a hedged account holds two positions in one symbol: without
-- these columns the rows of one would be taken for the state of the other.

ALTER TABLE {{db}}.positions_intraday {{on_cluster}}
    ADD COLUMN IF NOT EXISTS venue LowCardinality(Nullable(String)) CODEC(ZSTD(1)) AFTER net_exposure,
    ADD COLUMN IF NOT EXISTS position_side LowCardinality(Nullable(String)) CODEC(ZSTD(1)) AFTER venue;

ALTER TABLE {{db}}.account_state {{on_cluster}}
    ADD COLUMN IF NOT EXISTS venue LowCardinality(Nullable(String)) CODEC(ZSTD(1)) AFTER risk_mode,
    ADD COLUMN IF NOT EXISTS currency LowCardinality(Nullable(String)) CODEC(ZSTD(1)) AFTER venue;

-- The latest state of each position. Each column is the latest that is not null, but for avg_price: a flat position has
-- none, and what follows it does not take up the price from before.
CREATE OR REPLACE VIEW {{db}}.positions_intraday_current {{on_cluster}} AS
SELECT
    p.account_id AS account_id,
    p.venue AS venue,
    p.symbol AS symbol,
    p.position_side AS position_side,
    p.strategy AS strategy,
    argMax(p.ts, p.place) AS ts,
    argMax(p.ts_local, p.place) AS ts_local,
    argMax(p.position_qty, p.place) AS position_qty,
    tupleElement(
        argMaxIf(
            tuple(if(p.position_qty = 0, NULL, p.avg_price)), p.place, p.position_qty = 0 OR p.avg_price IS NOT NULL
        ),
        1
    ) AS avg_price,
    argMax(p.realized_pnl, p.place) AS realized_pnl,
    argMax(p.unrealized_pnl, p.place) AS unrealized_pnl,
    argMax(p.fees_accum, p.place) AS fees_accum,
    argMax(p.gross_exposure, p.place) AS gross_exposure,
    argMax(p.net_exposure, p.place) AS net_exposure,
    argMax(p.correlation_id, p.place) AS correlation_id,
    argMax(p.run_id, p.place) AS run_id
FROM
(
    SELECT *, (coalesce(ts, ts_local), ts_local, _log, _seq) AS place FROM {{db}}.positions_intraday
) AS p
GROUP BY p.account_id, p.venue, p.symbol, p.position_side, p.strategy;

-- The latest state of each wallet. Each column is the latest that is not null.
CREATE OR REPLACE VIEW {{db}}.account_state_current {{on_cluster}} AS
SELECT
    a.account_id AS account_id,
    a.venue AS venue,
    a.currency AS currency,
    argMax(a.ts, a.place) AS ts,
    argMax(a.ts_local, a.place) AS ts_local,
    argMax(a.equity, a.place) AS equity,
    argMax(a.cash, a.place) AS cash,
    argMax(a.margin_used, a.place) AS margin_used,
    argMax(a.margin_available, a.place) AS margin_available,
    argMax(a.day_pnl, a.place) AS day_pnl,
    argMax(a.risk_mode, a.place) AS risk_mode,
    argMax(a.correlation_id, a.place) AS correlation_id,
    argMax(a.run_id, a.place) AS run_id
FROM (SELECT *, (coalesce(ts, ts_local), ts_local, _log, _seq) AS place FROM {{db}}.account_state) AS a
GROUP BY a.account_id, a.venue, a.currency;
