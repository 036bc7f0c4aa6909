"""`recorder devserver`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
from typing import TYPE_CHECKING, Any

import click

from recorder.cli.options import Invocation, PathName, pass_invocation

if TYPE_CHECKING:
    from recorder.devserver.server import DevServer
    from recorder.settings_fields import Address

DEFAULT_ADDR = "127.0.0.1:8123"
EXIT_STUCK = 1


@click.command()
@click.option(
    "--path",
    type=PathName(path_type=pathlib.Path),
    help="Folder of the database; by default devserver in the data folder.",
)
@click.option(
    "--addr",
    metavar="HOST:PORT",
    default=DEFAULT_ADDR,
    show_default=True,
    help="Where to listen; port 0 takes a free one.",
)
@click.option("--user", default="default", show_default=True, help="The one user there is.")
@click.option(
    "--password-env",
    metavar="NAME",
    help="Environment variable with the password; without one, none is asked.",
)
@click.option(
    "--password-file",
    type=PathName(path_type=pathlib.Path),
    help="File with the password on its first line.",
)
@click.option(
    "--tls-cert", type=PathName(path_type=pathlib.Path), help="Serve HTTPS with this certificate (PEM)."
)
@click.option(
    "--tls-key",
    type=PathName(path_type=pathlib.Path),
    help="Key of the certificate, if not in the same file.",
)
@click.option(
    "--tls-client-ca",
    type=PathName(path_type=pathlib.Path),
    help="Ask clients for a certificate of this authority.",
)
@click.option("--allow-remote", is_flag=True, help="Listen beyond this machine; needs a password.")
@pass_invocation
def devserver(
    invocation: Invocation,
    path: pathlib.Path | None,
    addr: str,
    user: str,
    password_env: str | None,
    password_file: pathlib.Path | None,
    tls_cert: pathlib.Path | None,
    tls_key: pathlib.Path | None,
    tls_client_ca: pathlib.Path | None,
    allow_remote: bool,
) -> None:
    """Serve ClickHouse's HTTP interface from the embedded engine: for development and tests, no container needed.

    Prints one line when it answers (with --json: {"url": ..., "pid": ...}), and ends with Ctrl-C or SIGTERM.

    \b
    Example:
        recorder devserver
        curl http://127.0.0.1:8123/ -d "SELECT version()"
    """
    if (tls_key or tls_client_ca) and tls_cert is None:
        raise click.UsageError(
            "--tls-key and --tls-client-ca are for a server with --tls-cert; give that too"
        )
    password = _password(password_env, password_file)
    if allow_remote and password is None:
        raise click.UsageError(
            "--allow-remote lets other machines in, so it needs a password; give --password-env or --password-file"
        )
    address = _address(addr, allow_remote=allow_remote)
    settings = invocation.settings()
    folder = _folder(path) if path is not None else settings.data_dir / "devserver"
    from recorder.devserver.server import DevServer

    server = DevServer(
        folder,
        addr=address,
        user=user,
        password=password,
        tls_cert=tls_cert,
        tls_key=tls_key,
        tls_client_ca=tls_client_ca,
        allow_remote=allow_remote,
        keep_free_bytes=settings.engine_keep_free_bytes,
    )
    asyncio.run(_serve(server, folder, as_json=invocation.json))


async def _serve(server: DevServer, folder: pathlib.Path, *, as_json: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await server.start()
    try:
        click.echo(_ready(server, folder, as_json=as_json))
        await stop.wait()
    finally:
        if not await server.close():
            os._exit(EXIT_STUCK)  # the interpreter's own exit would crash in an engine that is open


def _ready(server: DevServer, folder: pathlib.Path, *, as_json: bool) -> str:
    if not as_json:
        return f"ready at {server.url} (database in {folder}); Ctrl-C ends it"
    import orjson

    said: dict[str, Any] = {"url": server.url, "pid": os.getpid(), "path": str(folder.absolute())}
    return orjson.dumps(said).decode()


def _address(text: str, *, allow_remote: bool) -> Address:
    from recorder.settings_fields import parse_address

    try:
        address = parse_address(text)
    except ValueError as error:
        raise click.UsageError(f"--addr {error}; port 0 takes a free one") from None
    if not address.loopback and not allow_remote:
        raise click.UsageError(
            f"--addr {address}: other machines would reach it; use 127.0.0.1:{address.port}, or give --allow-remote "
            "and a password"
        )
    return address


def _folder(path: pathlib.Path) -> pathlib.Path:
    """The path, absolute; refused where a file stands in its way."""
    folder = path.absolute()
    with contextlib.suppress(OSError):  # what may not be looked at is said by who opens it
        there = next(place for place in (folder, *folder.parents) if place.exists())
        if there.is_dir():
            return folder
        raise click.UsageError(
            f"--path {path}: {there} is a file; name a folder, which is made where it is missing"
        )
    return folder


def _password(variable: str | None, file: pathlib.Path | None) -> str | None:
    if variable is not None and file is not None:
        raise click.UsageError("give the password by --password-env or by --password-file, not by both")
    if variable is not None:
        if not (value := os.environ.get(variable)):
            raise click.UsageError(f"environment variable {variable} is not set; set it to the password")
        return value
    if file is None:
        return None
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise click.UsageError(f"{file}: {error.strerror}; name a file with the password") from None
    except UnicodeDecodeError:
        raise click.UsageError(f"{file}: is not UTF-8; name a file with the password") from None
    if not lines or not lines[0]:
        raise click.UsageError(f"{file}: has no password on its first line")
    return lines[0]
