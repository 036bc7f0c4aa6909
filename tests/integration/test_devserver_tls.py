"""TLS of a dev server, with the drivers' and curl's own errors where trust is missing."""

from __future__ import annotations

import pathlib
import ssl
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

import clickhouse_connect
import pytest
import requests
import trustme
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import OperationalError
from harness.dev_server_command import Started, dev_server


class Files(NamedTuple):
    """PEM files of a small authority: its own, a server's, a client's, and those of a stranger."""

    ca: str
    cert: str
    key: str
    client: str
    other_ca: str
    other_client: str


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")
    ca, other = trustme.CA(), trustme.CA()
    server, client, stranger = (
        ca.issue_cert("127.0.0.1", "localhost"),
        ca.issue_cert("c"),
        other.issue_cert("c"),
    )
    paths = Files(*(str(folder / name) for name in Files._fields))
    ca.cert_pem.write_to_path(paths.ca)
    server.cert_chain_pems[0].write_to_path(paths.cert)
    server.private_key_pem.write_to_path(paths.key)
    client.private_key_and_cert_chain_pem.write_to_path(paths.client)
    other.cert_pem.write_to_path(paths.other_ca)
    stranger.private_key_and_cert_chain_pem.write_to_path(paths.other_client)
    return paths


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, files: Files) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp("devserver")
    with dev_server(folder, "--tls-cert", files.cert, "--tls-key", files.key) as started:
        yield started


def connect(server: Started, **options: object) -> Client:
    """The driver, over TLS."""
    port = int(server.url.rsplit(":", 1)[1])
    return clickhouse_connect.get_client(host="127.0.0.1", port=port, secure=True, **options)  # type: ignore[arg-type]


def test_a_client_that_trusts_the_authority_connects(server: Started, files: Files) -> None:
    """By the driver, rows both ways, and by requests."""
    assert server.url.startswith("https://127.0.0.1:")
    with connect(server, ca_cert=files.ca) as client:
        client.command("CREATE TEMPORARY TABLE t (a Int32)")
        client.insert("t", [[n] for n in range(1_000)], column_names=["a"])
        assert client.query("SELECT sum(a) FROM t").result_rows == [(499_500,)]
    assert requests.post(server.url, data="SELECT 1", verify=files.ca, timeout=10).text == "1\n"


def test_a_host_by_the_name_in_its_certificate(server: Started, files: Files) -> None:
    """Whoever asks under another name was let in by the certificate already: no page on the web can do that."""
    answer = requests.post(
        server.url, data="SELECT 1", headers={"Host": "clickhouse.example"}, verify=files.ca, timeout=10
    )
    assert answer.text == "1\n"
    page = {"Host": "clickhouse.example", "Origin": "https://clickhouse.example"}
    assert requests.post(server.url, headers=page, verify=files.ca, timeout=10).status_code == 403


def test_an_answer_of_many_pieces_over_tls(server: Started, files: Files) -> None:
    answer = requests.post(
        server.url, data="SELECT repeat('x', 999) FROM numbers(50000)", verify=files.ca, timeout=60
    )
    assert len(answer.content) == 50_000_000


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("trust", [{}, {"ca_cert": "other"}])
def test_without_trust_the_driver_refuses(server: Started, files: Files, trust: dict[str, str]) -> None:
    """No CA, or another one: the driver's own error, which names the certificate."""
    trust = dict.fromkeys(trust, files.other_ca)
    with pytest.raises(OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
        connect(server, **trust)
    with connect(server, verify=False) as client:
        assert client.command("SELECT 1") == 1


def test_plain_http_at_a_tls_port_is_no_answer(server: Started) -> None:
    with pytest.raises(requests.ConnectionError):
        requests.get(server.url.replace("https", "http"), timeout=10)


def test_client_certificates(tmp_path: pathlib.Path, files: Files) -> None:
    """Of the authority named; without one, or with a stranger's, there is no connection."""
    options = ("--tls-cert", files.cert, "--tls-key", files.key, "--tls-client-ca", files.ca)
    with dev_server(tmp_path, *options) as server:
        known = requests.post(server.url, data="SELECT 1", verify=files.ca, cert=files.client, timeout=10)
        assert known.text == "1\n"
        with connect(server, ca_cert=files.ca, client_cert=files.client, username="default") as client:
            assert client.command("SELECT 1") == 1
        for cert in (None, files.other_client):
            with pytest.raises((requests.ConnectionError, ssl.SSLError)):
                requests.post(server.url, data="SELECT 1", verify=files.ca, cert=cert, timeout=10)


def test_curl_verifies_too(server: Started, files: Files) -> None:
    good = subprocess.run(
        ["curl", "-sS", "--cacert", files.ca, server.url, "--data-binary", "SELECT 7"],
        capture_output=True, check=True, timeout=30,
    )  # fmt: skip
    assert good.stdout == b"7\n"
    bad = subprocess.run(["curl", "-sS", server.url], capture_output=True, check=False, timeout=30)
    assert bad.returncode == 60  # curl: the peer's certificate cannot be authenticated
