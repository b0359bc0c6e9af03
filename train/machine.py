"""What the machine says of itself through SkyPilot's variables: where it is and what it costs an hour."""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from train.errors import TrainError

RECIPE = "VLAUNCH_RECIPE"
STORE = "VLAUNCH_STORE"
RUN = "VLAUNCH_RUN"
PRICES = "VLAUNCH_PRICES"
SCRATCH = "VLAUNCH_SCRATCH"


@dataclass(frozen=True)
class Machine:
    """Where an attempt runs."""

    place: str
    """SkyPilot's form: `aws/us-east-1/use1-az1`; `unknown` where nothing says it."""
    usd_per_hour: float | None
    """None where the launcher gave no price for the place; dollars are then not shown."""
    price_source: str


def here(environment: Mapping[str, str]) -> Machine:
    """This machine, by SKYPILOT_CLUSTER_INFO and the launcher's table of prices."""
    info = json.loads(environment.get("SKYPILOT_CLUSTER_INFO", "{}"))
    parts = [str(info.get("cloud") or "").lower(), info.get("region"), info.get("zone")]
    place = "/".join(str(part) for part in parts if part) or "unknown"
    prices = json.loads(environment.get(PRICES, "{}"))
    usd = prices.get("usd_per_hour", {}).get(place)
    return Machine(place, usd, prices.get("source", "") if usd is not None else "no price is known for this place")


def required(environment: Mapping[str, str], name: str) -> str:
    """A variable the task sets. Raises TrainError where it is empty."""
    value = environment.get(name, "")
    if not value:
        raise TrainError(f"{name} is not set; vlaunch's task YAML sets it, and `sky jobs launch --env {name}=…` does.")
    return value


def scratch() -> Path:
    """A folder on the machine's own disk; nothing in it outlives the machine."""
    folder = Path(os.environ.get(SCRATCH) or tempfile.gettempdir(), "vlaunch-scratch")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
