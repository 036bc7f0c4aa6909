"""The command `recorder devserver`: one ready line, one line for what keeps it from starting, clean ends."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest
import requests
import trustme
from harness.dev_server_command import Started, dev_server, end, launch


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RECORDER_")}
    return subprocess.run(
        [sys.executable, "-m", "recorder", *arguments],
        capture_output=True, text=True, timeout=60, env={**kept, **env}, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with dev_server(tmp_path_factory.mktemp("devserver"), "--path", "db") as started:
        yield started


def test_the_ready_line_for_programs(server: Started) -> None:
    """Flushed, one line, with all there is to know; what it names answers at once."""
    assert set(server.ready) == {"url", "pid", "path"}
    assert pathlib.Path(str(server.ready["path"])).is_absolute()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", str(server.ready["url"]))
    assert server.ready["pid"] == server.process.pid
    assert server.text("SELECT 1") == "1\n"


def test_the_ready_line_for_people(tmp_path: pathlib.Path) -> None:
    """Its folder is in the data folder unless it is named."""
    process = subprocess.Popen(
        [sys.executable, "-m", "recorder", "--data-dir", str(tmp_path), "devserver", "--addr", "127.0.0.1:0"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        folder = tmp_path / "devserver"
        assert re.fullmatch(
            rf"ready at http://127\.0\.0\.1:\d+ \(database in {folder}\); Ctrl-C ends it\n", line
        )
        assert requests.get(line.split()[2] + "/ping", timeout=10).text == "Ok.\n"
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
    assert (process.returncode, rest) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_starts_ends_it_too(tmp_path: pathlib.Path, number: signal.Signals) -> None:
    """While it opens its folder: in order, and the folder is free afterwards."""
    for name in ("one", "two"):
        process, log = launch(tmp_path / name)
        while not (tmp_path / name / "db").exists():
            assert process.poll() is None, log.read_text()
            time.sleep(0.005)
        process.send_signal(number)
        assert process.wait(30) == 0, log.read_text()
        assert log.read_text() == ""
        end(process)
        with dev_server(tmp_path / name) as server:
            assert server.text("SELECT 1") == "1\n"


def one_line(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The one line of an error."""
    assert (done.returncode, done.stdout) == (code, ""), done
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_port_that_is_taken(server: Started, tmp_path: pathlib.Path) -> None:
    address = server.url.removeprefix("http://")
    said = one_line(run("devserver", "--path", str(tmp_path / "db"), "--addr", address))
    assert said.startswith(
        f"error: address {address}: already in use; stop what listens there, or name another port"
    )
    assert not (tmp_path / "db").exists()


def test_a_port_that_is_taken_beside_a_recorder(server: Started, tmp_path: pathlib.Path) -> None:
    """`run` has another option for the address, and its line names that."""
    address = server.url.removeprefix("http://")
    done = run(
        "--data-dir", str(tmp_path / "data"), "run", "--bus", f"zmq://{tmp_path}/b.sock",
        "--health-addr", "127.0.0.1:0", "--serve", address,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert [line for line in done.stderr.splitlines() if not line.startswith("{")] == [
        f"error: address {address}: already in use; stop what listens there, or name another port with --serve"
    ]


def test_a_folder_that_another_process_has(server: Started) -> None:
    said = one_line(run("devserver", "--path", str(server.ready["path"]), "--addr", "127.0.0.1:0"))
    assert f"process {server.process.pid} has it open" in said
    assert server.text("SELECT 1") == "1\n"


def test_a_path_that_is_no_folder(tmp_path: pathlib.Path) -> None:
    """The file itself, or below it: the option is named."""
    file = tmp_path / "file"
    file.write_text("x")
    for path in (file, file / "below"):
        said = one_line(run("devserver", "--path", str(path), "--addr", "127.0.0.1:0"), 2)
        assert said.startswith(f"error: --path {path}: {file} is a file; name a folder")


def test_a_folder_that_cannot_be_written() -> None:
    said = one_line(run("devserver", "--path", "/proc/recorder/db", "--addr", "127.0.0.1:0"))
    assert "cannot write there" in said


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (
            "8.8.8.8:0",
            "--addr 8.8.8.8:0: other machines would reach it; use 127.0.0.1:0, or give --allow-remote and a",
        ),
        ("0.0.0.0:0", "other machines would reach it"),
        ("nonsense", "--addr 'nonsense' is no address"),
        (
            "off",
            "--addr 'off' is no address; write host:port as in 127.0.0.1:9477; port 0 takes a free one\n",
        ),
        ("127.0.0.1:99999", "is no address"),
    ],
)
def test_an_address_that_cannot_be(tmp_path: pathlib.Path, address: str, said: str) -> None:
    """Wrong use, before the folder is made."""
    assert said in one_line(run("devserver", "--path", str(tmp_path / "db"), "--addr", address), 2)
    assert not (tmp_path / "db").exists()


def test_an_address_of_another_machine(tmp_path: pathlib.Path) -> None:
    done = run("devserver", "--path", str(tmp_path / "db"), "--addr", "192.0.2.1:0", "--allow-remote",
               "--password-env", "P", P="secret")  # fmt: skip
    assert "no address of this machine" in one_line(done)


def test_beyond_loopback_with_a_password(tmp_path: pathlib.Path) -> None:
    """Allowed by name, and asked of everybody."""
    options = ("--addr", "0.0.0.0:0", "--allow-remote", "--password-env", "P")
    with dev_server(tmp_path, *options, env={"P": "secret"}) as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        host = {"Host": socket.gethostname()}
        assert requests.post(url, data="SELECT 1", headers=host, timeout=10).status_code == 403
        right = requests.post(url, data="SELECT 1", headers=host, auth=("default", "secret"), timeout=10)
        assert right.text == "1\n"


def test_a_password_from_a_file(tmp_path: pathlib.Path) -> None:
    """Its first line; never on the command line, never in what the command says."""
    file = tmp_path / "password"
    file.write_text("from a file\nnot this\n")
    with dev_server(tmp_path, "--password-file", str(file)) as server:
        assert server.ask("SELECT 1").status_code == 403
        assert server.text("SELECT 1", user="default", password="from a file") == "1\n"
        assert "from a file" not in json.dumps(server.ready) + server.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--password-env", "NOT_THERE"], "environment variable NOT_THERE is not set"),
        (["--password-file", "/not/there"], "No such file"),
        (["--password-file", "/dev/null"], "has no password on its first line"),
        (["--password-file", "/dev/null", "--password-env", "P"], "not by both"),
        (["--tls-key", "/x"], "give that too"),
        (["--path", ""], "'--path': it is empty"),
        (["--allow-remote"], "needs a password; give --password-env or --password-file"),
        (
            ["--allow-remote", "--addr", "0.0.0.0:0"],
            "needs a password; give --password-env or --password-file",
        ),
    ],
)
def test_wrong_use(arguments: list[str], said: str) -> None:
    assert said in one_line(run("devserver", *arguments), 2)


def test_certificates_that_cannot_be(tmp_path: pathlib.Path) -> None:
    """Missing, no certificate, a key of another one: the file is named."""
    ca = trustme.CA()
    one, other = ca.issue_cert("localhost"), ca.issue_cert("localhost")
    cert, key, wrong, text = (str(tmp_path / name) for name in ("cert", "key", "wrong", "text"))
    one.cert_chain_pems[0].write_to_path(cert)
    one.private_key_pem.write_to_path(key)
    other.private_key_pem.write_to_path(wrong)
    pathlib.Path(text).write_text("no certificate")
    for options, said in (
        (["--tls-cert", str(tmp_path / "none"), "--tls-key", key], "none: cannot be read: No such file"),
        (["--tls-cert", text, "--tls-key", key], f"TLS certificate {text} with key {key}: cannot be used"),
        (["--tls-cert", cert, "--tls-key", wrong], "KEY_VALUES_MISMATCH"),
        (
            ["--tls-cert", cert],
            f"TLS certificate {cert}: the file holds no key; name that of its key too (--tls-key)",
        ),
        (
            ["--tls-cert", cert, "--tls-key", key, "--tls-client-ca", text],
            f"TLS client CA {text}: cannot be used",
        ),
    ):
        assert said in one_line(
            run("devserver", "--path", str(tmp_path / "db"), "--addr", "127.0.0.1:0", *options)
        )


def test_errors_for_programs(server: Started, tmp_path: pathlib.Path) -> None:
    done = run(
        "--json", "devserver", "--path", str(tmp_path / "db"), "--addr", server.url.removeprefix("http://")
    )
    assert done.returncode == 1
    assert "already in use" in json.loads(done.stderr)["error"]


def test_it_is_ready_soon(tmp_path: pathlib.Path) -> None:
    """A test that starts one for itself waits a second or two, on a machine that does other things as well."""
    process, _ = launch(tmp_path)
    created_s = psutil.Process(process.pid).create_time()
    assert process.stdout is not None
    process.stdout.readline()
    assert time.time() - created_s < 15
    end(process)
