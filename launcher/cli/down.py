"""`vlaunch down`: take services down and leave nothing of them."""

import click


@click.command()
@click.argument("names", nargs=-1, metavar="[SERVICE]...")
@click.option("--all", "everything", is_flag=True, help="Every service that is up.")
@click.option("--json", "as_json", is_flag=True, help="Print the services that were taken down as JSON.")
def down(names: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Take services down. Without SERVICE, the one that is up, if it is the only one."""
    import json

    from launcher import services
    from launcher.errors import RunError
    from launcher.ledger import Ledger, home

    ledger = Ledger(home())
    running = services.up(ledger)
    if not names and not everything and len(running) > 1:
        raise RunError(f"Several services are up: {', '.join(running)}. Name one, or say --all.")
    wanted = [services.find(ledger, name)[0] for name in names] or running
    for service in wanted:
        services.down(service, ledger)
        if not as_json:
            click.echo(f"{service} is down")
    if as_json:
        click.echo(json.dumps({"down": wanted}))
    elif not wanted:
        click.echo("No service is up.")
