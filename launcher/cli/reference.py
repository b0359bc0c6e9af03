"""Writes docs/cli.md from the commands' own help: `python -m launcher.cli.reference`, with --check compares."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from launcher.cli import vlaunch

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "cli.md"


def sections(command: click.Command, path: str) -> Iterator[str]:
    """One section a command, groups before what is in them."""
    context = click.Context(command, info_name=path, max_content_width=100, terminal_width=100)
    yield f"## {path}\n\n```\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from sections(found, f"{path} {name}")


def main(arguments: list[str]) -> int:
    """Write the page, or say that it is stale."""
    text = "# Commands\n\nWritten from the commands' own help by `make docs`.\n\n"
    text += "\n".join(sections(vlaunch, "vlaunch"))
    if "--check" not in arguments:
        PAGE.write_text(text)
        return 0
    if not PAGE.exists() or PAGE.read_text() != text:
        print("docs/cli.md is not what the commands say; run: make docs")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
