-- The table of `recorder bench ingest`: ten plain columns and the row's identity.

CREATE TABLE IF NOT EXISTS {{db}}.bench_ticks {{on_cluster}}
(
    ts_local DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    run_id   LowCardinality(String) CODEC(ZSTD(1)),
    symbol   LowCardinality(String) CODEC(ZSTD(1)),
    venue    LowCardinality(String) CODEC(ZSTD(1)),
    order_id String                 CODEC(ZSTD(1)),
    trade_id UInt64                 CODEC(Delta, ZSTD(1)),
    level    UInt32                 CODEC(ZSTD(1)),
    bid      Float64                CODEC(ZSTD(1)),
    ask      Float64                CODEC(ZSTD(1)),
    qty      Float64                CODEC(ZSTD(1)),
    _log     UInt64                 CODEC(ZSTD(1)),
    _seq     UInt64                 CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {{engine}}
PARTITION BY {{partition}}
ORDER BY (symbol, ts_local)
{{ttl}}
SETTINGS {{settings}};
