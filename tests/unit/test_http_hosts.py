"""Which hosts may stand for each other, decided from what they show; and targets and settings that cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from recorder.errors import SettingsError
from recorder.settings import Settings
from recorder.sink.http_hosts import Facts, Replica, difference
from recorder.sink.open import access_of
from recorder.target import parse_target
from schemas.live import read_tables


def one(name: str, path: str = "/t") -> dict[str, Replica | None]:
    return {"t": Replica(path, name)}


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (Facts("u", {"t": None}), Facts("u", {"t": None}), ""),  # one server
        (Facts("u", one("r1")), Facts("v", one("r2")), ""),  # two replicas
        (Facts("u", {}), Facts("v", {}), ""),  # nothing there that could differ
        (Facts("u", {"other": None}), Facts("v", {"other": None}), ""),  # not recorded into
        (Facts("u", {"t": None}), Facts("v", {"t": None}), "table t is not replicated on A"),
        (Facts("u", one("r1")), Facts("v", {"t": None}), "table t is not replicated on B"),
        (Facts("u", one("r1")), Facts("v", {}), "table t is missing on B"),
        (Facts("u", one("r1")), Facts("v", one("r2", "/u")), "replicated at /t on the one and at /u on the other"),
        (Facts("u", one("r1")), Facts("v", one("r1")), "is replica r1 on both"),
        (Facts("", {"t": None}), Facts("", {"t": None}), "table t is not replicated"),  # nothing said
    ],
)  # fmt: skip
def test_hosts_stand_for_each_other_where_a_row_in_one_is_in_the_other(
    a: Facts, b: Facts, words: str
) -> None:
    """One server, or every table recorded into the same replicated one: else the line says which table, and where."""
    said = difference("A", a, "B", b, ["t"])
    assert words in said
    assert bool(words) == bool(said)


def test_a_host_is_named_once() -> None:
    """The same host and port twice is a slip of the pen, the default port counted in."""
    with pytest.raises(ValueError, match="names a:8443 twice"):
        parse_target("https://user:pw@a,b:9443,a:8443/db")
    target = parse_target("https://user:pw@a:8443,b,[::1]:1/db")
    assert target.hosts == (("a", 8443), ("b", 8443), ("::1", 1))
    assert "pw" not in str(target)


def test_settings_of_a_server_reach_the_sink(tmp_path: Any) -> None:
    """Each setting of the connection is where the sink looks for it."""
    settings = Settings(
        target="https://writer@a,b/trading",
        target_password_file=tmp_path / "password",
        tls_ca=tmp_path / "ca.pem",
        tls_cert=tmp_path / "cert.pem",
        tls_key=tmp_path / "key.pem",
        tls_server_name="clickhouse",
        tls_verify=False,
        compression="zstd",
        connect_timeout_s=1.5,
    )
    access = access_of(settings)
    assert (access.scheme, access.user, access.compression, access.connect_timeout_s) == (
        "https",
        "writer",
        "zstd",
        1.5,
    )
    assert access.password_file == tmp_path / "password"
    assert [access.tls.ca, access.tls.cert, access.tls.key] == [
        tmp_path / "ca.pem",
        tmp_path / "cert.pem",
        tmp_path / "key.pem",
    ]
    assert (access.tls.server_name, access.tls.verify) == ("clickhouse", False)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"target": "http://u:s3cret@a", "target_password_file": "pw"}, "give one of them"),
        ({"tls_key": "key.pem"}, "tls_key without tls_cert"),
        ({"compression": "brotli"}, "compression"),
        ({"connect_timeout_s": 0}, "connect_timeout_s"),
        ({"tls_verify": "perhaps"}, "tls_verify"),
    ],
)
def test_settings_that_do_not_go_together(values: dict[str, Any], words: str) -> None:
    """Refused before anything is opened, without the password."""
    with pytest.raises(SettingsError, match=words) as caught:
        Settings(**values)
    assert "s3cret" not in str(caught.value)


class Answers:
    """A server whose tables are replicated: the engine of the tests has no keeper to replicate with."""

    def __init__(self, uuid: str):
        self._uuid = uuid

    def command(self, sql: str) -> object:
        raise AssertionError(sql)

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        if "FROM system.replicas" in sql:
            return [("t", "/clickhouse/tables/01/t")]
        if "engine LIKE '%MergeTree'" in sql:
            return [
                ("t", "ReplicatedMergeTree", "", "", "", self._uuid),
                ("plain", "MergeTree", "", "", "", self._uuid),
            ]
        return []


def test_a_replicated_table_is_the_same_one_on_each_of_its_replicas() -> None:
    """Failover to a replica whose UUID differs is no new table; a plain table with another UUID is."""
    first, second = (read_tables(Answers(uuid), "d") for uuid in ("one", "two"))
    assert first["t"].uuid == second["t"].uuid
    assert first["plain"].uuid != second["plain"].uuid
