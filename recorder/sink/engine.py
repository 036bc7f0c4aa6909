"""Opening a handle of the embedded engine, the same way for whoever needs one."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ProgrammingError

from recorder.sink import engine_config, folder
from recorder.sink.clean_client import CleanClient


def open_engine(
    path: pathlib.Path,
    *,
    keep_free_bytes: int,
    tmp_dir: pathlib.Path,
    settings: Mapping[str, Any] | None = None,
) -> Client:
    """A handle on the engine folder `path`, with these session settings; `engine_config` says what the rest is for.

    Raises:
        SinkUnavailable: the folder cannot be opened; the message says why and what to do.
    """
    with engine_config.as_file(keep_free_bytes, tmp_dir) as config:
        try:
            client = clickhouse_connect.get_client(
                interface="chdb",
                path=str(path),
                settings=dict(settings or {}),
                chdb_options={"config-file": config},
            )
        except ProgrammingError as error:
            raise folder.reason_after(path, error) from error
    return CleanClient.around(client)
