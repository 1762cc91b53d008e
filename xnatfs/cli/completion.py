"""`xnatfs completion`: what makes a shell complete commands, options, projects, tables and mounts."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

VARIABLE = "_XNATFS_COMPLETE"  # in which the shell says that it asks for completions


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete commands of xnatfs, their options, projects, tables and mounts.

    \b
    bash: eval "$(xnatfs completion bash)"       in ~/.bashrc
    zsh:  eval "$(xnatfs completion zsh)"        in ~/.zshrc
    fish: xnatfs completion fish | source        in ~/.config/fish/config.fish
    """
    found = get_completion_class(shell)
    assert found is not None  # one of the three
    click.echo(found(ctx.find_root().command, {}, "xnatfs", VARIABLE).source())
