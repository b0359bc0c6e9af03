"""Where the finished model of a run is on this machine: in its store where that is a folder, else a copy of it."""

from pathlib import Path

import msgspec

from checkpoints.stores import open_store
from launcher.errors import RunError
from launcher.ledger import Ledger, home
from launcher.runs import find, launched


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model that is to be asked is: behind a URL or in a folder; and its training run, where known."""

    url: str = ""
    folder: Path | None = None
    run_id: str = ""


def find_model(model: str, run: str | None) -> Model:
    """What `--model URL|RUN|PATH` means; `run` names the run behind a URL or a folder. Raises RunError."""
    ledger = Ledger(home())
    run_id = find(ledger, run)[0].run_id if run else ""
    if "://" in model:
        return Model(url=model, run_id=run_id)
    folder = Path(model).expanduser()
    if (folder / "config.json").is_file():
        return Model(folder=folder, run_id=run_id)
    if folder.is_dir() or "/" in model:
        raise RunError(f"{model} is not a model: there is no {folder / 'config.json'}.")
    run_id, folder = export_of(ledger, model)
    return Model(folder=folder, run_id=run_id)


def export_of(ledger: Ledger, run: str) -> tuple[str, Path]:
    """The run's id and the folder with its model. Raises RunError where it has none yet, StoreError where its store
    cannot be read."""
    records = find(ledger, run)
    run_id = records[0].run_id
    uri = launched(records)["store"]
    if "://" not in uri and (folder := Path(uri).expanduser() / run_id / "export").is_dir():
        return run_id, folder
    store = open_store(uri).inside(run_id)
    names = [entry.name for entry in store.list("export/")]
    if not any(name.endswith("config.json") for name in names):
        raise RunError(f"{run_id} has no exported model in {uri}; it is written when a run finishes.")
    copy = home() / "exports" / run_id
    for name in names:
        path = copy / name.removeprefix("export/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.read(name))
    return run_id, copy
