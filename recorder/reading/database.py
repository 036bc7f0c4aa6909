"""What commands need of the database itself: whether it is there, who has it open, and a handle that is closed again.

A process may have one embedded engine, and must close what it opened: an open handle at exit crashes the interpreter.
On a server, migrations go through the first host of the target alone: their lock lives there.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import tempfile
import urllib.parse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from recorder.errors import SettingsError
from recorder.failure import Failure

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from recorder.settings import Settings
    from recorder.sink.http_client import HostClient

_CODE = re.compile(r"Code: (\d+)\.")
_NAME = re.compile(r"\s*\(([A-Z][A-Z0-9_]+)\)\s*$")


def folder_of(settings: Settings) -> pathlib.Path:
    """The embedded database's folder.

    Raises:
        SettingsError: the target is a server.
    """
    if not settings.target.embedded:
        raise SettingsError(
            f"target {settings.target}: is a server; this needs the embedded engine, chdb:///path/to/db"
        )
    return pathlib.Path(settings.target.path)


def exists(folder: pathlib.Path) -> bool:
    """Whether the folder holds a database."""
    return (folder / "metadata").is_dir() or (folder / "store").is_dir()


def must_exist(folder: pathlib.Path) -> None:
    """Refuse to make a database by asking one.

    Raises:
        Failure: there is none, or another process has it open.
        SinkUnavailable: it cannot be used.
    """
    if not exists(folder):
        if folder.exists() and not folder.is_dir():
            raise Failure(
                f"{folder} is a file, and a database is a folder; name one with --target or --data-dir"
            )
        raise Failure(
            f'there is no database at {folder}; make one with "recorder demo" or "recorder migrate up", '
            "or name another with --target or --data-dir"
        )
    from recorder.sink import folder as sink_folder

    sink_folder.check(folder)


@contextlib.contextmanager
def client_of(settings: Settings, *, create: bool) -> Iterator[Client]:
    """A client of the database, closed afterwards.

    Without `create`, an embedded database that is not there is stood in for by an empty one in a temporary folder, so
    that asking changes nothing.

    Raises:
        SinkError: it cannot be opened; the message says why and what to do.
    """
    if not settings.target.embedded:
        with server_client(settings) as server:
            yield cast("Client", server)
        return
    from recorder.sink import engine_config
    from recorder.sink import folder as sink_folder
    from recorder.sink.engine import open_engine

    path = folder_of(settings)
    with contextlib.ExitStack() as stack:
        if not create and not exists(path):
            path = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recorder-"))) / "db"
        sink_folder.check(path)
        client = open_engine(
            path,
            keep_free_bytes=engine_config.keep_free_on(path, settings.engine_keep_free_bytes),
            tmp_dir=settings.data_dir / "tmp",
        )
        stack.callback(client.close)
        yield client


@contextlib.contextmanager
def server_client(settings: Settings, **manner: Any) -> Iterator[HostClient]:
    """A client of the first host of a server target, closed afterwards; `manner` as `Manner` has it.

    Statements take as long as they take.

    Raises:
        SinkError: it cannot be reached; the message says why and what to do.
    """
    from recorder.sink.http_client import Host, HostClient, Manner
    from recorder.sink.http_errors import HostFailed
    from recorder.sink.open import access_of

    access = access_of(settings)
    host = Host(access, *settings.target.hosts[0], connections=1)
    client = HostClient(
        host, access, Manner(connect_timeout_s=settings.connect_timeout_s, **{"settings": {}, **manner})
    )
    try:
        try:
            client.connect()
        except HostFailed as error:
            raise error.told("target") from error
        yield client
    finally:
        client.close()
        host.close()


def connect_quietly(folder: pathlib.Path, settings: Settings) -> Any:
    """A connection of chDB itself to an embedded database, in which the engine merges nothing.

    Its configuration forbids them; `SYSTEM STOP MERGES` is for tables whose own settings allow them again.

    Raises:
        SinkUnavailable: the folder cannot be opened; the message says why and what to do.
    """
    import chdb

    from recorder.sink import engine_config
    from recorder.sink import folder as sink_folder
    from recorder.sink.engine import configured

    connect: Any = chdb.connect
    with configured(
        folder,
        keep_free_bytes=engine_config.keep_free_on(folder, settings.engine_keep_free_bytes),
        tmp_dir=settings.data_dir / "tmp",
        merges=False,
    ) as config:
        try:
            connection = connect(f"{folder}?config-file={urllib.parse.quote(config, safe='')}")
        except RuntimeError as error:
            raise sink_folder.reason_after(folder, error) from error
    try:
        connection.query("SYSTEM STOP MERGES")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_beside(folder: pathlib.Path, settings: Settings) -> Any:
    """A connection of chDB itself to the embedded database that this process records into. It stops no merge.

    Raises:
        SinkUnavailable: it cannot be opened; the message says why and what to do.
    """
    import chdb

    from recorder.sink import engine_config
    from recorder.sink import folder as sink_folder
    from recorder.sink.engine import configured

    connect: Any = chdb.connect
    path = (
        folder.resolve()
    )  # as the sink has it open: by another name the engine takes it for another database
    with configured(
        path,
        keep_free_bytes=engine_config.keep_free_on(path, settings.engine_keep_free_bytes),
        tmp_dir=settings.data_dir / "tmp",
    ) as config:
        try:
            return connect(f"{path}?config-file={urllib.parse.quote(config, safe='')}")
        except RuntimeError as error:
            raise sink_folder.reason_after(path, error) from error


def error_code(error: Exception) -> int:
    """ClickHouse's number in an error's text; 0 where there is none."""
    code = getattr(error, "code", None)
    if isinstance(code, int) and code:
        return code
    match = _CODE.search(str(error))
    return int(match[1]) if match else 0


def plain_message(error: Exception) -> str:
    """ClickHouse's message without its wrapping: no stack, no version, the number at the end."""
    text = " ".join(str(error).split())
    text = re.split(r"\s*Stack trace:|\s*\(version \d", text)[0]
    text = re.sub(r"^Received ClickHouse exception, code: \d+, server response: ", "", text)
    text = re.sub(r"^(?:Streaming query failed: )?(?:Code: \d+\. ?)?(?:DB::Exception: ?)?", "", text)
    text = re.sub(r"^(?:Code: \d+\. ?DB::Exception: ?)", "", text)
    text = re.sub(r" Expected one of: [^()]*", " ", text)  # some forty tokens of the grammar
    name = _NAME.search(text)
    text = _NAME.sub("", text).rstrip(". ")
    code = error_code(error)
    return f"{text} (code {code}{', ' + name[1] if name else ''})" if code else text
