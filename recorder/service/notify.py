"""Telling the supervisor where the service stands: systemd's notification protocol (sd_notify(3)), datagrams of
`NAME=value` lines to the socket that `NOTIFY_SOCKET` names. Without that variable nothing happens.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time


def notify(**state: str) -> None:
    """Send a state, such as `notify(READY="1", STATUS="recording")`. Never raises: it is a courtesy."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # Linux's abstract namespace
        address = "\0" + address[1:]
    text = "\n".join(f"{name}={' '.join(value.split())}" for name, value in state.items())
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.setblocking(False)
        out.sendto(text.encode(), address)


def reloading() -> None:
    """Say that settings are read again; `notify(READY="1")` ends it."""
    notify(RELOADING="1", MONOTONIC_USEC=str(time.monotonic_ns() // 1_000))


def watchdog_s() -> float | None:
    """How often the supervisor wants to hear that all is well; None where it does not."""
    try:
        usec = int(os.environ.get("WATCHDOG_USEC", ""))
        pid = int(os.environ.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return None
    return usec / 1e6 / 2 if usec > 0 and pid == os.getpid() else None
