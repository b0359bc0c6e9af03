"""`vlaunch check`: what is ready for a launch, and what to do about the rest."""

import sys

import click


@click.command()
@click.argument("recipe", required=False)
@click.option("--store", metavar="URI", help="Look at this store instead of the recipe's.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON: name, ok (null: a hint), found, fix.")
def check(recipe: str | None, store: str | None, as_json: bool) -> None:
    """SkyPilot, its server, clouds, plugin, store and secrets, one line each. Exit code 1 where one is not ready.

    Without RECIPE it is vicuna-7b.
    """
    import msgspec

    from launcher import ready
    from launcher.recipe import DEFAULT, load

    lines = ready.look(load(recipe or DEFAULT), store)
    if as_json:
        click.echo(msgspec.json.encode(lines).decode())
    else:
        for line in lines:
            mark = {True: "ok  ", False: "no  ", None: "    "}[line.ok]
            click.echo(f"{mark}{line.name}: {line.found}" + (f" -> {line.fix}" if line.fix else ""))
    sys.exit(1 if any(line.ok is False for line in lines) else 0)
