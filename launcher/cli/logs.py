"""`vlaunch logs`: what a run has said."""

from pathlib import Path

import click

from launcher.cli.answer import say
from launcher.cli.completion import run_ids


@click.command()
@click.argument("run", shell_complete=run_ids)
@click.option("--follow", is_flag=True, help="Stay and print what comes, until the run ends.")
@click.option("--store", metavar="URI", help="Find RUN in this store, launched from whatever machine.")
@click.option(
    "--tensorboard", "board_folder", type=click.Path(path_type=Path), metavar="DIR",
    help="Write its metrics as TensorBoard's event files there instead.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print each line as a JSON object with the key line.")
def logs(run: str, *, follow: bool, store: str | None, board_folder: Path | None, as_json: bool) -> None:
    """What RUN has said so far."""
    import time

    from launcher.errors import RunError
    from launcher.ledger import Ledger, home
    from launcher.local import alive
    from launcher.runs import LOCAL, find, folder_of, latest_metrics, launched

    records = find(Ledger(home()), run, store=store)
    if board_folder is not None:
        from launcher import board

        steps = board.write(latest_metrics(records, parts=0), board_folder / records[0].run_id)
        said = f"wrote {steps} steps; look with: tensorboard --logdir {board_folder}"
        say(said, as_json=as_json, folder=board_folder, steps=steps)
        return
    if launched(records)["infra"] != LOCAL:
        _of_job(records[0].run_id, follow=follow, as_json=as_json)
        return
    folder = folder_of(records[0].run_id)
    path = folder / "log.txt"
    if not path.exists() and not (follow and alive(folder)):
        raise RunError(f"{run} has said nothing yet; its log would be {path}.")
    while not path.exists():
        time.sleep(0.2)
    with path.open(errors="replace") as log:
        while True:
            going = alive(folder)  # asked before reading, so that the last lines are not missed
            for line in log:
                _line(line.removesuffix("\n"), as_json=as_json)
            if not follow or not going:
                return
            time.sleep(0.3)


def _of_job(run_id: str, *, follow: bool, as_json: bool) -> None:
    from launcher import skypilot

    job = skypilot.job_of(run_id)
    for line in skypilot.follow_log(job.job_id) if follow else skypilot.log(job.job_id):
        _line(line, as_json=as_json)


def _line(line: str, *, as_json: bool) -> None:
    say(line, as_json=as_json, line=line)
