-- What the appended events say now. Every view reads its table whole: filter by its key columns.

-- One row an order. Its key is (account_id, client_order_id). The venue's id is unique within its symbol only: rows that
-- carry it alone are joined to the client's id where another row of the same account, symbol and venue names both (a
-- row that does not say its venue goes with the one venue there is), else (account_id, venue, symbol, broker_order_id)
-- is the key. Each column is the latest that is not null. A final status stands: later transitions do not move it, and
-- later final ones that say something else are counted in conflicting_finals.
CREATE VIEW IF NOT EXISTS {{db}}.orders_current {{on_cluster}} AS
SELECT
    o.account_id AS account_id,
    o.client_key AS client_order_id,
    argMax(nullIf(o.broker_order_id, ''), o.place) AS broker_order_id,
    if(countIf(o.closes) > 0, argMinIf(o.status, o.place, o.closes), argMax(o.status, o.place)) AS status,
    countIf(o.closes) > 0 AS is_final,
    argMax(o.strategy, o.place) AS strategy,
    argMax(o.symbol, o.place) AS symbol,
    argMax(o.venue, o.place) AS venue,
    argMax(o.side, o.place) AS side,
    argMax(o.qty, o.place) AS qty,
    argMax(o.limit_px, o.place) AS limit_px,
    argMax(o.order_type, o.place) AS order_type,
    argMax(o.tif, o.place) AS tif,
    if(
        countIf(o.closes) > 0,
        tupleElement(argMinIf(tuple(o.reject_reason), o.place, o.closes), 1),
        argMax(o.reject_reason, o.place)
    ) AS reject_reason,
    argMax(o.intent_id, o.place) AS intent_id,
    argMax(o.approved_id, o.place) AS approved_id,
    argMax(o.decision_id, o.place) AS decision_id,
    argMax(o.risk_mode, o.place) AS risk_mode,
    argMax(o.risk_decision_id, o.place) AS risk_decision_id,
    argMax(o.notes, o.place) AS notes,
    argMax(o.correlation_id, o.place) AS correlation_id,
    argMax(o.run_id, o.place) AS run_id,
    argMax(o.ts_intent, o.place) AS ts_intent,
    argMax(o.ts_send, o.place) AS ts_send,
    argMax(o.ts_ack, o.place) AS ts_ack,
    if(
        countIf(o.closes) > 0,
        tupleElement(argMinIf(tuple(o.ts_final), o.place, o.closes), 1),
        argMax(o.ts_final, o.place)
    ) AS ts_final,
    min(o.ts_local) AS ts_first_local,
    max(o.ts_local) AS ts_local,
    toUnixTimestamp64Nano(argMax(o.ts_ack, o.place)) - toUnixTimestamp64Nano(argMax(o.ts_send, o.place)) AS submit_latency_ns,
    count() AS transitions,
    arrayCount(later -> later != status, groupArrayIf(toString(o.status), o.closes)) AS conflicting_finals
FROM
(
    SELECT
        t.*,
        (t.ts_local, t._log, t._seq) AS place,
        t.status IN ('Filled', 'Canceled', 'Rejected', 'Failed', 'Expired') AS closes,
        toString(coalesce(t.venue, '')) AS venue_key,
        arrayFilter(name -> venue_key = '' OR name.1 IN ('', venue_key), named.names) AS fitting,
        if(
            venue_key = '' AND length(arrayDistinct(arrayFilter(venue -> venue != '', fitting.1))) > 1,
            '',
            arraySort(name -> (name.1 != venue_key, name.2), fitting)[1].2
        ) AS named_client,
        coalesce(nullIf(t.client_order_id, ''), nullIf(named_client, '')) AS client_key,
        if(
            client_key IS NULL AND t.broker_order_id != '',
            [venue_key, toString(t.symbol), assumeNotNull(t.broker_order_id)],
            []
        ) AS broker_key
    FROM {{db}}.orders AS t
    LEFT JOIN
    (
        SELECT
            n.account_id AS account_id,
            n.symbol AS symbol,
            n.broker_order_id AS broker_order_id,
            groupUniqArray((toString(coalesce(n.venue, '')), assumeNotNull(n.client_order_id))) AS names
        FROM {{db}}.orders AS n
        WHERE n.client_order_id != '' AND n.broker_order_id IN
        (
            SELECT u.broker_order_id FROM {{db}}.orders AS u
            WHERE u.broker_order_id != '' AND coalesce(u.client_order_id, '') = ''
        )
        GROUP BY n.account_id, n.symbol, n.broker_order_id
    ) AS named
    ON named.account_id = t.account_id AND named.symbol = t.symbol AND named.broker_order_id = t.broker_order_id
) AS o
WHERE o.client_key IS NOT NULL OR notEmpty(o.broker_key)
GROUP BY o.account_id, o.client_key, o.broker_key;

-- One row an execution, however often the venue sent it. Each column is the latest that is not null.
CREATE VIEW IF NOT EXISTS {{db}}.fills_unique {{on_cluster}} AS
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
    argMax(f.side, f.place) AS side,
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
GROUP BY f.venue, f.account_id, f.symbol, f.fill_id;

-- The latest state of each position. Each column is the latest that is not null, but for avg_price: a flat position has
-- none, and what follows it does not take up the price from before.
CREATE VIEW IF NOT EXISTS {{db}}.positions_intraday_current {{on_cluster}} AS
SELECT
    p.account_id AS account_id,
    p.symbol AS symbol,
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
GROUP BY p.account_id, p.symbol, p.strategy;

-- The latest state of each account. Each column is the latest that is not null.
CREATE VIEW IF NOT EXISTS {{db}}.account_state_current {{on_cluster}} AS
SELECT
    a.account_id AS account_id,
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
GROUP BY a.account_id;
