"""`vlaunch down`: take services down and leave nothing of them."""

import click

from launcher.cli.answer import json_option, say


@click.command()
@click.argument("names", nargs=-1, metavar="[SERVICE]...")
@click.option("--all", "everything", is_flag=True, help="Every service that is up.")
@json_option
def down(names: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Take services down. Without SERVICE, the one that is up, if it is the only one."""
    from launcher import services
    from launcher.errors import RunError
    from launcher.ledger import Ledger, home

    ledger = Ledger(home())
    running = services.up(ledger)
    if not names and not everything and len(running) > 1:
        raise RunError(f"Several services are up: {', '.join(running)}. Name one, or say --all.")
    wanted = [services.find(ledger, name)[0] for name in names] or running
    for service in wanted:
        services.down(service, ledger)  # may take minutes, so each is said when it is done
        if not as_json:
            click.echo(f"{service} is down")
    if as_json or not wanted:
        say("No service is up.", as_json=as_json, down=wanted)
