"""The sink that the settings name."""

from __future__ import annotations

from collections.abc import Iterable

from recorder.errors import SettingsError
from recorder.settings import Settings
from recorder.sink.base import Sink
from recorder.sink.chdb import ChdbSink

CLOSE_WAIT_S = 0.9
"""What a closing sink waits for calls that still run: whoever closes it has waited for its rows already."""


def open_sink(settings: Settings, tables: Iterable[str] = ()) -> Sink:
    """The sink for `settings.target`, which `tables` will be inserted into; not started yet.

    Raises:
        SettingsError: there is no sink for such a target.
    """
    target = settings.target
    if target.embedded:
        return ChdbSink(
            target.path,
            settings.database,
            tables=tables,
            tmp_dir=settings.data_dir / "tmp",
            keep_free_bytes=settings.engine_keep_free_bytes,
            close_wait_s=CLOSE_WAIT_S,
        )
    raise SettingsError(
        f"target {target}: this version records into the embedded engine; set target to chdb:///path/to/db"
    )
