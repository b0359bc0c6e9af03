"""`vlaunch completion`: the shell's own script for it, and what it offers for recipes and runs."""

import click
from click.shell_completion import CompletionItem, get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that lets SHELL complete commands, recipes and the runs there are.

    bash: echo 'eval "$(vlaunch completion bash)"' >> ~/.bashrc;
    zsh: the same in ~/.zshrc;
    fish: vlaunch completion fish > ~/.config/fish/completions/vlaunch.fish
    """
    from launcher.cli import vlaunch

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(vlaunch, {}, "vlaunch", "_VLAUNCH_COMPLETE").source())


def run_ids(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The runs whose id begins so, the newest first."""
    from launcher.errors import LedgerError
    from launcher.ledger import Ledger, home

    try:
        found = list(Ledger(home()).runs())
    except LedgerError:  # a shell that completes is no place for a sentence
        return []
    return [CompletionItem(run) for run in reversed(found) if run.startswith(begun)]


def recipes(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The recipes that come with vlaunch; a path is completed by the shell."""
    from launcher.recipe import names

    found = [CompletionItem(name) for name in names() if name.startswith(begun)]
    return found or [CompletionItem(begun, type="file")]
