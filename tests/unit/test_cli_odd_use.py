"""Laws of the command line under odd use: streams that are closed or full, locales, empty and strange arguments."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import select
import subprocess
import sys

import pytest

from recorder.cli.output import emit_table

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}
ASCII = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def recorder(
    folder: pathlib.Path, *arguments: str | bytes, stdin: bytes = b"", **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """A command of its own process, in the folder."""
    return subprocess.run(
        [sys.executable, "-m", "recorder", *arguments],
        input=stdin, capture_output=True, check=False, timeout=100, cwd=folder, env=ENVIRONMENT | variables,
    )  # fmt: skip


def refused(run: subprocess.CompletedProcess[bytes], code: int = 2) -> str:
    """Its one line."""
    assert (run.returncode, run.stdout) == (code, b""), run
    (line,) = run.stderr.decode().splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


@pytest.mark.parametrize("option", ["--config", "--data-dir", "--target"])
def test_an_empty_option_is_not_the_default(tmp_path: pathlib.Path, option: str) -> None:
    """A variable of the shell that is not set must not send rows somewhere else."""
    assert refused(recorder(tmp_path, option, "", "config")).startswith(f"{option} is empty; give a value")


@pytest.mark.parametrize("command", [["run"], ["migrate", "plan"]], ids=" ".join)
def test_a_global_option_behind_the_command_is_told_its_place(
    tmp_path: pathlib.Path, command: list[str]
) -> None:
    """It is not called unknown."""
    said = refused(recorder(tmp_path, *command, "--data-dir", "x"))
    assert said == f"--data-dir stands before the command: recorder --data-dir … {' '.join(command)}"


@pytest.mark.parametrize("group", [[], ["migrate"], ["bench"]], ids=["recorder", "migrate", "bench"])
def test_a_group_without_a_command_shows_its_help(tmp_path: pathlib.Path, group: list[str]) -> None:
    """As help, with the exit code of wrong use; for programs it is an error of one line."""
    shown = recorder(tmp_path, *group)
    assert (shown.returncode, shown.stdout) == (2, b"")
    assert b"\nCommands:\n" in shown.stderr
    told = recorder(tmp_path, *group, "--json")
    assert told.returncode == 2
    assert json.loads(told.stderr)["error"].startswith("no command is given; see")


@pytest.mark.parametrize("arguments", [["query", "--nope", "--json"], ["nope", "--json"]], ids=" ".join)
def test_errors_are_json_wherever_json_stands(tmp_path: pathlib.Path, arguments: list[str]) -> None:
    """Also behind what could not be read."""
    told = recorder(tmp_path, *arguments)
    assert told.returncode == 2
    assert "nope" in json.loads(told.stderr)["error"]


def test_what_an_argument_holds_does_not_reach_the_terminal(tmp_path: pathlib.Path) -> None:
    """Control characters and bytes that are no text are escaped, passwords cut out."""
    assert "a\\x1b[31mb" in refused(recorder(tmp_path, "a\x1b[31mb"))
    assert "\\udcff" in refused(recorder(tmp_path, b"\xff"))
    said = refused(recorder(tmp_path, "config", "http://me:hunter2@host"))
    assert "hunter2" not in said


def test_sql_is_utf_8_or_refused(tmp_path: pathlib.Path) -> None:
    """From an argument, a file, or standard input; before a database is looked for."""
    (tmp_path / "file.sql").write_bytes(b"SELECT '\xff'")
    said = "is not UTF-8 at byte 8"
    assert f"the SQL {said}" in refused(recorder(tmp_path, "query", b"SELECT '\xff'"))
    assert f"file.sql {said}" in refused(recorder(tmp_path, "query", "--file", "file.sql"))
    for arguments in (["-"], ["--file", "-"]):
        run = recorder(tmp_path, "query", *arguments, stdin=b"SELECT '\xff'")
        assert f"standard input {said}" in refused(run)
    assert "no name of a format" in refused(recorder(tmp_path, "query", "--format", "", "SELECT 1"))
    assert "no name of a format" in refused(recorder(tmp_path, "query", "--format", "a\nb", "SELECT 1"))


def test_a_file_in_the_place_of_a_database(tmp_path: pathlib.Path) -> None:
    """The line names the file, not what would be in it."""
    (tmp_path / "file").write_text("x")
    said = refused(recorder(tmp_path, "--target", "chdb://file", "query", "SELECT 1"), 1)
    assert said.startswith(f"{tmp_path}/file is a file, and a database is a folder")
    said = refused(recorder(tmp_path, "--data-dir", "file", "migrate", "up"), 1)
    assert f"database {tmp_path}/file/db: {tmp_path}/file is a file" in said


@pytest.mark.parametrize("command", ["version", "config", "--help", "completion bash", "version --json"])
def test_closed_streams_are_no_error(tmp_path: pathlib.Path, command: str) -> None:
    """As daemons are started; nothing takes the numbers of the streams in their place."""
    shell = f"exec {sys.executable} -m recorder {command} <&- >&- 2>error"
    run = subprocess.run(["sh", "-c", shell], cwd=tmp_path, env=ENVIRONMENT, check=False, timeout=60)
    assert (run.returncode, (tmp_path / "error").read_text()) == (0, "")


@pytest.mark.parametrize("command", ["version", "config", "config --json"])
def test_a_full_disk_under_standard_output_is_told(tmp_path: pathlib.Path, command: str) -> None:
    """The line says what could not be written."""
    if not pathlib.Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "wb") as full:
        run = subprocess.run(
            [sys.executable, "-m", "recorder", *command.split()],
            stdout=full, stderr=subprocess.PIPE, cwd=tmp_path, env=ENVIRONMENT, check=False, timeout=60,
        )  # fmt: skip
    assert run.returncode == 1
    assert b"standard output: No space left on device" in run.stderr


def test_a_current_folder_that_is_gone_is_told(tmp_path: pathlib.Path) -> None:
    """Not as a file that is missing."""
    folder = tmp_path / "gone"
    folder.mkdir()
    shell = f"rmdir {folder}; exec {sys.executable} -P -m recorder config"
    run = subprocess.run(["sh", "-c", shell], cwd=folder, env=ENVIRONMENT, check=False, timeout=60,
                         capture_output=True)  # fmt: skip
    assert refused(run, 1) == "the current folder is gone; cd to one that is there"


@pytest.mark.parametrize("command", [["config"], ["--help"], ["query", "SELECT 'ü"], ["ü"]], ids=" ".join)
def test_a_locale_of_ascii_is_no_error(tmp_path: pathlib.Path, command: list[str]) -> None:
    """Characters that it lacks are escaped."""
    run = recorder(tmp_path, *map(os.fsencode, command), **ASCII)
    assert b"unexpected" not in run.stderr
    assert run.returncode == {"config": 0, "--help": 0, "query": 1}.get(command[0], 2)


@pytest.mark.parametrize("width", ["0", "1", "20", "x"])
def test_a_narrow_terminal_loses_nothing(monkeypatch: pytest.MonkeyPatch, width: str) -> None:
    """Columns keep room for what they hold, and long values are broken; the terminal breaks the lines."""
    master, slave = pty.openpty()
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("TERM", "xterm")
    values = [f"{n:02}" * 4 for n in range(12)]
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        emit_table([f"c{n}" for n in range(12)], [values])
        terminal.flush()
        monkeypatch.undo()
        shown = b""
        while values[-1].encode() not in shown and select.select([master], [], [], 5.0)[0]:
            shown += os.read(master, 1 << 16)
    os.close(master)
    assert all(value in shown.decode() for value in values)
