"""`recorder export parquet|csv|arrow|hftbacktest`: what the database has, as files for other programs."""

from __future__ import annotations

import click

from recorder.cli.lazy import Home, LazyGroup

HOMES = {
    "arrow": Home("recorder.cli.export_query:arrow", "A query's answer as an Arrow file."),
    "csv": Home("recorder.cli.export_query:csv", "A query's answer as CSV."),
    "hftbacktest": Home(
        "recorder.cli.export_hftbacktest:hftbacktest", "Events for hftbacktest, and order latencies."
    ),
    "parquet": Home("recorder.cli.export_query:parquet", "A query's answer as a Parquet file."),
}


@click.group(cls=LazyGroup, homes=HOMES)
def export() -> None:
    """Write what the database has to files for other programs.

    Nothing in the database changes. A file gets its name when it is complete; one that could not be completed is
    removed.

    \b
    Example:
        recorder export parquet "SELECT * FROM fills" --out fills.parquet
        recorder export csv --table orders --since 2024-08-08 --out orders.csv
    """
