"""`vlaunch cancel`: end a run and its machines."""

import click

from launcher.cli.answer import json_option, say


@click.command()
@click.argument("run")
@click.option("--store", metavar="URI", help="Find RUN in this store, launched from whatever machine.")
@json_option
def cancel(run: str, store: str | None, *, as_json: bool) -> None:
    """End RUN; what was committed stays, and `vlaunch train --resume RUN` goes on from there.

    Returns when no machine of it is left.
    """
    from launcher.ledger import Ledger, home
    from launcher.runs import LOCAL, find, launched

    records = find(Ledger(home()), run, store=store)
    run_id = records[0].run_id
    if launched(records)["infra"] == LOCAL:
        _here(run_id)
    else:
        _there(run_id)
    say(f"{run_id} is cancelled; go on with: vlaunch train --resume {run_id}", as_json=as_json, cancelled=run_id)


def _here(run_id: str) -> None:
    import os
    import signal
    import time

    from launcher.errors import RunError
    from launcher.local import alive, launcher_of
    from launcher.runs import folder_of

    folder = folder_of(run_id)
    if not alive(folder):
        raise RunError(f"{run_id} is not running; `vlaunch status {run_id}` says how it stands.")
    os.kill(launcher_of(folder), signal.SIGTERM)  # it saves, leaves, and records that it was stopped
    while alive(folder):
        time.sleep(0.2)


def _there(run_id: str) -> None:
    import time

    from launcher import skypilot
    from launcher.errors import RunError

    job = skypilot.job_of(run_id)
    if job.over:
        raise RunError(f"{run_id} is over already: {job.state}.")
    skypilot.cancel(job.job_id)
    while not (job := skypilot.job_of(run_id)).over:  # SkyPilot takes down the machines before it says so
        time.sleep(5)  # a look costs a small server seconds of CPU
    if job.state != "cancelled":
        raise RunError(f"{run_id} {job.state} before it could be cancelled. {job.why}".rstrip())
