"""What the service says of itself as it starts: one line each, so that the log tells what it runs with."""

from __future__ import annotations

import shutil
from functools import partial
from typing import Any

from recorder.archive_root import archive_store
from recorder.aside import begun
from recorder.log import get_logger
from recorder.recorder import Recorder
from recorder.redact import redacted
from recorder.settings import Settings
from recorder.settings_explain import explain

log = get_logger("recorder.service")

LOW_DISK_SHARE = 0.1
LOW_DISK_BYTES = 1 << 30


def tell_settings(settings: Settings) -> None:
    """Which settings are in force, and where those came from that somebody set."""
    said = {
        entry.key: f"{'off' if entry.value is None else entry.value} ({entry.source})"
        for entry in explain(settings)
        if entry.source not in ("default", "this command")
    }
    log.info("settings", file=str(settings.config) if settings.config else None, said=said)
    for variable in settings.unused_variables:
        log.warning("an environment variable sets nothing", variable=variable)


def tell_database(settings: Settings, status: dict[str, Any]) -> None:
    """Which database it is, if it answers, and which tables take rows. Why not, others tell."""
    server, tables = status["server"], status["tables"]
    if server:
        held = sum(bool(table["held_because"]) for table in tables.values())
        log.info("database", target=str(settings.target), database=settings.database, server=server)
        log.info(
            "schema",
            tables=len(tables),
            held=held,
            off=[name for name, t in tables.items() if not t["enabled"]],
        )


def tell_disk(settings: Settings) -> None:
    """How much room there is for local state."""
    folder = settings.data_dir
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    low = usage.free < LOW_DISK_BYTES or usage.free < LOW_DISK_SHARE * usage.total
    tell = log.warning if low else log.info
    tell(
        "disk is nearly full" if low else "disk",
        folder=str(settings.data_dir),
        free_gib=round(usage.free / (1 << 30), 1),
        free_share=round(usage.free / usage.total, 3),
    )


def see_archive(settings: Settings) -> None:
    """See which archive it is: one that is away later is not taken for an empty one. Beside everything else, and waited
    for by nobody; only what keeps it from being seen is told."""
    begun(partial(_see_archive, settings))


def _see_archive(settings: Settings) -> None:
    from retention.errors import ArchiveError

    try:
        archive_store(settings).see()
    except (ArchiveError, OSError, ValueError) as error:
        log.warning("the archive cannot be seen", why=redacted(str(error)))


def tell_health(recorder: Recorder) -> None:
    """Where health and metrics are asked for."""
    url = recorder.status()["health"]
    if url:
        log.info("health port", url=url)
    else:
        log.info("health port is off")
