-- Bars of market data, made by "recorder bars build" and by no insert of a recorder. A build inserts the bars of an hour
-- again when rows came late: the table may have several versions of one bar, the view has the newest of each.

CREATE TABLE IF NOT EXISTS {{db}}.market_bars_1s_built {{on_cluster}}
(
    ts             DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    symbol         LowCardinality(String) CODEC(ZSTD(1)),
    source         LowCardinality(String) CODEC(ZSTD(1)),
    open           Nullable(Float64)      CODEC(ZSTD(1)),
    high           Nullable(Float64)      CODEC(ZSTD(1)),
    low            Nullable(Float64)      CODEC(ZSTD(1)),
    close          Nullable(Float64)      CODEC(ZSTD(1)),
    volume         Float64                CODEC(ZSTD(1)),
    notional       Float64                CODEC(ZSTD(1)),
    vwap           Nullable(Float64)      CODEC(ZSTD(1)),
    trade_count    UInt64                 CODEC(ZSTD(1)),
    quote_count    UInt64                 CODEC(ZSTD(1)),
    spread_mean    Nullable(Float64)      CODEC(ZSTD(1)),
    quoted_ns      UInt64                 CODEC(ZSTD(1)),
    aggregated     Bool                   CODEC(ZSTD(1)),
    rows           UInt64                 CODEC(ZSTD(1)),
    ts_local_first DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    ts_local_last  DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    basis          UInt64                 CODEC(ZSTD(1)),
    _version       UInt64                 CODEC(ZSTD(1))
)
ENGINE = {{versioned_engine}}
PARTITION BY toYYYYMM(ts)
ORDER BY (symbol, source, ts);

CREATE VIEW IF NOT EXISTS {{db}}.market_bars_1s {{on_cluster}} AS
SELECT * FROM {{db}}.market_bars_1s_built FINAL;

CREATE TABLE IF NOT EXISTS {{db}}.market_bars_1m_built {{on_cluster}}
(
    ts             DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    symbol         LowCardinality(String) CODEC(ZSTD(1)),
    source         LowCardinality(String) CODEC(ZSTD(1)),
    open           Nullable(Float64)      CODEC(ZSTD(1)),
    high           Nullable(Float64)      CODEC(ZSTD(1)),
    low            Nullable(Float64)      CODEC(ZSTD(1)),
    close          Nullable(Float64)      CODEC(ZSTD(1)),
    volume         Float64                CODEC(ZSTD(1)),
    notional       Float64                CODEC(ZSTD(1)),
    vwap           Nullable(Float64)      CODEC(ZSTD(1)),
    trade_count    UInt64                 CODEC(ZSTD(1)),
    quote_count    UInt64                 CODEC(ZSTD(1)),
    spread_mean    Nullable(Float64)      CODEC(ZSTD(1)),
    quoted_ns      UInt64                 CODEC(ZSTD(1)),
    aggregated     Bool                   CODEC(ZSTD(1)),
    rows           UInt64                 CODEC(ZSTD(1)),
    ts_local_first DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    ts_local_last  DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    basis          UInt64                 CODEC(ZSTD(1)),
    _version       UInt64                 CODEC(ZSTD(1))
)
ENGINE = {{versioned_engine}}
PARTITION BY toYYYYMM(ts)
ORDER BY (symbol, source, ts);

CREATE VIEW IF NOT EXISTS {{db}}.market_bars_1m {{on_cluster}} AS
SELECT * FROM {{db}}.market_bars_1m_built FINAL;
