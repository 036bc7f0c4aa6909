"""`recorder archive create|ls|verify|restore|attach`: partitions as Parquet files, in a folder or a bucket."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from recorder.cli.lazy import Home, LazyGroup
from recorder.cli.options import Invocation
from recorder.cli.output import note, notes, progress

if TYPE_CHECKING:
    from retention.archive.verify import Progress

F = TypeVar("F", bound=Callable[..., Any])

HOMES = {
    "create": Home("recorder.cli.archive_create:create", "Archive a partition, and verify what was written."),
    "ls": Home("recorder.cli.archive_ls:ls", "List archived partitions: rows, bytes, times, receipts."),
    "verify": Home(
        "recorder.cli.archive_verify:verify", "Read archived partitions back, and say what is wrong."
    ),
    "restore": Home(
        "recorder.cli.archive_restore:restore", "Put an archived partition's rows back, each once."
    ),
    "attach": Home("recorder.cli.archive_attach:attach", "Read live and archived rows through one view."),
}
PLAIN_EVERY_S = 10.0


@click.group(cls=LazyGroup, homes=HOMES)
def archive() -> None:
    """Keep partitions as Parquet files, in a folder or a bucket (s3://bucket/prefix).

    Credentials for a bucket come from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, and
    AWS_ENDPOINT_URL for another store than Amazon's. No command here removes a row from the database.

    \b
    Example:
        recorder archive create fills 2024-08
        recorder archive ls
        recorder archive verify fills
        recorder archive restore fills 2024-08
        recorder archive attach fills
    """


def tables_at(function: F) -> F:
    """Which of the tables of an archive: the arguments `tables` and the option `root`."""
    at = "A folder, or s3://bucket/prefix.  [default: the setting archive]"
    tables = click.argument("tables", nargs=-1)
    return tables(click.option("--at", "root", metavar="ROOT", help=at)(function))


@contextlib.contextmanager
def told(invocation: Invocation, what: str, total_rows: int | None = None) -> Iterator[Progress]:
    """Progress of long work: a bar on a terminal, a line every ten seconds elsewhere, nothing with `--json`."""
    if invocation.json:
        yield lambda step, rows: None
    elif notes().is_terminal:
        with progress(transient=True) as bar:
            task = bar.add_task(what, total=total_rows)
            yield lambda step, rows: bar.update(task, description=f"{step} {what}", completed=rows)
    else:
        next_s = time.monotonic() + PLAIN_EVERY_S

        def tell(step: str, rows: int) -> None:
            nonlocal next_s
            if (now_s := time.monotonic()) >= next_s:
                next_s = now_s + PLAIN_EVERY_S
                note(f"{step} {what}: {rows:,} rows")

        yield tell
