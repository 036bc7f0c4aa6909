"""What the service says of itself as it starts, and what is said of a certificate that nobody checks."""

from __future__ import annotations

import pathlib

import pytest

from recorder.service import checks
from recorder.settings import Settings
from recorder.sink.http_access import Access, Tls


def test_what_is_off_is_said_to_be_off(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not by Python's name for nothing."""
    with caplog.at_level("INFO", logger="recorder"):
        checks.tell_settings(Settings(data_dir=tmp_path, health_addr="off"))
    assert "'health_addr': 'off (" in caplog.text
    assert "None (" not in caplog.text


@pytest.mark.parametrize(("scheme", "verify"), [("https", False), ("https", True), ("http", False)])
def test_a_certificate_that_nobody_checks_is_told_wherever_connections_are_made(
    caplog: pytest.LogCaptureFixture, scheme: str, verify: bool
) -> None:
    """For whatever command, before the first of them, by the host's name; with one line."""
    Access(scheme, tls=Tls(verify=verify)).pool("db.example", 1)
    told = [message for message in caplog.messages if "tls_verify is off" in message]
    assert len(told) == (scheme == "https" and not verify)
    assert all("db.example" in message for message in told)
