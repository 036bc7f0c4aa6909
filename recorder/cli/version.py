"""`recorder version`."""

from __future__ import annotations

import importlib.metadata
import platform

import click

from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import emit_json, emit_table
from recorder.version import git_sha
from recorder.version import version as recorder_version

STANDS_ON = ("chdb", "clickhouse-connect", "pyarrow", "msgspec")
EXTRAS = {"pyzmq": "zmq"}
"""What only some need, and the extra that installs it."""


@click.command()
@pass_invocation
def version(invocation: Invocation) -> None:
    """Show the versions of the recorder and of what it stands on.

    \b
    Example:
        recorder version --json
    """
    versions = {"recorder": recorder_version(), "git": git_sha(), "python": platform.python_version()}
    for name in (*STANDS_ON, *EXTRAS):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed" + (f" (extra {EXTRAS[name]})" if name in EXTRAS else "")
    if invocation.json:
        emit_json(versions)
    else:
        emit_table(["what", "version"], [(name, value or "-") for name, value in versions.items()])
