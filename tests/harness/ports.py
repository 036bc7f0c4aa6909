"""Ports of loopback for servers of tests."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import socket

FIRST_PORT, PORTS = 15_000, 15_000
"""Below the ports the system hands out by itself, so that nobody takes a server's while it is down."""
WORKERS = 12
"""Of one run of the tests; each has ports of its own."""
PORTS_EACH = PORTS // WORKERS

_turns = itertools.count(random.SystemRandom().randrange(PORTS_EACH))


def free_port() -> int:
    """A port nobody listens on and that was not handed out here before, nor to another worker of this run: who asks
    for two has two, and a server that is down for a while finds its own again.

    Raises:
        OSError: every port of this process is taken.
    """
    worker = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0) % WORKERS
    for turn in itertools.islice(_turns, PORTS_EACH):
        port = FIRST_PORT + worker * PORTS_EACH + turn % PORTS_EACH
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"every one of {PORTS_EACH} ports from {FIRST_PORT + worker * PORTS_EACH} on is taken")
