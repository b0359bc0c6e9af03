"""`vlaunch export`: a run's checkpoint as an ordinary Hugging Face folder."""

import click


@click.command()
@click.argument("run")
@click.option("--step", type=int, metavar="N", help="A committed step; the newest without it.")
@click.option("--out", required=True, type=click.Path(), metavar="DIR", help="An empty or new folder.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def export(run: str, step: int | None, out: str, as_json: bool) -> None:
    """Write the checkpoint of RUN into DIR, in the form every Hugging Face loader reads.

    RUN is a run of `vlaunch status`, or where one is kept: s3://bucket/path/RUN, gs://bucket/path/RUN or a folder,
    with a slash in it. Adapters of a [lora] recipe are merged into their base. It is done tensor by tensor, with
    less memory than the model takes, and what was written is verified. The JSON has step, bytes, files and out.
    """
    import importlib.util
    import json
    import subprocess
    import sys

    from launcher.errors import MissingPart

    if importlib.util.find_spec("torch") is None:
        raise MissingPart("Exporting needs the trainer's libraries: pip install 'vlaunch[train]'")
    command = [sys.executable, "-m", "train.export", _place(run), "--out", out]
    command += [] if step is None else ["--step", str(step)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)  # its sentences go to our standard error
    if done.returncode:
        sys.exit(done.returncode)
    if as_json:
        click.echo(done.stdout.strip())
        return
    written = json.loads(done.stdout)
    click.echo(
        f"step {written['step']} in {written['out']}: {written['bytes'] / 1e6:,.1f} MB of weights in "
        f"{written['files']} files, verified"
    )


def _place(run: str) -> str:
    """Where the run is kept, as `train.export` takes it."""
    if "/" in run:
        return run
    from launcher.ledger import Ledger, home
    from launcher.runs import find, launched

    records = find(Ledger(home()), run)
    return f"{launched(records)['store'].rstrip('/')}/{records[0].run_id}"
