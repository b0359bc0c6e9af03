"""Runs through the real SkyPilot on a real Slurm. All scenarios go on at once, each with nodes of its own; a test waits
for its scenario. They take minutes, most of it SkyPilot's own.
"""

import concurrent.futures
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from checkpoints.stores import open_store
from launcher import journal
from launcher.recipe import load
from tests.cluster.cluster import RECIPE, Cluster

FAST = ("--rule", "tick_seconds=5", "--rule", "retry_minutes=0.2", "--rule", "restart_minutes=1")
SOURCE = Path(__file__).resolve().parents[2]


def preempted(cluster: Cluster) -> None:
    """Taken away by an on-demand job, goes on in another partition, and ends as if nothing had been."""
    cluster.launch("preempted", ["spot-a", "spot-b"], steps=300)
    cluster.committed("preempted")
    taker = cluster.slurm.take("a")
    report = cluster.wait("preempted")
    cluster.slurm.give_back(taker)
    assert report["state"] == "finished"
    assert [attempt["zone"] for attempt in report["attempts"]] == ["slurm/sim/spot-a", "slurm/sim/spot-b"]
    assert report["preemptions"] == 1
    assert cluster.losses("preempted") == undisturbed(cluster, steps=300)
    paid = cluster.server.paid("preempted")
    assert [attempt["usd"] for attempt in report["attempts"]] == [round(usd, 2) for usd in paid]
    elsewhere = cluster.vlaunch("status", "preempted", "--store", cluster.bucket, "--json")
    assert '"state":"finished"' in elsewhere.stdout


def on_demand_and_back(cluster: Cluster) -> None:
    """No spot and the deadline near: on demand. Spot again, with time in hand: back, by way of a checkpoint."""
    taker = cluster.slurm.take("c")
    cluster.launch(
        "back", ["spot-c", "ondemand-d"], "--deadline", "7m", "--work", "5m", *FAST, steps=1500
    )  # fmt: skip
    cluster.until(
        lambda: any(r.facts.get("place") == "slurm/sim/ondemand-d" for r in cluster.records("back")),
        300, "it does not go on demand",
    )  # fmt: skip
    cluster.committed("back")
    cluster.slurm.give_back(taker)
    cluster.until(
        lambda: [r for r in cluster.records("back") if r.kind == "machine_started"][-1].facts["spot"],
        300, "it does not come back to spot",
    )  # fmt: skip
    assert cluster.events("back", "stopped"), "it left without a checkpoint"
    assert cluster.vlaunch("cancel", "back").returncode == 0


def budget(cluster: Cluster) -> None:
    """Stops with a checkpoint and no cluster left."""
    cluster.launch("budget", ["spot-f"], "--budget", "0.4", *FAST, steps=20000)
    report = cluster.wait("budget")
    assert report["state"] == "stopped"
    assert "--resume budget --budget" in report["why"]
    assert report["step"] > 0
    assert not [name for name in cluster.slurm.jobs() if name.startswith("budget")]


def failing(cluster: Cluster) -> None:
    """A task that fails by itself is started again as often as allowed, and then its own words are shown."""
    cluster.launch("failing", ["spot-e"], "--set", "model.base=/no/such/model", *FAST)
    report = cluster.wait("failing")
    assert report["state"] == "failed"
    said = cluster.vlaunch("logs", "failing").stdout
    assert "/no/such/model" in said


SCENARIOS: dict[str, Callable[[Cluster], None]] = {
    scenario.__name__: scenario for scenario in (preempted, on_demand_and_back, budget, failing)
}


@pytest.fixture(scope="module")
def going(cluster: Cluster) -> Iterator[dict[str, "concurrent.futures.Future[None]"]]:
    """Every scenario, started."""
    with concurrent.futures.ThreadPoolExecutor(len(SCENARIOS)) as pool:
        yield {name: pool.submit(scenario, cluster) for name, scenario in SCENARIOS.items()}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_run_ends_as_it_should(going: dict[str, "concurrent.futures.Future[None]"], name: str) -> None:
    going[name].result(timeout=600)


def test_nothing_is_left(cluster: Cluster, going: dict[str, "concurrent.futures.Future[None]"]) -> None:
    concurrent.futures.wait(going.values(), timeout=600)
    cluster.until(lambda: not cluster.slurm.jobs(), 60, f"Slurm still has {cluster.slurm.jobs()}")
    cluster.until(lambda: not cluster.slurm.processes(), 60, "a process of a machine is left")


def undisturbed(cluster: Cluster, *, steps: int) -> dict[int, float]:
    """The losses of the same recipe trained here, with no launcher at all."""
    named = load(str(RECIPE), (f"train.max_steps={steps}",))
    folder = cluster.root / "undisturbed"
    subprocess.run(
        [sys.executable, "-m", "train.torchrun", "--standalone", "--nproc-per-node=2", "-m", "train"],
        env={
            **os.environ, "VLAUNCH_RECIPE": named.text, "VLAUNCH_RUN": "run", "VLAUNCH_STORE": str(folder),
            "OMP_NUM_THREADS": "1", "VLAUNCH_SCRATCH": str(cluster.root / "scratch"),
        },
        cwd=SOURCE, check=True, timeout=400, capture_output=True,
    )  # fmt: skip
    lines = journal.trainer_metrics(open_store(str(folder)).inside("run"))
    return {line["step"]: line["loss"] for line in lines}
