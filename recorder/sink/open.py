"""The sink that the settings name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from recorder.settings import Settings
from recorder.sink.base import Sink

if TYPE_CHECKING:
    from recorder.sink.http_access import Access

CLOSE_WAIT_S = 0.9
"""What a closing sink waits for calls that still run: whoever closes it has waited for its rows already."""


def open_sink(settings: Settings, tables: Iterable[str] = ()) -> Sink:
    """The sink for `settings.target`, which `tables` will be inserted into; not started yet."""
    target = settings.target
    if target.embedded:
        from recorder.sink.chdb import ChdbSink

        return ChdbSink(
            target.path,
            settings.database,
            tables=tables,
            tmp_dir=settings.data_dir / "tmp",
            keep_free_bytes=settings.engine_keep_free_bytes,
            close_wait_s=CLOSE_WAIT_S,
        )
    from recorder.sink.http import HttpSink

    return HttpSink(
        target,
        settings.database,
        access=access_of(settings),
        tables=tables,
        # Who migrates at start may make the database too; else its absence is said.
        create_database=settings.migrates_on_start,
        close_wait_s=CLOSE_WAIT_S,
    )


def access_of(settings: Settings) -> Access:
    """How the servers of `settings.target` are reached."""
    from recorder.sink.http_access import Access, Tls

    target = settings.target
    return Access(
        target.scheme,
        user=target.user,
        password=target.password,
        password_file=settings.target_password_file,
        tls=Tls(
            ca=settings.tls_ca,
            cert=settings.tls_cert,
            key=settings.tls_key,
            server_name=settings.tls_server_name,
            verify=settings.tls_verify,
        ),
        compression=settings.compression,
        connect_timeout_s=settings.connect_timeout_s,
    )
