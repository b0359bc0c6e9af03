"""A service through the real SkyServe on the test cluster: a real gateway and worker, and an engine without a model.

SkyServe asks a replica at the port that the service names, and all machines here are one, so there is one replica.
"""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import msgspec

from tests.cluster.cluster import Cluster
from tests.servers import free_ports

SPEC = Path(__file__).with_name("service.toml")
TOKEN = "of-the-test-cluster"


def replica_replaced(cluster: Cluster) -> None:
    """A replica is taken away; SkyServe starts another elsewhere, which dials the same gateway. `vlaunch down` leaves
    nothing."""
    (port,) = free_ports(1)
    gateway = f"http://127.0.0.1:{port}"
    environment = {**cluster.environment, "VLAUNCH_WORKER_TOKEN": TOKEN}
    command = [sys.executable, "-m", "launcher", "gateway", "--port", str(port)]
    with (cluster.root / "gateway.log").open("w") as log:
        running = subprocess.Popen(command, env=environment, cwd=cluster.root, stdout=log, stderr=log)
    try:
        served(cluster, gateway)
    finally:
        running.terminate()
        running.wait(30)


def served(cluster: Cluster, gateway: str) -> None:
    spec = cluster.with_places(SPEC, "service", ["spot-u", "spot-v"])
    up = cluster.vlaunch(
        "serve", str(spec), "--infra", "slurm/sim", "--gateway", gateway, "--yes", VLAUNCH_WORKER_TOKEN=TOKEN
    )
    assert up.returncode == 0, up.stderr
    name = up.stderr.splitlines()[-1].split(" comes up")[0]
    try:
        replaced(cluster, gateway)
    finally:
        down = cluster.vlaunch("down", name)
    assert down.returncode == 0, down.stderr
    assert not cluster.slurm.jobs(name)
    report = msgspec.json.decode(cluster.vlaunch("cost", "report", name, "--json").stdout)
    attempts = report["runs"][0]["attempts"]
    assert [attempt["zone"] for attempt in attempts] == ["slurm/sim/spot-u", "slurm/sim/spot-v"]
    assert all(attempt["usd"] for attempt in attempts)


def replaced(cluster: Cluster, gateway: str) -> None:
    cluster.until(lambda: answer(gateway), 400, "no replica answers")
    assert cluster.slurm.on("u")
    cluster.slurm.take("u")
    cluster.until(lambda: not answer(gateway), 60, "the replica is not taken away")
    cluster.until(lambda: answer(gateway), 400, "the replica is not replaced")
    assert cluster.slurm.on("v")


def answer(gateway: str) -> str:
    """To a question asked through the gateway; empty where there is none."""
    body = {"model": "tiny-chat", "messages": [{"role": "user", "content": "count"}], "max_tokens": 3}
    request = urllib.request.Request(
        f"{gateway}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answered:
            return str(json.load(answered)["choices"][0]["message"]["content"])
    except (urllib.error.URLError, TimeoutError):
        return ""
