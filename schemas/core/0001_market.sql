-- Market data. Codecs as measured in docs/codecs.md.

CREATE TABLE IF NOT EXISTS {{db}}.market_data {{on_cluster}}
(
    ts_local       DateTime64(9, 'UTC')             CODEC(Delta, ZSTD(1)),
    run_id         LowCardinality(String)           CODEC(ZSTD(1)),
    correlation_id Nullable(String)                 CODEC(ZSTD(1)),
    ts_exchange    Nullable(DateTime64(9, 'UTC'))   CODEC(Delta, ZSTD(1)),
    symbol         LowCardinality(String)           CODEC(ZSTD(1)),
    bid_px1        Nullable(Float64)                CODEC(ZSTD(1)),
    bid_sz1        Nullable(Float64)                CODEC(Delta, ZSTD(1)),
    ask_px1        Nullable(Float64)                CODEC(ZSTD(1)),
    ask_sz1        Nullable(Float64)                CODEC(Delta, ZSTD(1)),
    bid_pxs        Array(Float64)                   CODEC(ZSTD(1)),
    bid_szs        Array(Float64)                   CODEC(ZSTD(1)),
    ask_pxs        Array(Float64)                   CODEC(ZSTD(1)),
    ask_szs        Array(Float64)                   CODEC(ZSTD(1)),
    last_price     Nullable(Float64)                CODEC(ZSTD(1)),
    last_qty       Nullable(Float64)                CODEC(ZSTD(1)),
    last_side      LowCardinality(Nullable(String)) CODEC(ZSTD(1)),
    trade_id       Nullable(UInt64)                 CODEC(Delta, ZSTD(1)),
    update_id      Nullable(UInt64)                 CODEC(Delta, ZSTD(1)),
    source         LowCardinality(String)           CODEC(ZSTD(1)),
    flags          UInt32                           CODEC(ZSTD(1)),
    _log           UInt64                           CODEC(ZSTD(1)),
    _seq           UInt64                           CODEC(DoubleDelta, ZSTD(1)),
    INDEX ts_exchange_range ts_exchange TYPE minmax GRANULARITY 1
)
ENGINE = {{engine}}
PARTITION BY {{partition}}
ORDER BY (symbol, ts_local)
{{ttl}}
SETTINGS {{settings}};

CREATE TABLE IF NOT EXISTS {{db}}.book_deltas {{on_cluster}}
(
    ts_local        DateTime64(9, 'UTC')           CODEC(Delta, ZSTD(1)),
    run_id          LowCardinality(String)         CODEC(ZSTD(1)),
    correlation_id  Nullable(String)               CODEC(ZSTD(1)),
    ts_exchange     Nullable(DateTime64(9, 'UTC')) CODEC(Delta, ZSTD(1)),
    symbol          LowCardinality(String)         CODEC(ZSTD(1)),
    first_update_id Nullable(UInt64)               CODEC(Delta, ZSTD(1)),
    last_update_id  Nullable(UInt64)               CODEC(Delta, ZSTD(1)),
    bid_pxs         Array(Float64)                 CODEC(Delta, ZSTD(3)),
    bid_szs         Array(Float64)                 CODEC(ZSTD(3)),
    ask_pxs         Array(Float64)                 CODEC(Delta, ZSTD(3)),
    ask_szs         Array(Float64)                 CODEC(ZSTD(3)),
    is_snapshot     Bool                           CODEC(ZSTD(1)),
    source          LowCardinality(String)         CODEC(ZSTD(1)),
    _log            UInt64                         CODEC(ZSTD(1)),
    _seq            UInt64                         CODEC(DoubleDelta, ZSTD(1)),
    INDEX ts_exchange_range ts_exchange TYPE minmax GRANULARITY 1
)
ENGINE = {{engine}}
PARTITION BY {{partition}}
ORDER BY (symbol, ts_local)
{{ttl}}
SETTINGS {{settings}};
