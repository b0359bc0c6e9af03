"""Writes docs/cli.md from the commands' own help and the table of keys in docs/recipes.md from the configs' own
docstrings: `python -m launcher.cli.reference`; with --check it compares.
"""

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from launcher.cli import vlaunch
from launcher.recipe import Recipe, ZoneConfig

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
_KEYS = "<!-- The keys below are written by `make docs` from the configs' own docstrings. -->\n"


def sections(command: click.Command, path: str) -> Iterator[str]:
    """One section a command, groups before what is in them."""
    context = click.Context(command, info_name=path, max_content_width=100, terminal_width=100)
    yield f"## {path}\n\n```\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from sections(found, f"{path} {name}")


def keys() -> Iterator[str]:
    """One table a section of a recipe."""
    for field in msgspec.structs.fields(Recipe):
        config = _config(field.type)
        yield f"\n## [{field.name}]\n\n{_rows(config)}"
        if field.name == "local":
            yield f"\n## [[local.zones]]\n\n{_rows(ZoneConfig)}"


def _config(kind: object) -> type[msgspec.Struct]:
    """The config itself where a section may be left out."""
    found = next((each for each in getattr(kind, "__args__", (kind,)) if each is not type(None)), kind)
    assert isinstance(found, type)
    assert issubclass(found, msgspec.Struct)
    return found


def _rows(config: type[msgspec.Struct]) -> str:
    """Key, default and meaning; the meaning is the string under the field in the source."""
    meanings: dict[str, str] = {}
    parsed = ast.parse(inspect.getsource(config)).body[0]
    assert isinstance(parsed, ast.ClassDef)
    for above, below in zip(parsed.body, parsed.body[1:], strict=False):
        if isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name) and isinstance(below, ast.Expr):
            meanings[above.target.id] = " ".join(str(ast.literal_eval(below.value)).split())
    lines = ["| key | default | |", "|---|---|---|"]
    for field in msgspec.structs.fields(config):
        default = "required" if field.required else "" if field.default is msgspec.NODEFAULT else f"`{field.default!r}`"
        lines.append(f"| `{field.name}` | {default} | {meanings.get(field.name, '').replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def pages() -> dict[Path, str]:
    """What each page should be."""
    recipes = (DOCS / "recipes.md").read_text()
    return {
        DOCS / "cli.md": "# Commands\n\nWritten from the commands' own help by `make docs`.\n\n"
        + "\n".join(sections(vlaunch, "vlaunch")),
        DOCS / "recipes.md": recipes[: recipes.index(_KEYS)] + _KEYS + "".join(keys()),
    }


def main(arguments: list[str]) -> int:
    """Write the pages, or say which are stale."""
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if "--check" in arguments:
            print(f"docs/{path.name} is not what the code says; run: make docs")
        else:
            path.write_text(pages()[path])
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
