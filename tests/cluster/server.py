"""SkyPilot's real API server under a home of its own, whose one cloud is the test cluster."""

import contextlib
import getpass
import json
import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.cluster.slurm import NODES, PAIRS, Slurm

SOURCE = Path(__file__).resolve().parents[2]
PORT = 46580
"""SkyPilot's own; its controllers expect the server there."""
_QUEUE_PORT = 50011
"""Where the server's own processes meet; SkyPilot's too."""
CLOUD = "slurm/sim"
SPOT_USD_PER_HOUR = {zone: 9.6 + number * 0.1 for number, zone in enumerate((*NODES, *PAIRS))}
ON_DEMAND_USD_PER_HOUR = 32.8
"""Of a node with eight pretended A100s; the prices are this file's, and the first of two zones is the cheaper."""


class SkyServer:
    """The server, and its commands."""

    def __init__(self, root: Path, slurm: Slurm) -> None:
        self.root = root
        self.slurm = slurm
        self.home = root / "sky-home"

    def prepare(self) -> None:
        """A home in which SkyPilot finds the cluster and needs nothing from the internet."""
        for folder in (".sky/catalogs/v8/common", ".slurm", ".ssh"):
            (self.home / folder).mkdir(parents=True)
        key = self.root / "etc" / "user_key"
        (self.home / ".slurm" / "config").write_text(
            f"Host sim\n    HostName 127.0.0.1\n    Port {self.slurm.ssh_port}\n    User {getpass.getuser()}\n"
            f"    IdentityFile {key}\n    IdentitiesOnly yes\n"
        )
        (self.home / ".slurm" / "config").chmod(0o600)
        catalog = self.home / ".sky" / "catalogs" / "v8" / "common"
        (catalog / "accelerators.csv").write_text("AcceleratorName,Clouds\nA100,\"['Slurm']\"\n")
        (catalog / "metadata.csv").write_text("GPU,MemoryGB,Manufacturer\nA100,40,nvidia\n")
        (self.home / ".sky" / "config.yaml").write_text(yaml.safe_dump(self._config()))

    def start(self) -> None:
        """Up, and with the cluster enabled: a server that has just started has no cloud until its first check ends."""
        for command in (["sky", "api", "start"], ["sky", "check", "slurm"]):
            subprocess.run(command, env=self.environment, check=True, timeout=300)

    def stop(self) -> None:
        """The server and its controllers."""
        subprocess.run(["sky", "api", "stop"], env=self.environment, check=True, timeout=120)

    def end(self) -> None:
        """Nothing of it runs any more, however it was left."""
        while processes := self.processes():  # one that is killed may just have started another
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, 10)

    def processes(self) -> set[psutil.Process]:
        """Every process under the server's home, and their children: those that name themselves have overwritten
        where their environment stood."""
        found = set[psutil.Process]()
        for process in psutil.process_iter():
            try:
                if process.environ().get("HOME") == str(self.home):
                    found |= {process, *process.children(recursive=True)}
            except psutil.Error:
                continue
        return found - {psutil.Process()}

    def states(self, run: str) -> list[str]:
        """SkyPilot's own state of each job of a run, oldest first. Read where the server keeps it: to be asked costs it
        two seconds of a CPU, and every scenario looks all the time."""
        query = "select s.status from spot s join job_info j using (spot_job_id) where j.name = ? order by s.job_id"
        with contextlib.closing(sqlite3.connect(f"file:{self.home}/.sky/spot_jobs.db?mode=ro", uri=True)) as database:
            return [state for (state,) in database.execute(query, (run,))]

    def came_up(self, run: str) -> int:
        """How many machines of a run the cloud has given, whether or not they were then set up."""
        query = "select count(instances_ready) from launch_attempts where cluster_name like ?"
        with contextlib.closing(sqlite3.connect(f"file:{self.home}/.sky/state.db?mode=ro", uri=True)) as database:
            (found,) = database.execute(query, (f"{run}-%",)).fetchone()
        return int(found)

    def done(self, run: str) -> bool:
        """Whether SkyPilot has cleaned up after the run, machine and all."""
        with contextlib.closing(sqlite3.connect(f"file:{self.home}/.sky/spot_jobs.db?mode=ro", uri=True)) as database:
            found = [
                state for (state,) in database.execute("select schedule_state from job_info where name = ?", (run,))
            ]
        return bool(found) and set(found) == {"DONE"}

    def paid(self, run: str) -> list[float]:
        """Dollars of each cluster of a run by SkyPilot's own records, oldest first."""
        script = (
            "import json, sky\n"
            f"rows = [r for r in sky.get(sky.cost_report(days=30)) if r['name'].startswith('{run}-')]\n"
            "rows.sort(key=lambda row: row['usage_intervals'][0][0])\n"
            "print(json.dumps([row['total_cost'] for row in rows]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        return [float(usd) for usd in json.loads(done.stdout.splitlines()[-1])]

    @property
    def environment(self) -> dict[str, str]:
        """For SkyPilot's commands and for vlaunch's."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SKYPILOT_", "SKY_", "AWS_"))}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        return {
            **kept,
            "HOME": str(self.home),
            "PATH": f"{sys.prefix}/bin:{kept['PATH']}",
            "PYTHONPATH": f"{Path(__file__).with_name('startup')}:{SOURCE}",
            "VLAUNCH_HOME": str(self.root / "vlaunch-home"),
            "SLURM_CONF": str(self.root / "etc" / "slurm.conf"),
            "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
            # By the whole machine's size the server starts more workers than a small machine can.
            "SKYPILOT_POD_MEMORY_GB_LIMIT": "8",
            "SKYPILOT_POD_CPU_CORE_LIMIT": "2",
        }

    def _config(self) -> dict[str, Any]:
        spot = {f"spot-{zone}": usd for zone, usd in SPOT_USD_PER_HOUR.items()}
        demand = {f"ondemand-{zone}": ON_DEMAND_USD_PER_HOUR for zone in (*NODES, *PAIRS)}
        return {
            "allowed_clouds": ["slurm"],
            "jobs": {"controller": {"consolidation_mode": True}},
            "serve": {"controller": {"consolidation_mode": True}},
            "slurm": {
                "provision_timeout": 20,
                "cluster_configs": {
                    "sim": {
                        "workdir": str(self.root / "work"),
                        "tmpdir": str(self.root / "tmp"),
                        "partition_configs": {
                            zone: {"pricing": {"cpu": 0.0, "memory": 0.0, "accelerators": {"A100": usd / 8}}}
                            for zone, usd in {**spot, **demand}.items()
                        },
                    }
                },
            },
        }


def taken_ports() -> list[int]:
    """Of those that a server listens on."""
    found = []
    for port in (PORT, _QUEUE_PORT):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                found.append(port)
    return found
