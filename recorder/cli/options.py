"""What every command is told: the global options, and the settings they lead to.

A command takes it with `@pass_invocation`, and asks `invocation.settings()`. `--json` and `--debug` may stand before
or behind the command's name; `equip` adds them to commands that do not have them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from recorder.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=click.Command)


@dataclass
class Invocation:
    """One run of the command line. Filled in while click reads the options, read by the commands."""

    config: str | None = None
    target: str | None = None
    data_dir: str | None = None
    profile: str | None = None
    debug: bool = False
    json: bool = False

    def settings(
        self, *, base: Mapping[str, Any] | None = None, set_up_log: bool = True, **overrides: Any
    ) -> Settings:
        """The settings in force, with logging set up by them unless `set_up_log` is false.

        `base` are defaults of the command, weaker than file and environment; `overrides` are its own options, where
        None means not given.

        Raises:
            SettingsError: they cannot be used.
        """
        from recorder.settings import Settings

        given = {"target": self.target, "data_dir": self.data_dir, "profile": self.profile}
        settings = Settings(config=self.config, base=base, said_by="command line", **(given | overrides))
        if set_up_log:
            self.set_up_log(settings)
        return settings

    def set_up_log(self, settings: Settings) -> None:
        """Set logging up by settings; `--debug` shows everything, with `--json` every line is JSON."""
        from recorder import log

        log.configure(
            "debug" if self.debug else settings.log_level, "json" if self.json else settings.log_format
        )


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)
"""Hands the `Invocation` to a command as its first argument."""


class Number(click.FloatRange):
    """A number within a range; NaN and infinity are none, although every comparison would let NaN through."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number", param, ctx)
        return number


class PathName(click.Path):
    """A path; an empty one is none, and not the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path."""
        if value == "":
            self.fail("it is empty", param, ctx)
        return super().convert(value, param, ctx)


def _sets(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value == "":  # such as of a variable that is not set: the default would be somebody else's data
            raise click.UsageError(f"{parameter.opts[0]} is empty; give a value, or leave it out", ctx)
        # A command's own "not given" must not undo what was given before its name.
        if value:
            setattr(ctx.ensure_object(Invocation), name, value)

    return callback


def json_option() -> click.Option:
    """`--json`."""
    return click.Option(
        ["--json"], is_flag=True, expose_value=False, callback=_sets("json"), help="Answer in JSON."
    )


def debug_option() -> click.Option:
    """`--debug`."""
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        envvar="RECORDER_DEBUG",
        callback=_sets("debug"),
        help="Log everything, and show tracebacks.",
    )


def equip(command: C) -> C:
    """Give a command `--json` and `--debug` where it has none of its own."""
    names = {name for parameter in command.params for name in parameter.opts}
    if "--json" not in names:
        command.params.append(json_option())
    if "--debug" not in names:
        command.params.append(debug_option())
    return command


GLOBAL = ("--profile", "--data-dir", "--target", "--config")
"""The options of `global_options`."""


def global_options(function: F) -> F:
    """The options that stand before a command's name."""
    for flag, name, help_text, kind in (
        ("--profile", "profile", "Set of defaults.", click.Choice(["dev", "production"])),
        ("--data-dir", "data_dir", "Folder of the database and all local state.", click.Path()),
        ("--target", "target", "Where rows go, such as chdb:///path/to/db.", None),
        ("--config", "config", "Settings file (TOML).", click.Path()),
    ):
        function = click.option(
            flag, type=kind, default=None, expose_value=False, callback=_sets(name), help=help_text
        )(function)
    return function
