"""Runs through the real SkyPilot on a real Slurm. Some scenarios go on at once, the longest first, each with nodes of
its own; a test waits for its scenario. They take minutes, most of it SkyPilot's own.
"""

import concurrent.futures
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from checkpoints.stores import open_store
from launcher import journal, launch
from launcher.recipe import load
from tests.cluster.cluster import RECIPE, Cluster
from tests.cluster.server import SPOT_USD_PER_HOUR
from tests.cluster.service import replica_replaced
from tests.fault_proxy import FaultProxy

pytestmark = pytest.mark.timeout(1200)  # the first test brings everything up
FAST = ("--rule", "tick_seconds=5", "--rule", "restart_minutes=1")
RETRY = ("--rule", "retry_minutes=0.2")
SOURCE = Path(__file__).resolve().parents[2]


def preempted(cluster: Cluster) -> None:
    """Taken away by an on-demand job, goes on in another partition, and ends as if nothing had been."""
    cluster.launch("preempted", ["spot-a", "spot-b"], steps=300)
    following = cluster.follow("preempted")
    assert following.stdout is not None
    assert any("[attempt 1] step" in line for line in following.stdout)
    cluster.committed("preempted")
    taker = cluster.slurm.take("a")
    report = cluster.wait("preempted")
    cluster.slurm.give_back(taker)
    said, _ = following.communicate(timeout=60)
    assert "[attempt 2] step 300/300" in said
    assert report["state"] == "finished"
    assert places(report) == ["spot-a", "spot-b"]
    assert report["preemptions"] == 1
    assert cluster.losses("preempted") == undisturbed(cluster, steps=300)
    paid = cluster.server.paid("preempted")
    assert [attempt["usd"] for attempt in report["attempts"]] == [round(usd, 2) for usd in paid]
    elsewhere = cluster.vlaunch("status", "preempted", "--store", cluster.bucket, "--json", elsewhere=True)
    assert msgspec.json.decode(elsewhere.stdout)["runs"][0] == report


def twice(cluster: Cluster) -> None:
    """Taken away, and taken away again while SkyPilot sets up the next machine, which is paid for."""
    cluster.launch("twice", ["spot-g", "spot-h", "spot-i"], *FAST, steps=200)
    cluster.committed("twice")
    cluster.slurm.take("g")
    cluster.until(lambda: cluster.server.came_up("twice") == 2, 240, "it gets no machine in spot-h")
    cluster.slurm.take("h")
    report = cluster.wait("twice")
    assert report["state"] == "finished"
    assert report["step"] == 200
    assert places(report) == ["spot-g", "spot-h", "spot-i"]
    assert report["attempts"][1]["usd"] > 0
    assert len(cluster.events("twice", "attempt_started")) == 2


def two_nodes(cluster: Cluster) -> None:
    """A task of two nodes loses one of them, and goes on with two others."""
    cluster.launch("pair", ["spot-kl", "spot-mn"], "--set", "machine.nodes=2", *FAST, steps=150)
    cluster.committed("pair")
    cluster.slurm.take("l")
    report = cluster.wait("pair")
    assert report["state"] == "finished"
    assert places(report) == ["spot-kl", "spot-mn"]
    started = cluster.events("pair", "attempt_started")
    assert [event["world_size"] for event in started] == [2, 2]


def on_demand_and_back(cluster: Cluster) -> None:
    """No spot and, by the estimate of the work, no time to wait: on demand. Spot again, and by the trainer's own pace
    time in hand: back, by way of a checkpoint. Cancelled from a machine that has seen no launch."""
    taker = cluster.slurm.take("c")
    cluster.launch("back", ["spot-c", "ondemand-d"], "--deadline", "60m", "--work", "58m", *FAST, *RETRY, steps=6000)
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
    cancelled(cluster, "back", "--store", cluster.bucket, elsewhere=True)


def budget(cluster: Cluster) -> None:
    """Stops with a checkpoint and no cluster left."""
    cluster.launch("budget", ["spot-f"], "--budget", "0.5", *FAST, steps=20000)
    report = cluster.wait("budget")
    assert report["state"] == "stopped"
    assert "--resume budget --budget" in report["why"]
    assert report["step"] > 0
    assert report["usd_spent"] <= 0.5
    assert not cluster.slurm.jobs("budget")


def failing(cluster: Cluster) -> None:
    """A task that fails by itself is started again as often as allowed, and then its own words are shown."""
    once = ("--rule", "max_restarts_on_errors=1")
    cluster.launch("failing", ["spot-e"], "--set", "model.base=/no/such/model", *FAST, *once)
    report = cluster.wait("failing")
    assert report["state"] == "failed"
    assert len(report["attempts"]) == 2
    said = cluster.vlaunch("logs", "failing").stdout
    assert "/no/such/model" in said


def waiting(cluster: Cluster) -> None:
    """With slack and no spot it waits, machine off; and can be cancelled."""
    cluster.slurm.take("j")
    cluster.launch("waiting", ["spot-j"], *FAST)
    cluster.until(
        lambda: [r for r in cluster.records("waiting") if r.facts.get("action") == "wait"], 240, "it does not wait"
    )
    assert not cluster.slurm.jobs("waiting")
    cancelled(cluster, "waiting")


def store_cut_off(cluster: Cluster) -> None:
    """The store goes away under a running strategy, and then the machine. SkyPilot's own way finds another; with the
    store back the run is steered again and ends, and it is said."""
    with FaultProxy(cluster.environment["AWS_ENDPOINT_URL"]) as proxy:
        cluster.launch("cut-off", ["spot-q", "spot-r"], *FAST, steps=200, endpoint=proxy.endpoint)
        cluster.committed("cut-off")
        proxy.plan = lambda method, path: "reset"
        cluster.slurm.take("q")
        cluster.until(lambda: cluster.slurm.on("r"), 300, "it does not go on in spot-r")
        proxy.plan = lambda method, path: ""
        report = cluster.wait("cut-off")
    assert report["state"] == "finished"
    assert places(report) == ["spot-q", "spot-r"]
    assert "store unreachable" in [decided["action"] for decided in report["decisions"]]
    steered = [record.facts["place"] for record in cluster.records("cut-off") if record.kind == "machine_started"]
    assert steered == ["slurm/sim/spot-q", "slurm/sim/spot-r"]


def without_plugin(cluster: Cluster) -> None:
    """Launched before the server had our plugin, so SkyPilot's own strategy recovers it; the restarts of the server,
    now with the plugin, do not end it."""
    report = cluster.wait("plain")
    assert report["state"] == "finished"
    # A server that restarts in the middle of a launch begins it again.
    assert (places(report)[0], places(report)[-1]) == ("spot-s", "spot-t")
    assert not report["decisions"]


def taken_unseen(cluster: Cluster) -> float:
    """The server and its controllers end, the machines of two runs are taken away while nobody watches, and the server
    comes again. Hours of nobody watching."""
    cluster.launch("outlives", ["spot-w", "spot-x"], *FAST, steps=300)
    cluster.committed("plain")
    cluster.committed("outlives")
    cluster.server.stop()
    cluster.slurm.take("s")
    cluster.slurm.take("w")
    cluster.until(lambda: not cluster.slurm.jobs(), 60, "their machines are not taken")
    unseen = time.monotonic()
    alone = cluster.report("outlives")
    assert alone["state"] == "running, by its last sign"
    assert "does not answer" in " ".join(alone["notes"])
    cluster.server.start()
    return (time.monotonic() - unseen) / 3600


def outlives(cluster: Cluster, unseen_hours: float) -> None:
    """The strategy goes on from what it has written, and the run is found and ends."""
    report = cluster.wait("outlives")
    assert report["state"] == "finished"
    assert places(report) == ["spot-w", "spot-x"]
    assert report["attempts"][0]["usd_late_detection"] >= round(unseen_hours * SPOT_USD_PER_HOUR["w"], 2)
    assert len([record for record in cluster.records("outlives") if record.kind == "launched"]) == 1


def cancelled_at_once(cluster: Cluster) -> None:
    """Before SkyPilot has asked for a machine."""
    cluster.launch("at-once", ["spot-o"])
    cancelled(cluster, "at-once")


def cancelled_in_setup(cluster: Cluster) -> None:
    """When Slurm has given the machine and SkyPilot is at work on it."""
    cluster.launch("in-setup", ["spot-p"])
    cluster.until(lambda: cluster.slurm.jobs("in-setup"), 240, "it gets no machine")
    cancelled(cluster, "in-setup")


def cancelled(cluster: Cluster, name: str, *arguments: str, elsewhere: bool = False) -> None:
    """`vlaunch cancel` returns when no machine is left."""
    done = cluster.vlaunch("cancel", name, *arguments, elsewhere=elsewhere)
    assert done.returncode == 0, done.stderr
    assert cluster.state(name) == "CANCELLED"
    assert not cluster.slurm.jobs(name)


def places(report: dict[str, Any]) -> list[str]:
    return [attempt["zone"].removeprefix("slurm/sim/") for attempt in report["attempts"]]


AT_ONCE = 3
"""More starve each other on two cores: a run is then slower than the deadlines and budgets it is to keep."""
SCENARIOS: dict[str, Callable[[Cluster], None]] = {
    scenario.__name__: scenario
    for scenario in (
        without_plugin,
        on_demand_and_back,
        replica_replaced,
        preempted,
        store_cut_off,
        twice,
        two_nodes,
        budget,
        failing,
        waiting,
        cancelled_at_once,
        cancelled_in_setup,
    )
}


@pytest.fixture(scope="module")
def going(cluster: Cluster) -> Iterator[dict[str, "concurrent.futures.Future[None]"]]:
    """Every scenario, under way or in the queue; first those in which the server ends, while nothing else needs it."""
    assert launch.WITHOUT_PLUGIN in cluster.launch("plain", ["spot-s", "spot-t"], steps=400)
    cluster.vlaunch("plugin", "install")
    cluster.server.stop()
    cluster.server.start()
    unseen_hours = taken_unseen(cluster)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        found = {"outlives": pool.submit(outlives, cluster, unseen_hours)}
        yield found | {name: pool.submit(scenario, cluster) for name, scenario in SCENARIOS.items()}


@pytest.mark.parametrize("name", ["outlives", *SCENARIOS])
def test_a_run_ends_as_it_should(going: dict[str, "concurrent.futures.Future[None]"], name: str) -> None:
    going[name].result(timeout=900)


def test_nothing_is_left(cluster: Cluster) -> None:
    cluster.slurm.give_all_back()
    cluster.until(lambda: not cluster.slurm.jobs(), 60, f"Slurm still has {cluster.slurm.jobs()}")
    cluster.until(lambda: not cluster.slurm.processes(), 60, "a process of a machine is left")


def undisturbed(cluster: Cluster, *, steps: int) -> dict[int, float]:
    """The losses of the same recipe trained here, with no launcher at all."""
    named = load(str(RECIPE), (f"train.max_steps={steps}",))
    folder = cluster.root / "undisturbed"
    subprocess.run(
        [sys.executable, "-m", "train.torchrun", "--standalone", "--nproc-per-node=1", "-m", "train"],
        env={
            **os.environ, "VLAUNCH_RECIPE": named.text, "VLAUNCH_RUN": "run", "VLAUNCH_STORE": str(folder),
            "OMP_NUM_THREADS": "1", "VLAUNCH_SCRATCH": str(cluster.root / "scratch"),
        },
        cwd=SOURCE, check=True, timeout=400, capture_output=True,
    )  # fmt: skip
    lines = journal.TrainerLog(open_store(str(folder)).inside("run")).metrics()
    return {line["step"]: line["loss"] for line in lines}
