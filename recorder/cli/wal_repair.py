"""`recorder wal repair`: what the next start would do about damage, now, and shown first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import counted, emit_json, note
from recorder.cli.wal_alone import alone, name_inside
from recorder.cli.wal_logs import Log, damage_of, place_options, places
from wal import names
from wal.recovery import Recovered, recover


@dataclass(frozen=True)
class _Repaired:
    log: Log
    unfinished: list[Path]
    found: Recovered

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "table": self.log.name,
            "segments": len(self.found.segments),
            "removes": [str(path) for path in self.unfinished],
            "damage": [damage_of(self.log, damage) for damage in self.found.damage],
        }


@click.command()
@click.argument("tables", nargs=-1)
@place_options
@click.option("--yes", is_flag=True, help="Do it; without, only show what would be done.")
@pass_invocation
def repair(
    invocation: Invocation, tables: tuple[str, ...], folder: Path | None, second: Path | None, yes: bool
) -> None:
    """Do now what the next recorder would do at its start about damage; show it, unless --yes is given.

    Of each epoch's last segment what is unfinished at the end is copied to a .broken file and cut off; broken spans
    elsewhere are copied and stay; segments that were being made are removed. Sound frames are never changed. The log
    must have no writer.

    \b
    Example:
        recorder wal repair fills
        recorder wal repair fills --yes
    """
    done: list[_Repaired] = []
    for log in places(invocation, folder, second).chosen(tables):
        with alone(log):
            unfinished = names.unfinished(log.folders)
            done.append(
                _Repaired(log, unfinished, recover(log.folders, name=name_inside(log), dry_run=not yes))
            )
        if not invocation.json:
            _show(done[-1], yes=yes)
    if invocation.json:
        emit_json({"done": yes, "logs": [one.as_dict() for one in done]})
    elif not yes and any(one.unfinished or one.found.damage for one in done):
        note("nothing was changed; --yes does it")


def _show(repaired: _Repaired, *, yes: bool) -> None:
    name = repaired.log.name
    for path in repaired.unfinished:
        click.echo(f"{name}: {path}: {'removed' if yes else 'would be removed'}, it was being made")
    for damage in repaired.found.damage:
        text = str(damage)
        click.echo(f"{name}: {text if yes else text.replace('(kept as', '(to be kept as')}")
    if not repaired.unfinished and not repaired.found.damage:
        segments = counted(len(repaired.found.segments), "segment")
        click.echo(f"{name}: {segments}, nothing to repair")
