"""`pgflow completion`: print the script that completes commands and options in a shell."""

import click
from click.shell_completion import get_completion_class

from pgflow.cli.options import debug_option

__all__ = ["command"]

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_PGFLOW_COMPLETE"  # click's name for the program "pgflow"


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@debug_option
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL: bash, zsh or fish.

    \b
    Examples:
      eval "$(pgflow completion bash)"        # in ~/.bashrc
      eval "$(pgflow completion zsh)"         # in ~/.zshrc, after compinit
      pgflow completion fish > ~/.config/fish/completions/pgflow.fish
    """
    completion = get_completion_class(shell)
    assert completion is not None  # noqa: S101 -- click has all three
    root = ctx.find_root().command
    script = completion(root, {}, "pgflow", VARIABLE)
    click.echo(script.source_template % script.source_vars())  # not source(): it starts bash to check its version
