"""What is known of runs: the ledger's records joined with the events and metrics in each run's own store."""

import concurrent.futures
import contextlib
import difflib
import os
from pathlib import Path
from typing import Any

import msgspec

from checkpoints.stores import Store, StoreError, open_store
from launcher import journal, managed, served
from launcher.errors import RunError
from launcher.ledger import Ledger, Record, Runs, home
from launcher.local import alive
from launcher.machines import RunFacts

LOCAL = "local"
"""The infra that is this machine."""


def folder_of(run_id: str) -> Path:
    """Where this machine keeps a run's log, lock and simulated disks."""
    return home() / "runs" / run_id


def find(ledger: Ledger, run_id: str, known: Runs | None = None, store: str | None = None) -> list[Record]:
    """The records of a run, by its id or an unambiguous beginning of it. Raises RunError.

    `known` is the ledger's reading, where several runs are looked for. With `store` it is found by its full id and
    what is kept there, which any machine can read.
    """
    if store is not None:
        return managed.launch_in(store, run_id)
    runs = ledger.runs() if known is None else known
    if run_id in runs:
        return runs[run_id]
    begun = [name for name in runs if name.startswith(run_id)]
    if len(begun) == 1:
        return runs[begun[0]]
    if not runs:
        raise RunError(f"There is no run '{run_id}': the ledger {ledger.path} is empty.")
    if begun:
        some = ", ".join(begun[:5]) + (f" and {len(begun) - 5} more" if len(begun) > 5 else "")
        raise RunError(f"'{run_id}' could be {some}; say which.")
    near = difflib.get_close_matches(run_id, runs, n=1)
    hint = f"Did you mean {near[0]}?" if near else "`vlaunch status` lists them."
    raise RunError(f"There is no run '{run_id}'. {hint}")


def recent(runs: Runs, most: int) -> list[str]:
    """The newest `most` runs and whatever is going on, oldest first."""
    newest = set(list(runs)[-most:])
    going = {run for run in runs.unended if run in newest or alive(folder_of(run))}
    return [run for run in runs if run in newest or run in going]


def latest_metrics(records: list[Record], parts: int = 12) -> list[dict[str, Any]]:
    """The lines of the last few objects of metrics of a run, of all with 0. Raises StoreError."""
    store = open_store(launched(records)["store"]).inside(records[0].run_id)
    names = _names(store, "metrics/")[-parts:]
    return [msgspec.json.decode(line) for name in names for line in store.read(name).splitlines()]


def launched(records: list[Record]) -> dict[str, Any]:
    """The facts a run was launched with. Raises RunError where the ledger has lost them."""
    for record in records:
        if record.kind == "run":
            return record.facts
    raise RunError(f"The ledger has lost how {records[0].run_id} was launched.")


def facts(records: list[Record]) -> RunFacts:
    """All that is known of the run with these records. A store that cannot be read is said in `store_unread`."""
    run_id = records[0].run_id
    folder = folder_of(run_id)
    over = records[-1].kind == "ended"
    seen = Seen.load(folder)
    unread = ""
    if not (seen.whole and over):  # of a run that is over, everything has been seen before
        try:
            seen.update(open_store(launched(records)["store"]).inside(run_id))
        except StoreError as failure:
            unread = str(failure)
        else:
            seen.whole = over
            seen.keep(folder)
            if over and not seen.events and records[-1].facts["state"] == "finished":
                unread = f"nothing of it is in its store any more ({launched(records)['store']})"
    found = RunFacts(
        run_id=run_id,
        records=records,
        events=[seen.events[name] for name in sorted(seen.events)],
        metrics=[seen.metrics[name] for name in sorted(seen.metrics)],
        alive=not over and alive(folder),
        store_unread=unread,
    )
    about = launched(records)
    kept_here = any(record.kind == "machine_started" for record in records)
    if about.get("infra", LOCAL) == LOCAL or kept_here:
        return found
    if about.get("service"):
        return _with_skyserve(found, about, folder, over=over)
    return found if over else _with_skypilot(found, folder)


def _with_skyserve(service: RunFacts, about: dict[str, Any], folder: Path, *, over: bool) -> RunFacts:
    now = served.look(service.run_id, [part["service"] for part in about["parts"]], folder, over=over)
    return msgspec.structs.replace(
        service,
        records=[*service.records, *now.machines],
        alive=not over,
        state=now.state,
        skypilot_unread=now.unread,
    )


def _with_skypilot(run: RunFacts, folder: Path) -> RunFacts:
    now = managed.look(run.run_id, launched(run.records)["store"], run.events, folder)
    return msgspec.structs.replace(
        run,
        records=[*run.records, *now.machines],
        alive=now.state in ("starting", "running", "recovering") or now.paying,
        state=now.state,
        why=now.why,
        decisions=journal.decisions(now.journal),
        skypilot_unread=now.unread,
    )


class Seen(msgspec.Struct, kw_only=True):
    """What has been read of a run's store. Its objects never change, so none is read twice from a bucket."""

    events: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    """The last line of the last object of each attempt, by the object's name."""
    whole: bool = False
    """Read after the run had ended: there is nothing more to come."""

    @classmethod
    def load(cls, folder: Path) -> "Seen":
        try:
            with open(f"{folder}/{_SEEN_NAME}", "rb") as file:
                return _SEEN.decode(file.read())
        except (FileNotFoundError, msgspec.DecodeError):  # it is a copy; the store has it all
            return cls()

    def keep(self, folder: Path) -> None:
        """Write it down for the next time; a copy that cannot be kept costs only time."""
        if not self.events:
            return
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            partial = folder / f"{_SEEN_NAME}.{os.getpid()}"
            partial.write_bytes(msgspec.json.encode(self))
            partial.replace(folder / _SEEN_NAME)

    def update(self, store: Store) -> None:
        """Read what is new. Raises StoreError."""
        new = [name for name in _names(store, "events/") if name not in self.events]
        last = {name.split("-")[0]: name for name in _names(store, "metrics/")}
        parts = [name for name in last.values() if name not in self.metrics]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:  # small objects: a bucket answers each in 30 ms
            read = dict(zip([*new, *parts], pool.map(store.read, [*new, *parts]), strict=True))
        self.events |= {name: msgspec.json.decode(read[name]) for name in new}
        lines = {name: msgspec.json.decode(read[name].splitlines()[-1]) for name in parts}
        self.metrics = {name: lines.get(name) or self.metrics[name] for name in last.values()}


_SEEN_NAME = "seen.json"
_SEEN = msgspec.json.Decoder(Seen)


def _names(store: Store, prefix: str) -> list[str]:
    """In the order they were written: attempt, then sequence."""
    return sorted(entry.name for entry in store.list(prefix))
