"""`vlaunch logs`: what a run has said."""

import click

from launcher.cli.completion import run_ids


@click.command()
@click.argument("run", shell_complete=run_ids)
@click.option("--follow", is_flag=True, help="Stay and print what comes, until the run ends.")
def logs(run: str, follow: bool) -> None:
    """What RUN has said so far."""
    import time

    from launcher.errors import RunError
    from launcher.ledger import Ledger, home
    from launcher.local import alive
    from launcher.runs import find, folder_of

    folder = folder_of(find(Ledger(home()), run)[0].run_id)
    path = folder / "log.txt"
    if not path.exists() and not (follow and alive(folder)):
        raise RunError(f"{run} has said nothing yet; its log would be {path}.")
    while not path.exists():
        time.sleep(0.2)
    with path.open(errors="replace") as log:
        while True:
            going = alive(folder)  # asked before reading, so that the last lines are not missed
            for line in log:
                click.echo(line, nl=False)
            if not follow or not going:
                return
            time.sleep(0.3)
