"""`recorder config`."""

from __future__ import annotations

import click

from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import emit_json, emit_table, note


@click.command()
@click.option("--changed", is_flag=True, help="Only what is not a default.")
@pass_invocation
def config(invocation: Invocation, changed: bool) -> None:
    """Show every setting in force and where it came from; secrets are masked.

    \b
    Example:
        recorder config
        RECORDER_TABLES__MARKET_DATA__LINGER_MS=500 recorder config --changed --json
    """
    from recorder.packs import packs_of
    from recorder.settings_explain import explain

    settings = invocation.settings()
    packs_of(settings)  # settings that other commands refuse are refused here too
    entries = [entry for entry in explain(settings) if not changed or entry.source != "default"]
    if invocation.json:
        emit_json(
            {
                "settings": [entry._asdict() for entry in entries],
                "file": str(settings.config) if settings.config else None,
                "config_hash": settings.config_hash,
                "unused_environment": list(settings.unused_variables),
            }
        )
        return
    emit_table(["setting", "value", "source"], entries, caption=f"config_hash {settings.config_hash}")
    for variable in settings.unused_variables:
        note(f"note: {variable} is set and is no setting")
