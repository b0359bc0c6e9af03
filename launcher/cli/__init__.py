"""The `vlaunch` command: finds the command's file, runs it, and turns every known failure into its sentence.

One small file a command group, imported only when it is asked for, so `vlaunch --help` stays light.
"""

import difflib
import importlib
import sys
from typing import Any

import click

# command -> (module under launcher.cli, attribute, one line of help); read without importing any of them.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "train": ("train", "train", "Fine-tune a model by a recipe."),
    "serve": ("serve", "serve", "Serve models on spot replicas behind one address."),
    "down": ("down", "down", "Take services down."),
    "status": ("status", "status", "How runs stand."),
    "logs": ("logs", "logs", "What a run has said."),
    "data": ("data", "data", "Raw chats to training conversations."),
    "export": ("export", "export", "A checkpoint as a Hugging Face folder."),
    "cancel": ("cancel", "cancel", "End a run and its machines."),
    "cost": ("cost", "cost", "What runs cost."),
    "evaluate": ("evaluate", "evaluate", "Is the model good: answers, a judge, scores."),
    "gateway": ("gateway", "gateway", "One address in front of workers that come and go."),
    "worker": ("worker", "worker", "Plug an engine into gateways."),
    "init": ("init", "init", "Write a first recipe by answering five questions."),
    "completion": ("completion", "completion", "Let the shell complete commands, recipes and runs."),
    "plan": ("plan", "plan", "What a recipe would cost, how long and how sure."),
    "market": ("market", "market", "What compute costs, and policies against recorded markets."),
    "check": ("check", "check", "What is ready for a launch, and what to do about the rest."),
    "plugin": ("plugin", "plugin", "vlaunch's recovery strategy in SkyPilot's server."),
}


class Group(click.Group):
    """A group that knows which command was meant."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], known, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else f" `{ctx.command_path} --help` lists the commands."
            raise click.UsageError(f"There is no command '{args[0]}'.{hint}", ctx)
        return super().resolve_command(ctx, args)


class LazyGroup(Group):
    """A group that knows its commands from a table and imports one when it is called."""

    def __init__(self, *args: Any, table: dict[str, tuple[str, str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.table:
            return None
        module, attribute, _ = self.table[name]
        command: click.Command = getattr(importlib.import_module(f"launcher.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if not self.table:
            return
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in self.table.items()])


@click.group(cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vlaunch")
def vlaunch() -> None:
    """Fine-tune and serve open chat models on spot GPUs, for the least money, without losing a step."""


def main() -> None:
    """Run the command; a known failure ends with its sentence on standard error and exit code 1."""
    from launcher.cli.failures import sentence

    try:
        vlaunch(prog_name="vlaunch")
    except Exception as failure:
        text = sentence(failure)
        if text is None:
            raise
        click.echo(f"vlaunch: {text}", err=True)
        sys.exit(1)
