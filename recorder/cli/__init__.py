"""The command `recorder`. Each command is a module of its own, loaded when it is asked for."""

from __future__ import annotations

from recorder.cli.group import main

__all__ = ["main"]
