-- The recorder's own tables.

CREATE TABLE IF NOT EXISTS {{db}}.system_events {{on_cluster}}
(
    ts_local       DateTime64(9, 'UTC')           CODEC(Delta, ZSTD(1)),
    run_id         LowCardinality(String)         CODEC(ZSTD(1)),
    correlation_id Nullable(String)               CODEC(ZSTD(1)),
    ts             Nullable(DateTime64(9, 'UTC')) CODEC(Delta, ZSTD(1)),
    severity       LowCardinality(String)         CODEC(ZSTD(1)),
    kind           LowCardinality(String)         CODEC(ZSTD(1)),
    component      LowCardinality(String)         CODEC(ZSTD(1)),
    message        String                         CODEC(ZSTD(1)),
    payload        Nullable(String)               CODEC(ZSTD(1)),
    _log           UInt64                         CODEC(ZSTD(1)),
    _seq           UInt64                         CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {{engine}}
PARTITION BY {{partition}}
ORDER BY (kind, ts_local)
{{ttl}}
SETTINGS {{settings}};

CREATE TABLE IF NOT EXISTS {{db}}.metrics_timeseries {{on_cluster}}
(
    ts_local       DateTime64(9, 'UTC')                CODEC(Delta, ZSTD(1)),
    run_id         LowCardinality(String)              CODEC(ZSTD(1)),
    correlation_id Nullable(String)                    CODEC(ZSTD(1)),
    ts             Nullable(DateTime64(9, 'UTC'))      CODEC(Delta, ZSTD(1)),
    name           LowCardinality(String)              CODEC(ZSTD(1)),
    value          Float64                             CODEC(ZSTD(1)),
    labels         Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    _log           UInt64                              CODEC(ZSTD(1)),
    _seq           UInt64                              CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {{engine}}
PARTITION BY {{partition}}
ORDER BY (name, ts_local)
{{ttl}}
SETTINGS {{settings}};

CREATE TABLE IF NOT EXISTS {{db}}.recorder_gaps {{on_cluster}}
(
    ts_local        DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    run_id          LowCardinality(String) CODEC(ZSTD(1)),
    correlation_id  Nullable(String)       CODEC(ZSTD(1)),
    recorder_run_id LowCardinality(String) CODEC(ZSTD(1)),
    table_name      LowCardinality(String) CODEC(ZSTD(1)),
    reason          LowCardinality(String) CODEC(ZSTD(1)),
    ts_first        DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    ts_last         DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    rows            UInt64                 CODEC(ZSTD(1)),
    detail          String                 CODEC(ZSTD(1)),
    _log            UInt64                 CODEC(ZSTD(1)),
    _seq            UInt64                 CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {{engine}}
PARTITION BY {{partition}}
ORDER BY (table_name, ts_local)
{{ttl}}
SETTINGS {{settings}};

CREATE TABLE IF NOT EXISTS {{db}}.dead_letters {{on_cluster}}
(
    ts_local        DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    run_id          LowCardinality(String) CODEC(ZSTD(1)),
    correlation_id  Nullable(String)       CODEC(ZSTD(1)),
    recorder_run_id LowCardinality(String) CODEC(ZSTD(1)),
    table_name      LowCardinality(String) CODEC(ZSTD(1)),
    reason          LowCardinality(String) CODEC(ZSTD(1)),
    detail          String                 CODEC(ZSTD(1)),
    origin          String                 CODEC(ZSTD(1)),
    source_log      Nullable(UInt64)       CODEC(ZSTD(1)),
    source_seq      Nullable(UInt64)       CODEC(ZSTD(1)),
    payload         String                 CODEC(ZSTD(1)),
    payload_format  LowCardinality(String) CODEC(ZSTD(1)),
    _log            UInt64                 CODEC(ZSTD(1)),
    _seq            UInt64                 CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {{engine}}
PARTITION BY {{partition}}
ORDER BY (table_name, reason, ts_local)
{{ttl}}
SETTINGS {{settings}};

CREATE TABLE IF NOT EXISTS {{db}}.recorder_runs {{on_cluster}}
(
    ts_local        DateTime64(9, 'UTC')                CODEC(Delta, ZSTD(1)),
    run_id          LowCardinality(String)              CODEC(ZSTD(1)),
    correlation_id  Nullable(String)                    CODEC(ZSTD(1)),
    recorder_run_id String                              CODEC(ZSTD(1)),
    ts_start        DateTime64(9, 'UTC')                CODEC(Delta, ZSTD(1)),
    version         LowCardinality(String)              CODEC(ZSTD(1)),
    git_sha         LowCardinality(String)              CODEC(ZSTD(1)),
    config_hash     LowCardinality(String)              CODEC(ZSTD(1)),
    host            LowCardinality(String)              CODEC(ZSTD(1)),
    pid             UInt32                              CODEC(ZSTD(1)),
    packs           Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    _log            UInt64                              CODEC(ZSTD(1)),
    _seq            UInt64                              CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = {{engine}}
PARTITION BY {{partition}}
ORDER BY (ts_local)
{{ttl}}
SETTINGS {{settings}};
