"""A partition to the archive, written by the recorder and by the database itself, in turn: `python -m …`.

    python -m benchmarks.archive_export --rows 2000000 --rounds 4
    python -m benchmarks.archive_export --bucket http://127.0.0.1:5000/bucket     with AWS_… as the archive takes them

The database is a dev server of its own process, so that its work can be told from the recorder's. The bucket must be
there; the database gets into it with the same credentials, in a named collection.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import psutil  # type: ignore[import-untyped]

from benchmarks.archive_round import DAY, TABLE, run_fill
from recorder import log
from recorder.reading.reader import open_reader
from recorder.retaining.export import exporter_of
from recorder.retaining.policies import quiet
from recorder.retaining.source import TableSource
from recorder.settings import Settings
from recorder.version import version
from retention.archive import open_store, place_of, write_partition
from schemas.quote import quote_text

COLLECTION = "benchmark_archive"
SIDES = ("client", "server")


def measure(folder: Path, url: str, pid: int, rounds: int, bucket: str | None) -> None:
    """Print what each way took, and the medians.

    Raises:
        Failure, ArchiveError: database or store do not do it.
    """
    settings = Settings(
        target=url, data_dir=folder / "data", database="default", ttl=False, archive_collection=COLLECTION
    )
    server, mine = psutil.Process(pid), psutil.Process()
    taken: dict[str, list[tuple[float, ...]]] = {side: [] for side in SIDES}
    with contextlib.closing(open_reader(settings)) as reader, quiet(settings) as executor:
        for number, side in ((number, side) for number in range(rounds) for side in SIDES):
            root = str(folder / f"out-{side}-{number}")
            if bucket is not None:
                endpoint, _, name = bucket.rpartition("/")
                os.environ["AWS_ENDPOINT_URL"] = endpoint
                root = f"s3://{name}/{time.time_ns()}"
                executor.command(f"DROP NAMED COLLECTION IF EXISTS {COLLECTION}")
                executor.command(
                    f"CREATE NAMED COLLECTION {COLLECTION} AS url = {quote_text(f'{endpoint}/{root[5:]}/')}, "
                    f"access_key_id = {quote_text(os.environ['AWS_ACCESS_KEY_ID'])}, "
                    f"secret_access_key = {quote_text(os.environ['AWS_SECRET_ACCESS_KEY'])}"
                )
            source = TableSource(reader, settings.database, place_of(TABLE, DAY))
            exporter = exporter_of(executor, source, settings, click.echo) if side == "server" else None
            before = time.perf_counter(), _worked_s(mine), _worked_s(server)
            done = write_partition(
                source,
                open_store(root, spool=folder / "spool"),
                recorder_version=version(),
                exporter=exporter,
            )
            after = time.perf_counter(), _worked_s(mine), _worked_s(server)
            size = sum(receipt.nbytes for receipt in done.receipts) / 2**20
            taken[side].append((*(then - now for now, then in zip(before, after, strict=True)), size))
            _tell(side, taken[side][-1])
    for side, rounds_ in taken.items():
        _tell(f"{side}, median", tuple(map(statistics.median, zip(*rounds_, strict=True))))


def _worked_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _tell(what: str, taken: tuple[float, ...]) -> None:
    elapsed_s, mine_s, server_s, mib = taken
    click.echo(
        f"{what}: {elapsed_s:.1f} s, recorder {mine_s:.1f} s, database {server_s:.1f} s, {mib:.0f} MiB"
    )


@click.command()
@click.option("--rows", default=2_000_000, show_default=True, type=click.IntRange(1_000))
@click.option("--rounds", default=4, show_default=True, type=click.IntRange(1))
@click.option("--bucket", help="A bucket's URL; without it, a folder.")
def main(rows: int, rounds: int, bucket: str | None) -> None:
    """Measure both ways."""
    log.configure("error")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run_fill(folder, rows)
        command = [sys.executable, "-m", "recorder", "--json", "devserver", "--addr", "127.0.0.1:0"]
        with subprocess.Popen(
            [*command, "--path", str(folder / "db")], stdout=subprocess.PIPE, text=True
        ) as server:
            try:
                assert server.stdout is not None
                ready = json.loads(server.stdout.readline())
                measure(folder, ready["url"], ready["pid"], rounds, bucket)
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
