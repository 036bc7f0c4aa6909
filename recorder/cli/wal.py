"""`recorder wal ls|verify|cat|export|repair|requeue|drop`: the logs under the data folder, without a recorder."""

from __future__ import annotations

import click

from recorder.cli.lazy import Home, LazyGroup

HOMES = {
    "cat": Home("recorder.cli.wal_cat:cat", "Print the rows of a log as JSON lines."),
    "drop": Home("recorder.cli.wal_drop:drop", "Remove old segments, or what recovery set aside."),
    "export": Home("recorder.cli.wal_export:export", "Write the rows of logs to Parquet files."),
    "ls": Home("recorder.cli.wal_ls:ls", "List logs: rows, bytes, times, what is settled, who writes."),
    "repair": Home("recorder.cli.wal_repair:repair", "Do now what the next start would do about damage."),
    "requeue": Home("recorder.cli.wal_requeue:requeue_rows", "Have rows sent again that are done."),
    "verify": Home("recorder.cli.wal_verify:verify", "Read everything, and say what is wrong where."),
}


@click.group(cls=LazyGroup, homes=HOMES)
def wal() -> None:
    """Look into the logs of tables, and mend them.

    A log is a folder with the name of its table, in the folder "wal" of the data folder, or in that of --dir. "ls",
    "verify", "cat" and "export" change nothing, and may read while a recorder writes; "repair", "requeue" and "drop"
    need the log for themselves.

    \b
    Example:
        recorder wal ls
        recorder wal verify fills
        recorder wal cat fills --limit 10
    """
