"""Opening a handle of the embedded engine, the same way for whoever needs one."""

from __future__ import annotations

import contextlib
import errno
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ProgrammingError

from recorder.sink import engine_config, folder
from recorder.sink.clean_client import CleanClient
from recorder.sink.errors import SinkUnavailable


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
    with configured(path, keep_free_bytes=keep_free_bytes, tmp_dir=tmp_dir) as config:
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


@contextlib.contextmanager
def configured(
    path: pathlib.Path, *, keep_free_bytes: int, tmp_dir: pathlib.Path, merges: bool = True
) -> Iterator[str]:
    """The path of the configuration to open the engine folder `path` with, for as long as the context lasts.

    Raises:
        SinkUnavailable: it cannot be written; the message says why and what to do.
    """
    with contextlib.ExitStack() as stack:
        try:
            config = stack.enter_context(engine_config.as_file(keep_free_bytes, tmp_dir, merges=merges))
        except OSError as error:
            raise _no_config(path, tmp_dir, error) from error
        yield config


def _no_config(path: pathlib.Path, tmp_dir: pathlib.Path, error: OSError) -> SinkUnavailable:
    """What to say when the engine's configuration could not be written."""
    remedy = {
        errno.EMFILE: "raise the limit of open files (ulimit -n)",
        errno.ENFILE: "raise the system's limit of open files (fs.file-max)",
        errno.ENOMEM: "free memory",
        errno.ENOSPC: f"free space on the disk of {tmp_dir}",
        errno.EDQUOT: f"free space on the disk of {tmp_dir}, or raise the quota",
        errno.EROFS: f"mount the disk of {tmp_dir} writable",
    }.get(error.errno or 0, f"make {tmp_dir} a folder that can be written")
    return SinkUnavailable(
        f"database {path}: the engine's configuration cannot be written: {error.strerror or error}; {remedy}"
    )
