-- What nothing may drop until it is lifted, and who said so: a row each time something is held or lifted, never changed.

-- event is hold or lift. tables is empty where every table is held; a time that is null leaves that end open (ts_local,
-- ts_until itself is not held). person is the user and host of the command, db_user the user of the database.
CREATE TABLE IF NOT EXISTS {{db}}.retention_holds {{on_cluster}}
(
    ts       DateTime64(9, 'UTC'),
    name     String,
    event    LowCardinality(String),
    tables   Array(String),
    ts_since Nullable(DateTime64(9, 'UTC')),
    ts_until Nullable(DateTime64(9, 'UTC')),
    reason   String,
    person   String,
    db_user  String
)
ENGINE = {{engine}}
ORDER BY (name, ts)
SETTINGS
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1,
    min_compressed_bytes_to_fsync_after_merge = 1;
