"""`recorder completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import emit_json

VARIABLE = "_RECORDER_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@pass_invocation
@click.pass_context
def completion(ctx: click.Context, invocation: Invocation, shell: str) -> None:
    """Print the completion script of a shell; the shell's start file sources it.

    \b
    Example:
        recorder completion bash > ~/.local/share/bash-completion/completions/recorder
        recorder completion zsh > ~/.zfunc/_recorder
        recorder completion fish > ~/.config/fish/completions/recorder.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, f"click knows no completion for {shell}"
    complete = kind(ctx.find_root().command, {}, "recorder", VARIABLE)
    # Not source(): for bash that runs bash to ask its version, on a machine that may only build the script.
    script = complete.source_template % complete.source_vars()
    if invocation.json:
        emit_json({"shell": shell, "script": script})
    else:
        click.echo(script)
