"""Writes task_yamls/: what the cloud recipes and specs render to. `python -m launcher.yamls` writes, with --check
compares.

The run of a committed task is named like its recipe, and the bucket is left to be named at launch; so is the gateway
of a committed service. A gateway's own machine is a task as well.
"""

import sys
from pathlib import Path

from launcher import gateway_yaml, launch, recipe, serve, serve_spec, task_yaml
from launcher.ledger import Ledger

FOLDER = Path(__file__).resolve().parent.parent / "task_yamls"


def rendered() -> dict[str, str]:
    """File name to text, for every recipe that asks for an accelerator."""
    texts = {}
    for name in recipe.names():
        named = recipe.load(name)
        if named.recipe.machine.accelerators:
            prepared = launch.prepare(named, spot=True, infra=None, zones=(), max_price=None, run_id=name)
            texts[f"{name}.yaml"] = prepared.text
    return texts | services() | {"gateway.yaml": task_yaml.to_text(gateway_yaml.task(), gateway_yaml.HEADER)}


def services() -> dict[str, str]:
    """The same of every spec that asks for an accelerator."""
    texts = {}
    for name in recipe.names(serve_spec.FOLDERS):
        named = serve_spec.load(name)
        if named.spec.machine.accelerators:
            # No run is served by a spec that comes with vlaunch, so no ledger is read.
            prepared = serve.prepare(named, Ledger(FOLDER), service=name)
            texts[f"{name}.service.yaml"] = prepared.text
    return texts


def main(arguments: list[str]) -> int:
    """Write the files, or say which differ."""
    texts = rendered()
    if "--check" not in arguments:
        for name, text in texts.items():
            (FOLDER / name).write_text(text)
        return 0
    on_disk = {path.name: path.read_text() for path in FOLDER.glob("*.yaml")}
    stale = sorted(name for name in texts.keys() | on_disk.keys() if texts.get(name) != on_disk.get(name))
    for name in stale:
        print(f"task_yamls/{name} is not what its recipe renders to; run: make yamls")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
