"""Laws of the command line: every command explains itself, errors are a line and an exit code, secrets stay out."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner, Result

from recorder.cli import main
from recorder.cli.lazy import Home, LazyGroup
from recorder.cli.output import note

SECRET = "hunter2-s3cr3t"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith("RECORDER_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def _run(*arguments: str, **variables: str) -> Result:
    return CliRunner().invoke(main, list(arguments), env=variables)


def _commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))


COMMANDS = dict(_commands(main))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_an_example_and_json(path: tuple[str, ...]) -> None:
    """Every command's help has an example of itself, `--json` and `--debug`."""
    result = _run(*path, "--help")
    assert result.exit_code == 0
    assert re.search(r"Examples?:\n", result.output)
    example = re.split(r"Examples?:\n", result.output)[1].split("Options:")[0]
    assert any("recorder " in line and path[0] in line.split() for line in example.splitlines())
    assert "--json" in result.output
    assert "--debug" in result.output


def test_the_list_of_commands_says_what_each_does() -> None:
    """`recorder --help` names the commands with a sentence each, in order."""
    output = _run("--help").output
    listed = [line.split()[0] for line in output.split("Commands:")[1].splitlines() if line.strip()]
    assert listed == sorted(listed)
    assert {"config", "query", "migrate", "completion", "version"} <= set(listed)


def test_help_does_not_load_what_it_does_not_need() -> None:
    """`recorder --help` imports neither the engine nor Arrow nor any command, so that it answers at once."""
    code = (
        "import sys\nfrom recorder.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'pyarrow', 'chdb', 'numpy', 'pydantic', 'aiohttp', 'clickhouse_connect', 'recorder.cli.query'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert asked.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["confg"], 'there is no command "confg"; did you mean "config"?'),
        (["nothing-like-it"], 'see "recorder --help"'),
        (["migrate", "upp"], 'did you mean "up"?'),
        (["config", "--nope"], 'see "recorder config --help"'),
        (["query"], "give the SQL"),
        (["query", "select 1", "--file", "x.sql"], "give the SQL"),
        (["query", "--file", "none.sql"], "none.sql: No such file"),
        (["query", " ; "], "there is no SQL"),
        (["completion", "tcsh"], "'bash'"),
        (
            ["ingest", "--table", "nope", __file__],
            "--table 'nope': no loaded pack has this table; there are account_",
        ),
        (["ingest", "--table", "order", __file__], 'did you mean "orders"?'),
        (["demo", "--minutes", "nan"], "'nan' is no number"),
        (["bench", "load", "--seconds", "nan"], "'nan' is no number"),
        (["bench", "ingest", "--target", ""], "it is empty; name a server"),
        (["ingest", ""], "'FILE...': it is empty"),
        (["simulate", "--minutes", "inf"], "'inf' is no number"),
        (["simulate", "--symbols", ""], "symbols must be one or more"),
        (["--profile", "prod", "config"], "'production'"),
        (["--target", "ftp://x", "config"], "command line: target: 'ftp://x' is no target"),
        (["--config", "none.toml", "config"], "none.toml: there is no such settings file"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(arguments: list[str], words: str) -> None:
    """Wrong use and wrong settings: one line on standard error, nothing on standard output, exit code 2."""
    result = _run(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_a_failure_is_exit_code_1() -> None:
    """What does not work, though asked rightly, is one line with a remedy and exit code 1; nothing is made."""
    result = _run("query", "SELECT 1")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: there is no database at ")
    assert "recorder demo" in result.stderr
    assert list(pathlib.Path.cwd().iterdir()) == []


def test_errors_are_json_with_json() -> None:
    """With `--json` an error is a JSON object on standard error, before or behind the command's name."""
    for arguments in (["--json", "query", "SELECT 1"], ["query", "--json", "SELECT 1"]):
        result = _run(*arguments)
        assert result.exit_code == 1
        assert "there is no database" in json.loads(result.stderr)["error"]


@pytest.fixture
def broken() -> Iterator[click.Command]:
    @click.command()
    def broken() -> None:
        raise KeyError(f"http://u:{SECRET}@h")

    main.add_command(broken, "broken")
    yield broken
    main.commands.pop("broken")


@pytest.mark.usefixtures("broken")
def test_tracebacks_only_with_debug() -> None:
    """The unexpected is a line too; its traceback is shown with `--debug`, and secrets in neither."""
    plain, debug = _run("broken"), _run("--debug", "broken")
    assert plain.exit_code == debug.exit_code == 1
    assert plain.stderr.startswith("error: unexpected KeyError")
    assert len(plain.stderr.splitlines()) == 1
    assert "Traceback" in debug.stderr
    assert SECRET not in plain.output + debug.output


def test_interrupting_is_exit_code_130() -> None:
    """Ctrl-C ends a command with 130 and no traceback."""

    @click.command()
    def wait() -> None:
        raise KeyboardInterrupt

    main.add_command(wait, "wait")
    try:
        result = _run("wait")
    finally:
        main.commands.pop("wait")
    assert result.exit_code == 130
    assert result.stderr.strip() == "stopped"


def test_a_command_that_cannot_be_loaded_harms_no_other(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing module is not listed, a broken one says so when run, and the others work."""
    (tmp_path / "broken_command.py").write_text("raise RuntimeError('half installed')\n")
    (tmp_path / "good_command.py").write_text(
        "import click\n@click.command()\ndef good():\n    'Good.'\n    click.echo('fine')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    group = LazyGroup(
        "g",
        homes={
            "absent": Home("absent_command:x", "Absent."),
            "broken": Home("broken_command:x", "Broken."),
            "good": Home("good_command:good", "Good."),
        },
    )
    help_text = CliRunner().invoke(group, ["--help"]).output
    assert "Absent." not in help_text
    assert "Broken." in help_text
    assert CliRunner().invoke(group, ["good"]).output == "fine\n"
    result = CliRunner().invoke(group, ["broken"])
    assert result.exit_code == 1
    assert "cannot be loaded" in result.output
    assert "half installed" in result.output


# -- config --


def test_config_names_values_and_sources() -> None:
    """`recorder config` shows what is in force, from which source, as a table and as JSON."""
    pathlib.Path("recorder.toml").write_text("retry_max_s = 20\n")
    variables = {"RECORDER_TABLES__MARKET_DATA__LINGER_MS": "500", "RECORDER_ZZZ_QQQ": "1"}
    result = _run("--data-dir", "here", "config", "--json", **variables)
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    told = {entry["key"]: (entry["value"], entry["source"]) for entry in answer["settings"]}
    assert told["retry_max_s"] == (20, "recorder.toml")
    assert told["tables.market_data.linger_ms"] == (
        500,
        "environment RECORDER_TABLES__MARKET_DATA__LINGER_MS",
    )
    assert told["data_dir"] == (str(pathlib.Path("here").absolute()), "command line")
    assert told["hold_probe_s"] == (5, "default")
    assert answer["unused_environment"] == ["RECORDER_ZZZ_QQQ"]
    table = _run("config", "--changed", **variables).stdout
    assert "recorder.toml" in table
    assert "hold_probe_s" not in table


@pytest.mark.parametrize(
    "command",
    [["config"], ["ingest", __file__], ["simulate"], ["demo"], ["migrate", "plan"], ["migrate", "up"]],
)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tables.nope]\nlinger_ms = 5\n", "tables.nope: no loaded pack has this table"),
        ('packs = ["core", "nope"]\n', "pack"),
        ('packs = ["core", "no.such:PACK"]\n', "no.such"),
    ],
)
def test_unknown_packs_and_tables_are_wrong_use(command: list[str], text: str, words: str) -> None:
    """Settings of a table or pack that is not there are refused with exit code 2 by every command."""
    pathlib.Path("recorder.toml").write_text(text)
    result = _run(*command)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("target", [f"http://u:{SECRET}@host:8123", f"http://u:{SECRET}@host:x"])
@pytest.mark.parametrize("flag", ["--debug", "--json"])
def test_config_masks_secrets(target: str, flag: str) -> None:
    """No output of `config`, not even a traceback, shows a password."""
    for result in (_run(flag, "--target", target, "config"), _run(flag, "config", RECORDER_TARGET=target)):
        assert SECRET not in result.output
        assert "***" in result.output


# -- completion and version --


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    """Each shell gets a script that asks the command itself."""
    script = _run("completion", shell).stdout
    assert f"_RECORDER_COMPLETE={shell}_complete" in script
    assert json.loads(_run("completion", shell, "--json").stdout)["shell"] == shell


def test_completion_completes() -> None:
    """The protocol behind the script answers with commands, nested ones and options."""
    for words, expected in (
        ("recorder mig", "migrate"),
        ("recorder migrate pl", "plan"),
        ("recorder query --fo", "--format"),
    ):
        result = _run(
            _RECORDER_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1)
        )
        assert expected in result.stdout


def test_version_says_what_it_stands_on() -> None:
    """`version` names the recorder, Python and the engine."""
    versions = json.loads(_run("version", "--json").stdout)
    assert {"recorder", "python", "chdb", "git", "pyzmq"} <= set(versions)
    assert "chdb" in _run("version").stdout
    assert _run("--version").stdout.strip() == versions["recorder"]


def test_version_says_how_an_extra_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there is no error: the line names the extra."""
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "pyzmq":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert json.loads(_run("version", "--json").stdout)["pyzmq"] == "not installed (extra zmq)"


def test_notes_are_json_with_json() -> None:
    """What a command says beside its answer, and that it was interrupted, are objects too."""

    @click.command()
    def wait() -> None:
        note("just a moment")
        raise KeyboardInterrupt

    main.add_command(wait, "wait")
    try:
        result = _run("wait", "--json")
        plain = _run("wait")
    finally:
        main.commands.pop("wait")
    assert [json.loads(line) for line in result.stderr.splitlines()] == [
        {"note": "just a moment"},
        {"note": "stopped"},
    ]
    assert plain.stderr == "just a moment\nstopped\n"
