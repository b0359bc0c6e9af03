"""Services that are up: what the ledger says of them, and keeping them up, changing them and taking them down on this
machine.
"""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from checkpoints.stores import open_store
from launcher import runs, served, skyserve
from launcher.errors import RecipeError, RunError
from launcher.ledger import Ledger, home
from launcher.local import SOURCE, alive, kill_all, listen
from launcher.recipe import LocalConfig
from launcher.runs import LOCAL
from launcher.serve import Part, Prepared
from launcher.serve_ask import Asking
from launcher.serve_local import LocalService, Version, marks, order, ordered
from launcher.serve_spec import ReplicasConfig
from market.offers import Offer

_FETCH_BYTES = 64 << 20
_LOOK_SECONDS = 2.0
_TAKEN_OVER_SECONDS = 180.0
"""Making a model out of a package comes first."""


def record(prepared: Prepared, ledger: Ledger, *, port: int) -> None:
    """Write the service into the ledger, as a run with `service` true, with the prices that hold now."""
    spec, first = prepared.named.spec, prepared.parts[0].plan
    ledger.append(
        "run", prepared.service,
        service=True, recipe=prepared.named.name, recipe_text=prepared.named.text, task_yaml=prepared.text,
        parts=[_facts_of(part) for part in prepared.parts],
        store=str(home() / "store"), infra=prepared.infra or "", spot=prepared.spot,
        simulated=prepared.infra == LOCAL, gateway=prepared.gateway or f"http://127.0.0.1:{port}", port=port,
        replicas=msgspec.to_builtins(spec.replicas), local=msgspec.to_builtins(spec.local),
        offers=[msgspec.to_builtins(offer) for offer in first.offers],
        on_demand=msgspec.to_builtins(first.on_demand),
        on_demand_usd_per_hour=first.on_demand.usd_per_hour if first.on_demand else None,
        price_source=f"{first.offers[0].price_source}, {first.offers[0].price_date}",
    )  # fmt: skip


def make_models(parts: Sequence[dict[str, Any]]) -> None:
    """Put every model that is not a folder on this machine yet into one. Raises RunError and StoreError."""
    for part in parts:
        folder = Path(part["source"])
        if folder.parent != home() / "models" or folder.is_dir():
            continue
        folder.parent.mkdir(parents=True, exist_ok=True)
        if "://" in part["made_from"]:
            _fetch(part["made_from"], folder)
            continue
        made = subprocess.run(
            [sys.executable, "-m", "train.base", part["made_from"], part["template"] or "chatml", str(folder)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if made.returncode:
            raise RunError((made.stdout.strip() or made.stderr.strip()).splitlines()[-1].removeprefix("vlaunch: "))


def find(ledger: Ledger, service: str) -> tuple[str, dict[str, Any]]:
    """A service's id and how it was brought up. Raises RunError."""
    records = runs.find(ledger, service)
    facts = runs.launched(records)
    if not facts.get("service"):
        raise RunError(f"{records[0].run_id} is a training run, not a service; `vlaunch status` lists both.")
    return records[0].run_id, facts


def up(ledger: Ledger) -> list[str]:
    """Services that were brought up and not taken down."""
    found = []
    for service, records in ledger.runs().items():
        brought_up = any(r.kind == "run" and r.facts.get("service") for r in records)
        if brought_up and records[-1].kind != "ended":
            found.append(service)
    return found


def run_here(service: str, ledger: Ledger, say: Callable[[str], None], questions: Sequence[str] = ()) -> None:
    """Run a recorded local service until it is stopped, or until its questions are answered. Raises RunError."""
    service, facts = find(ledger, service)
    if facts["infra"] != LOCAL:
        raise RunError(f"{service} runs on {facts['infra'] or 'a cloud'}, where SkyServe keeps it up.")
    make_models(facts["parts"])
    folder = runs.folder_of(service)
    texts = {part["model"]: part["text"] for part in facts["parts"]}
    local = LocalService(
        service,
        texts,
        msgspec.convert(facts["offers"], list[Offer]),
        msgspec.convert(facts["on_demand"], Offer),
        msgspec.convert(facts["replicas"], ReplicasConfig),
        msgspec.convert(facts["local"], LocalConfig),
        folder,
        ledger,
        say,
        token=_token(folder),
        port=facts["port"],
        spot=facts["spot"],
    )
    listen(local.stop)
    asking = Asking(local, questions, say)
    if questions:
        asking.begin()
    local.run()
    if questions:
        asking.check()


def update_here(service: str, ledger: Ledger, prepared: Prepared) -> None:
    """Have a local service that is up go over to the models of `prepared`, a replica at a time. Raises RunError."""
    service, facts = find(ledger, service)
    folder = runs.folder_of(service)
    if not alive(folder):
        raise RunError(f"{service} is not up; bring it up with: vlaunch serve --resume {service}")
    names = [part["model"] for part in facts["parts"]]
    for part in prepared.parts:
        if part.model.name not in names:
            raise RunError(
                f"{service} serves {', '.join(names)}; write --model {names[0]}=SOURCE for new weights under that name."
            )
    make_models([_facts_of(part) for part in prepared.parts])
    last = max((version.number for version in ordered(folder)), default=1)
    for part in prepared.parts:
        order(folder, Version(number=last + 1, model=part.model.name, text=part.text))


def wait_until_kept(service: str) -> None:
    """Until the process that keeps a service up has taken it over; a `vlaunch down` before that would miss it.
    Raises RunError."""
    folder = runs.folder_of(service)
    over = time.monotonic() + _TAKEN_OVER_SECONDS
    while not (alive(folder) and (folder / "pid").exists()):
        if time.monotonic() > over:
            raise RunError(f"{service} did not come up; what it said is in {folder / 'launcher.txt'}.")
        time.sleep(0.1)


def down(service: str, ledger: Ledger) -> None:
    """Nothing of the service is left when this returns. Raises RunError."""
    _, facts = find(ledger, service)
    if facts["infra"] == LOCAL:
        _down_here(service, ledger)
    else:
        _down_cloud(service, facts, ledger)


def _down_here(service: str, ledger: Ledger) -> None:
    folder = runs.folder_of(service)
    if alive(folder):
        os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
    while alive(folder):
        time.sleep(0.1)
    for mark in marks(service):  # of a launcher that was killed
        kill_all(mark)
    if service in up(ledger):
        ledger.append("ended", service, state="stopped", why="its launcher had died")


def check_cloud(prepared: Prepared) -> None:
    """What a cloud would find out too late. Raises RecipeError, MissingPart."""
    if prepared.gateway is None:
        raise RecipeError(
            "Replicas must know which gateway to dial: --gateway https://your-gateway, an address that they reach "
            "(`vlaunch gateway` runs one here, task_yamls/gateway.yaml one on a machine of its own). To try the same "
            "service here: vlaunch serve --spot --infra local"
        )
    for part in prepared.parts:
        skyserve.secrets_of(part.text)


def send(prepared: Prepared, *, update: bool) -> None:
    """Give SkyServe the very texts that were shown. Raises RunError."""
    for part in prepared.parts:
        if update:
            skyserve.update(part.text, SOURCE)
        else:
            skyserve.up(part.text, SOURCE)


def _down_cloud(service: str, facts: dict[str, Any], ledger: Ledger) -> None:
    for part in facts["parts"]:
        skyserve.down(part["service"])
    for part in facts["parts"]:
        while skyserve.replicas(part["service"]) is not None:
            time.sleep(_LOOK_SECONDS)
    ledger.append("ended", service, state="stopped", why="taken down")
    names = [part["service"] for part in facts["parts"]]
    served.look(service, names, runs.folder_of(service), over=True)  # what it cost in all is kept


def _facts_of(part: Part) -> dict[str, Any]:
    return {
        "service": part.service, "model": part.model.name, "source": part.model.source, "made_from": part.made_from,
        "template": part.model.template, "text": part.text,
    }  # fmt: skip


def _token(folder: Path) -> str:
    """The secret of this service's workers, for whoever may read the folder."""
    path = folder / "worker-token"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(24))
    return path.read_text()


def _fetch(uri: str, folder: Path) -> None:
    """The objects at `uri` as files of `folder`, which is there whole or not at all."""
    store, partial = open_store(uri), folder.with_name(f"{folder.name}.partial")
    for entry in store.list():
        path = partial / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for offset in range(0, entry.size, _FETCH_BYTES):
                file.write(store.part(entry.name, offset, _FETCH_BYTES))
    if not partial.is_dir():
        raise RunError(f"There is nothing at {uri}.")
    partial.rename(folder)
