"""Where a server listens: the socket, TLS, and what there is to say when it cannot be."""

from __future__ import annotations

import errno
import os
import pathlib
import socket
import ssl

from recorder.errors import RecorderError
from recorder.settings_fields import Address


class DevServerError(RecorderError):
    """The server cannot be started; the message says why and what to do."""


def listen(address: Address, option: str = "--addr") -> socket.socket:
    """A socket bound to the address, not listening yet; a port that a killed server left is free at once.

    `option` is where the user gave the address: errors name it.

    Raises:
        DevServerError: it is taken, not allowed, or not of this machine.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _why(address, option, error) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(place)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise _why(address, option, error) from error
    return bound


def tls_context(
    certificate: str | os.PathLike[str],
    key: str | os.PathLike[str] | None,
    client_ca: str | os.PathLike[str] | None,
) -> ssl.SSLContext:
    """TLS as the server speaks it; with `client_ca` it asks clients for a certificate of that authority.

    Raises:
        DevServerError: a file cannot be read, is no certificate or key, or they do not belong together.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    for path in (certificate, key, client_ca):
        if path is not None:
            _readable(pathlib.Path(path))
    if key is None and b"PRIVATE KEY-----" not in pathlib.Path(certificate).read_bytes():
        raise DevServerError(
            f"TLS certificate {certificate}: the file holds no key; name that of its key too (--tls-key)"
        )
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        said = f"{certificate}" + (f" with key {key}" if key is not None else "")
        raise DevServerError(
            f"TLS certificate {said}: cannot be used: {getattr(error, 'reason', None) or error}; give a PEM file with "
            "the certificate (and its chain), and one with its key, unencrypted"
        ) from error
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError as error:
            raise DevServerError(
                f"TLS client CA {client_ca}: cannot be used: {error.reason or error}; give a PEM file of certificates"
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _readable(path: pathlib.Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise DevServerError(
            f"TLS file {path}: cannot be read: {error.strerror}; name another file"
        ) from error


def _why(address: Address, option: str, error: OSError) -> DevServerError:
    said = f"address {address}: "
    if error.errno == errno.EADDRINUSE:
        return DevServerError(
            said + f"already in use; stop what listens there, or name another port with {option}"
        )
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return DevServerError(said + f"no address of this machine; use 127.0.0.1:{address.port}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return DevServerError(
            said + f"not permitted; ports below 1024 need privileges, name another with {option}"
        )
    return DevServerError(said + f"cannot be opened: {error.strerror or error}; name another with {option}")
