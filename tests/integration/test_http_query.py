"""`recorder query` on a server: what only a network can do; what every target shows is in `test_cli_database`."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from harness.tcp_proxy import TcpProxy

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """That of a dev server as a person starts it: without hooks, so that its answers go out as they are made."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "login").write_text("s3cret\n")
    command = [sys.executable, "-m", "recorder", "devserver", "--json", "--path", str(folder / "db")]
    with subprocess.Popen(
        [*command, "--addr", "127.0.0.1:0", "--password-file", str(folder / "login")],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=folder, env=ENVIRONMENT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        yield int(json.loads(process.stdout.readline())["url"].rpartition(":")[2])
        process.terminate()


def query(
    folder: pathlib.Path, target: str, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "recorder",
            "--data-dir",
            str(folder),
            "--target",
            target,
            "query",
            *arguments,
        ],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=100,
        cwd=folder,
        env=ENVIRONMENT | variables,
    )


def failed(run: subprocess.CompletedProcess[bytes]) -> str:
    """The one line it ended with; there is no password in it."""
    assert run.returncode == 1
    (line,) = run.stderr.decode().splitlines()
    assert line.startswith("error: ")
    assert "s3cret" not in line
    return line


def test_an_error_in_the_middle_of_an_answer_is_told(port: int, tmp_path: pathlib.Path) -> None:
    """Rows that were out stay; the error is no part of them, and the exit code says that it is not all."""
    target = f"http://default:s3cret@127.0.0.1:{port}"
    sql = "SELECT throwIf(number = 3000000) FROM numbers(5000000)"
    run = query(tmp_path, target, "--format", "tsv", sql, "--max-rows", "1")
    assert "throwIf" in failed(run)
    assert "code 395" in failed(run)
    lines = run.stdout.splitlines()
    assert len(lines) > 100_000  # it came after many rows
    assert set(lines[1:]) == {b"0"}


def test_an_answer_that_is_cut_is_not_taken_for_all(port: int, tmp_path: pathlib.Path) -> None:
    """A connection that breaks in the middle ends the command with an error."""
    with TcpProxy(("127.0.0.1", port)) as proxy:
        proxy.cut_after(3_000_000, "to_client")
        target = f"http://default:s3cret@127.0.0.1:{proxy.port}"
        run = query(tmp_path, target, "--format", "csv", "SELECT number FROM numbers(3000000)")
    assert "cut in the middle of the answer" in failed(run)


def test_a_large_answer_passes_through(port: int, tmp_path: pathlib.Path) -> None:
    """Formats with a frame too come in pieces: no memory is needed for the whole."""
    target = f"http://default:s3cret@127.0.0.1:{port}"
    command = [sys.executable, "-m", "recorder", "--target", target, "query", "--format", "Native"]
    read, write = os.pipe()
    with subprocess.Popen(
        [*command, "SELECT number, repeat('x', 100) FROM numbers(3000000)"],
        stdout=write, stderr=subprocess.PIPE, cwd=tmp_path, env=ENVIRONMENT,
    ) as process:  # fmt: skip
        os.close(write)
        size, peak_kib = 0, 0
        with os.fdopen(read, "rb") as out:
            while piece := out.read(1 << 20):
                size += len(piece)
                status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
                peak_kib = max(
                    peak_kib, int(status.partition("VmHWM:")[2].split()[0]) if "VmHWM" in status else 0
                )
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0
    assert size > 300_000_000
    assert peak_kib < 250_000


@pytest.mark.parametrize(
    ("login", "words"),
    [("default:wr0ng", "refuses the login of user default"), ("", "refuses the login of")],
)
def test_a_wrong_login_is_one_line(port: int, tmp_path: pathlib.Path, login: str, words: str) -> None:
    """And the password that was wrong is not in it."""
    line = failed(query(tmp_path, f"http://{login}@127.0.0.1:{port}".replace("//@", "//"), "SELECT 1"))
    assert words in line
    assert "wr0ng" not in line


def test_a_password_from_a_file(port: int, tmp_path: pathlib.Path) -> None:
    """Neither the target nor the environment need have it."""
    (tmp_path / "login").write_text("s3cret\n")
    target = f"http://default@127.0.0.1:{port}"
    run = query(tmp_path, target, "--format", "tsv", "SELECT 1", RECORDER_TARGET_PASSWORD_FILE="login")
    assert (run.returncode, run.stdout) == (0, b"1\n1\n")


def test_nobody_there_is_one_line(tmp_path: pathlib.Path) -> None:
    """For every command that opens a server."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert "connection refused" in failed(query(tmp_path, f"http://u:s3cret@127.0.0.1:{port}/d", "SELECT 1"))
    for command in (["migrate", "status"], ["migrate", "up"], ["demo"]):
        run = subprocess.run(
            [sys.executable, "-m", "recorder", "--target", f"http://u:s3cret@127.0.0.1:{port}/d", *command],
            capture_output=True, check=False, timeout=100, cwd=tmp_path, env=ENVIRONMENT,
        )  # fmt: skip
        assert "connection refused" in failed(run)
