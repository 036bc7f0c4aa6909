"""A group whose commands are imported when they are run, so that `recorder --help` answers at once.

A command whose module is not there is not listed; one whose module fails to load says so when it is run, and keeps
no other from working.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from recorder.cli.errors import Failure
from recorder.cli.options import equip

SHORT_HELP = 90
"""Characters of a command's help in a list of commands."""


class Home(NamedTuple):
    """Where a command is found, as `module:attribute`, and what the list of commands says of it."""

    place: str
    help: str


class LazyGroup(click.Group):
    """A group of commands by name and place."""

    def __init__(self, *args: Any, homes: Mapping[str, Home] | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._homes = dict(homes or {})
        equip(self)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command that is loaded already."""
        super().add_command(equip(cmd), name)

    def homes(self) -> Mapping[str, Home]:
        """The commands that are loaded when they are run."""
        return self._homes

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands whose modules are there."""
        return sorted(
            {*super().list_commands(ctx), *(name for name, home in self.homes().items() if _there(home))}
        )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command.

        Raises:
            Failure: its module is there and cannot be loaded.
        """
        if (found := super().get_command(ctx, cmd_name)) is not None:
            return found
        home = self.homes().get(cmd_name)
        if home is None or not _there(home):
            return None
        module, _, attribute = home.place.partition(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except Exception as error:
            raise Failure(
                f"command {cmd_name} cannot be loaded from {home.place}: {type(error).__name__}: {error}; "
                "reinstall, or run with --debug to see where"
            ) from error
        assert isinstance(command, click.Command), f"{home.place} is no command"
        return equip(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest name in the error."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            hint = f'did you mean "{near[0]}"?' if near else f'see "{ctx.command_path} --help"'
            raise click.UsageError(f'there is no command "{name}"; {hint}', ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without loading any."""
        rows = [(name, self._help_of(ctx, name)) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands without loading any, and the group's options."""
        items = [
            CompletionItem(name, help=self._help_of(ctx, name))
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]
        return items + click.Command.shell_complete(self, ctx, incomplete)

    def _help_of(self, ctx: click.Context, name: str) -> str:
        home = self.homes().get(name)
        if home is not None:
            return home.help
        command = super().get_command(ctx, name)
        return command.get_short_help_str(SHORT_HELP) if command is not None else ""


def _there(home: Home) -> bool:
    try:
        return importlib.util.find_spec(home.place.partition(":")[0]) is not None
    except ModuleNotFoundError:
        return False
