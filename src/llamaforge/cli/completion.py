"""`llamaforge completion SHELL`: verbs, options, their values, job names and files on Tab.

eval "$(llamaforge completion bash)"            # in ~/.bashrc; zsh likewise
llamaforge completion fish > ~/.config/fish/completions/llamaforge.fish
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

VARIABLE = "_LLAMAFORGE_COMPLETE"
"""What the script sets when it asks this program for completions; click answers before any verb."""


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print a script that completes llamaforge in a shell.

    For bash or zsh put this into ~/.bashrc or ~/.zshrc: eval "$(llamaforge completion bash)"
    """
    from llamaforge.cli.main import program

    kind = get_completion_class(shell)
    assert kind is not None, "click completes bash, zsh and fish"
    click.echo(kind(program, {}, "llamaforge", VARIABLE).source())
