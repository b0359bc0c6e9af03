"""What is known of runs: the ledger's records joined with the events and metrics in each run's own store."""

import difflib
from pathlib import Path
from typing import Any

import msgspec

from checkpoints.stores import Store, open_store
from launcher.errors import RunError
from launcher.ledger import Ledger, Record, home
from launcher.local import alive
from launcher.report import RunFacts


def folder_of(run_id: str) -> Path:
    """Where this machine keeps a run's log, lock and simulated disks."""
    return home() / "runs" / run_id


def find(ledger: Ledger, run_id: str) -> list[Record]:
    """The records of a run, by its id or an unambiguous beginning of it. Raises RunError."""
    runs = ledger.runs()
    if run_id in runs:
        return runs[run_id]
    begun = [name for name in runs if name.startswith(run_id)]
    if len(begun) == 1:
        return runs[begun[0]]
    if not runs:
        raise RunError(f"There is no run '{run_id}': the ledger {ledger.path} is empty.")
    if begun:
        raise RunError(f"'{run_id}' could be {', '.join(begun)}; say which.")
    near = difflib.get_close_matches(run_id, runs, n=1)
    hint = f"Did you mean {near[0]}?" if near else "`vlaunch status` lists them."
    raise RunError(f"There is no run '{run_id}'. {hint}")


def launched(records: list[Record]) -> dict[str, Any]:
    """The facts a run was launched with. Raises RunError where the ledger has lost them."""
    for record in records:
        if record.kind == "run":
            return record.facts
    raise RunError(f"The ledger has lost how {records[0].run_id} was launched.")


def facts(records: list[Record]) -> RunFacts:
    """All that is known of the run with these records. Raises checkpoints.stores.StoreError where its store
    cannot be read."""
    run_id = records[0].run_id
    store = open_store(launched(records)["store"]).inside(run_id)
    return RunFacts(
        run_id=run_id,
        records=records,
        events=[msgspec.json.decode(store.read(name)) for name in _names(store, "events/")],
        metrics=[
            msgspec.json.decode(line) for name in _names(store, "metrics/") for line in store.read(name).splitlines()
        ],
        alive=alive(folder_of(run_id)),
    )


def _names(store: Store, prefix: str) -> list[str]:
    """In the order they were written: attempt, then sequence."""
    return sorted(entry.name for entry in store.list(prefix))
