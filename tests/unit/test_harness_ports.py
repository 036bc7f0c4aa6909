"""Ports of tests' servers: who asks for several gets several, and workers of one run never get the same."""

from __future__ import annotations

import socket

import pytest
from harness import ports


def test_no_port_is_handed_out_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither to one worker nor to two: a recorder that has a health port and a bus has two."""
    handed: list[int] = []
    for worker in ("gw0", "gw1", "gw2"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        handed += [ports.free_port() for _ in range(300)]
    assert len(set(handed)) == len(handed)


def test_a_port_in_use_is_passed_over() -> None:
    """What listens on it is somebody else's."""
    with socket.create_server(("127.0.0.1", ports.free_port())) as listening:
        taken = listening.getsockname()[1]
        assert taken not in {ports.free_port() for _ in range(ports.PORTS_EACH - 100)}
