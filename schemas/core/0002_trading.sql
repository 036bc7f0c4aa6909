-- Orders, fills, positions, accounts and what risk control decided.

CREATE TABLE IF NOT EXISTS {{db}}.orders {{on_cluster}}
(
    ts_local         DateTime64(9, 'UTC')             CODEC(Delta, ZSTD(1)),
    run_id           LowCardinality(String)           CODEC(ZSTD(1)),
    correlation_id   Nullable(String)                 CODEC(ZSTD(1)),
    ts_intent        Nullable(DateTime64(9, 'UTC'))   CODEC(Delta, ZSTD(1)),
    ts_send          Nullable(DateTime64(9, 'UTC'))   CODEC(Delta, ZSTD(1)),
    ts_ack           Nullable(DateTime64(9, 'UTC'))   CODEC(Delta, ZSTD(1)),
    ts_final         Nullable(DateTime64(9, 'UTC'))   CODEC(Delta, ZSTD(1)),
    client_order_id  Nullable(String)                 CODEC(ZSTD(1)),
    broker_order_id  Nullable(String)                 CODEC(ZSTD(1)),
    intent_id        Nullable(String)                 CODEC(ZSTD(1)),
    approved_id      Nullable(String)                 CODEC(ZSTD(1)),
    decision_id      Nullable(String)                 CODEC(ZSTD(1)),
    account_id       LowCardinality(String)           CODEC(ZSTD(1)),
    strategy         LowCardinality(Nullable(String)) CODEC(ZSTD(1)),
    symbol           LowCardinality(String)           CODEC(ZSTD(1)),
    venue            LowCardinality(Nullable(String)) CODEC(ZSTD(1)),
    side             LowCardinality(Nullable(String)) CODEC(ZSTD(1)),
    qty              Nullable(Decimal(38, 18))        CODEC(ZSTD(1)),
    limit_px         Nullable(Decimal(38, 18))        CODEC(ZSTD(1)),
    order_type       LowCardinality(Nullable(String)) CODEC(ZSTD(1)),
    tif              LowCardinality(Nullable(String)) CODEC(ZSTD(1)),
    status           LowCardinality(String)           CODEC(ZSTD(1)),
    reject_reason    Nullable(String)                 CODEC(ZSTD(1)),
    risk_mode        LowCardinality(Nullable(String)) CODEC(ZSTD(1)),
    risk_decision_id Nullable(String)                 CODEC(ZSTD(1)),
    notes            Nullable(String)                 CODEC(ZSTD(1)),
    _log             UInt64                           CODEC(ZSTD(1)),
    _seq             UInt64                           CODEC(DoubleDelta, ZSTD(1)),
    INDEX client_order_id_bloom client_order_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX broker_order_id_bloom broker_order_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX intent_id_bloom intent_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX correlation_id_bloom correlation_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = {{engine}}
PARTITION BY {{partition}}
ORDER BY (account_id, symbol, ts_local)
{{ttl}}
SETTINGS {{settings}};

CREATE TABLE IF NOT EXISTS {{db}}.fills {{on_cluster}}
(
    ts_local        DateTime64(9, 'UTC')             CODEC(Delta, ZSTD(1)),
    run_id          LowCardinality(String)           CODEC(ZSTD(1)),
    correlation_id  Nullable(String)                 CODEC(ZSTD(1)),
    ts_exchange     Nullable(DateTime64(9, 'UTC'))   CODEC(Delta, ZSTD(1)),
    client_order_id Nullable(String)                 CODEC(ZSTD(1)),
    broker_order_id Nullable(String)                 CODEC(ZSTD(1)),
    fill_id         String                           CODEC(ZSTD(1)),
    strategy        LowCardinality(Nullable(String)) CODEC(ZSTD(1)),
    account_id      LowCardinality(String)           CODEC(ZSTD(1)),
    symbol          LowCardinality(String)           CODEC(ZSTD(1)),
    venue           LowCardinality(String)           CODEC(ZSTD(1)),
    side            LowCardinality(String)           CODEC(ZSTD(1)),
    fill_qty        Decimal(38, 18)                  CODEC(ZSTD(1)),
    fill_price      Decimal(38, 18)                  CODEC(ZSTD(1)),
    fees            Nullable(Decimal(38, 18))        CODEC(ZSTD(1)),
    fee_currency    LowCardinality(Nullable(String)) CODEC(ZSTD(1)),
    tax             Nullable(Decimal(38, 18))        CODEC(ZSTD(1)),
    liquidity       LowCardinality(Nullable(String)) CODEC(ZSTD(1)),
    source          LowCardinality(Nullable(String)) CODEC(ZSTD(1)),
    raw_json        Nullable(String)                 CODEC(ZSTD(1)),
    _log            UInt64                           CODEC(ZSTD(1)),
    _seq            UInt64                           CODEC(DoubleDelta, ZSTD(1)),
    INDEX ts_exchange_range ts_exchange TYPE minmax GRANULARITY 1,
    INDEX fill_id_bloom fill_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX client_order_id_bloom client_order_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX broker_order_id_bloom broker_order_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX correlation_id_bloom correlation_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = {{engine}}
PARTITION BY {{partition}}
ORDER BY (account_id, symbol, ts_local)
{{ttl}}
SETTINGS {{settings}};

CREATE TABLE IF NOT EXISTS {{db}}.positions_intraday {{on_cluster}}
(
    ts_local       DateTime64(9, 'UTC')             CODEC(Delta, ZSTD(1)),
    run_id         LowCardinality(String)           CODEC(ZSTD(1)),
    correlation_id Nullable(String)                 CODEC(ZSTD(1)),
    ts             Nullable(DateTime64(9, 'UTC'))   CODEC(Delta, ZSTD(1)),
    account_id     LowCardinality(String)           CODEC(ZSTD(1)),
    symbol         LowCardinality(String)           CODEC(ZSTD(1)),
    strategy       LowCardinality(Nullable(String)) CODEC(ZSTD(1)),
    position_qty   Decimal(38, 18)                  CODEC(ZSTD(1)),
    avg_price      Nullable(Decimal(38, 18))        CODEC(ZSTD(1)),
    realized_pnl   Nullable(Decimal(38, 18))        CODEC(ZSTD(1)),
    unrealized_pnl Nullable(Decimal(38, 18))        CODEC(ZSTD(1)),
    fees_accum     Nullable(Decimal(38, 18))        CODEC(ZSTD(1)),
    gross_exposure Nullable(Decimal(38, 18))        CODEC(ZSTD(1)),
    net_exposure   Nullable(Decimal(38, 18))        CODEC(ZSTD(1)),
    _log           UInt64                           CODEC(ZSTD(1)),
    _seq           UInt64                           CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {{engine}}
PARTITION BY {{partition}}
ORDER BY (account_id, symbol, ts_local)
{{ttl}}
SETTINGS {{settings}};

CREATE TABLE IF NOT EXISTS {{db}}.account_state {{on_cluster}}
(
    ts_local         DateTime64(9, 'UTC')             CODEC(Delta, ZSTD(1)),
    run_id           LowCardinality(String)           CODEC(ZSTD(1)),
    correlation_id   Nullable(String)                 CODEC(ZSTD(1)),
    ts               Nullable(DateTime64(9, 'UTC'))   CODEC(Delta, ZSTD(1)),
    account_id       LowCardinality(String)           CODEC(ZSTD(1)),
    equity           Nullable(Decimal(38, 18))        CODEC(ZSTD(1)),
    cash             Nullable(Decimal(38, 18))        CODEC(ZSTD(1)),
    margin_used      Nullable(Decimal(38, 18))        CODEC(ZSTD(1)),
    margin_available Nullable(Decimal(38, 18))        CODEC(ZSTD(1)),
    day_pnl          Nullable(Decimal(38, 18))        CODEC(ZSTD(1)),
    risk_mode        LowCardinality(Nullable(String)) CODEC(ZSTD(1)),
    _log             UInt64                           CODEC(ZSTD(1)),
    _seq             UInt64                           CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {{engine}}
PARTITION BY {{partition}}
ORDER BY (account_id, ts_local)
{{ttl}}
SETTINGS {{settings}};

CREATE TABLE IF NOT EXISTS {{db}}.risk_decisions {{on_cluster}}
(
    ts_local         DateTime64(9, 'UTC')             CODEC(Delta, ZSTD(1)),
    run_id           LowCardinality(String)           CODEC(ZSTD(1)),
    correlation_id   Nullable(String)                 CODEC(ZSTD(1)),
    ts               Nullable(DateTime64(9, 'UTC'))   CODEC(Delta, ZSTD(1)),
    risk_decision_id Nullable(String)                 CODEC(ZSTD(1)),
    strategy         LowCardinality(Nullable(String)) CODEC(ZSTD(1)),
    symbol           LowCardinality(Nullable(String)) CODEC(ZSTD(1)),
    client_order_id  Nullable(String)                 CODEC(ZSTD(1)),
    intent_id        Nullable(String)                 CODEC(ZSTD(1)),
    decision         LowCardinality(String)           CODEC(ZSTD(1)),
    reason_code      LowCardinality(Nullable(String)) CODEC(ZSTD(1)),
    risk_mode        LowCardinality(Nullable(String)) CODEC(ZSTD(1)),
    position         Nullable(Decimal(38, 18))        CODEC(ZSTD(1)),
    notional         Nullable(Decimal(38, 18))        CODEC(ZSTD(1)),
    pnl              Nullable(Decimal(38, 18))        CODEC(ZSTD(1)),
    order_rate       Nullable(Float64)                CODEC(ZSTD(1)),
    _log             UInt64                           CODEC(ZSTD(1)),
    _seq             UInt64                           CODEC(DoubleDelta, ZSTD(1)),
    INDEX risk_decision_id_bloom risk_decision_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX client_order_id_bloom client_order_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX intent_id_bloom intent_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX correlation_id_bloom correlation_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = {{engine}}
PARTITION BY {{partition}}
ORDER BY (decision, ts_local)
{{ttl}}
SETTINGS {{settings}};

CREATE TABLE IF NOT EXISTS {{db}}.guardrail_transitions {{on_cluster}}
(
    ts_local       DateTime64(9, 'UTC')             CODEC(Delta, ZSTD(1)),
    run_id         LowCardinality(String)           CODEC(ZSTD(1)),
    correlation_id Nullable(String)                 CODEC(ZSTD(1)),
    ts             Nullable(DateTime64(9, 'UTC'))   CODEC(Delta, ZSTD(1)),
    prev_mode      LowCardinality(String)           CODEC(ZSTD(1)),
    next_mode      LowCardinality(String)           CODEC(ZSTD(1)),
    trigger_metric LowCardinality(Nullable(String)) CODEC(ZSTD(1)),
    value          Nullable(Float64)                CODEC(ZSTD(1)),
    reason         Nullable(String)                 CODEC(ZSTD(1)),
    _log           UInt64                           CODEC(ZSTD(1)),
    _seq           UInt64                           CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {{engine}}
PARTITION BY {{partition}}
ORDER BY (ts_local)
{{ttl}}
SETTINGS {{settings}};
