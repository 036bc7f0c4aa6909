"""Who writes a partition's Parquet file: this process, or the database itself. Decides; opens nothing.

`auto` has the database write where that spares the most: into a bucket to which it has a way of its own. The rows then
leave it once, compressed, and come here once, to be read back. A folder is left to the recorder, since few databases
see the same one (docs/archive.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recorder.retaining.source import TableSource
    from recorder.settings import Settings
    from retention.archive import Store
    from retention.archive.server_export import ServerExport
    from schemas.executor import SqlExecutor

WAYS = ("auto", "client", "server")


def by_database(way: str, *, embedded: bool, folder: bool, collection: str | None) -> bool:
    """Whether the database is to try: `folder` says what kind of store it is, `collection` its way to a bucket."""
    if way == "auto":
        return not embedded and not folder and collection is not None
    return way == "server"


def wanted(settings: Settings, store: Store, way: str | None = None) -> bool:
    """Whether the database is to try, by the settings, or by `way`, which is stronger."""
    from retention.archive.marked import folder_of

    return by_database(
        way or settings.archive_export,
        embedded=settings.target.embedded,
        folder=folder_of(store) is not None,
        collection=settings.archive_collection,
    )


def exporter_of(
    executor: SqlExecutor, source: TableSource, settings: Settings, told: Callable[[str], None]
) -> ServerExport:
    """The database as the writer of a source's rows; `told` gets one line where this process must write them."""
    from retention.archive.server_export import ServerExport

    return ServerExport(
        executor,
        source.place,
        rows_sql=source.rows_sql,
        order_by=source.order_by,
        columns=source.columns,
        schema=source.schema(),
        collection=settings.archive_collection,
        told=told,
    )
