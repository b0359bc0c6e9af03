"""`vlaunch init`: a first recipe by five questions, each with a good answer to begin with."""

from pathlib import Path

import click

from launcher.cli.answer import json_option, say


@click.command()
@click.argument("path", default="recipe.toml", type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="Take every default without asking.")
@json_option
def init(path: Path, *, yes: bool, as_json: bool) -> None:
    """Write a first recipe to PATH (recipe.toml) by asking five questions."""
    from launcher.errors import RecipeError
    from launcher.recipe import DEFAULT, draft, load, names

    if path.exists():
        raise RecipeError(f"{path} is there already; name another file: vlaunch init my-recipe.toml")

    def ask(question: str, default: str) -> str:
        return default if yes else str(click.prompt(question, default=default, err=True))

    base = ask(f"1. Which recipe to begin with ({', '.join(names())})", DEFAULT)
    begun = load(base).recipe
    conversations = ask("2. Where are the conversations (ShareGPT JSON or JSON lines)", begun.data.conversations)
    store = ask(
        "3. Where do checkpoints go (s3://bucket/path, gs://bucket/path or a folder)",
        begun.checkpoints.store or ("s3://your-bucket/vlaunch" if begun.machine.accelerators else "out/store"),
    )
    machines = ""
    if begun.machine.accelerators:
        machines = ask(
            "4. On which accelerators (NAME:COUNT, several with commas)", ",".join(begun.machine.accelerators)
        )
    else:
        machines = ask("4. How many processes on this machine", str(begun.machine.processes))
    epochs = ask("5. How many passes over the conversations", f"{begun.train.epochs:g}")
    changes = [f"data.conversations='{conversations}'", f"checkpoints.store='{store}'", f"train.epochs={epochs}"]
    if begun.machine.accelerators:
        changes.append(f"machine.accelerators={[each.strip() for each in machines.split(',')]}")
    else:
        changes.append(f"machine.processes={machines}")
    text = draft(base, changes)
    try:
        path.write_text(f"# Begun from {base}. What each key means: docs/launcher.md.\n\n{text}", encoding="utf-8")
    except OSError as failure:
        raise RecipeError(f"{path} cannot be written: {failure.strerror}.") from failure
    where = "" if begun.machine.accelerators else " --infra local"
    say(
        f"wrote {path}; what it would cost: vlaunch train {path} --spot{where} --dry-run",
        as_json=as_json, recipe=path, begun_from=base,
    )  # fmt: skip
