"""Options that several benchmarks have, so that each means the same in all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import click

from benchmarks.gcstate import STATES
from benchmarks.steps import WAITS
from recorder.cli.options import Number

F = TypeVar("F", bound=Callable[..., Any])


class Option(Protocol):
    """Gives a command one option."""

    def __call__(self, function: F, /) -> F:
        """The same function, with the option."""


def seconds_option(default: float, help_text: str, *, least_s: float = 0.05) -> Option:
    """`--seconds`, as `seconds_`."""
    return click.option(
        "--seconds",
        "seconds_",
        default=default,
        show_default=True,
        type=Number(min=least_s),
        help=help_text,
    )


def rounds_option(default: int, help_text: str = "Turns of all sides.") -> Option:
    """`--rounds`."""
    return click.option(
        "--rounds", default=default, show_default=True, type=click.IntRange(min=1), help=help_text
    )


def rate_option(default: float | None, help_text: str) -> Option:
    """`--rate`; without a default the benchmark finds one, and says so in its help."""
    return click.option(
        "--rate",
        default=default,
        show_default=default is not None,
        type=Number(min=1),
        help=help_text,
    )


def switch_interval_option(default: float, help_text: str) -> Option:
    """`--switch-interval`, in seconds."""
    return click.option(
        "--switch-interval",
        default=default,
        show_default=True,
        type=Number(min=0, min_open=True, max=1),
        help=help_text,
    )


def wait_option() -> Option:
    """`--wait`."""
    return click.option(
        "--wait",
        default="spin",
        show_default=True,
        type=click.Choice(WAITS),
        help="How the producer waits: holding the interpreter's lock, or letting go of it.",
    )


def gc_option(help_text: str = "State of the garbage collector, the same for all sides.") -> Option:
    """`--gc`, as `collector`."""
    return click.option(
        "--gc",
        "collector",
        default="freeze",
        show_default=True,
        type=click.Choice(STATES),
        help=help_text,
    )


def check_option() -> Option:
    """`--check`."""
    return click.option("--check", is_flag=True, help="End with exit code 1 when a target is missed.")
