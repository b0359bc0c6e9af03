"""A person at the test cluster: types vlaunch's commands and reads what a run has left in its bucket."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from checkpoints.stores import open_store
from launcher import journal
from launcher.ledger import Record
from launcher.recipe import load
from tests.cluster.server import ON_DEMAND_USD_PER_HOUR, SPOT_USD_PER_HOUR, SkyServer
from tests.cluster.slurm import Slurm

RECIPE = Path(__file__).with_name("tiny.toml")
SECRETS = load(str(RECIPE)).recipe.machine.secrets


class Cluster:
    """The cluster, its server, and the bucket of the runs."""

    def __init__(self, root: Path, slurm: Slurm, server: SkyServer, bucket: str, environment: dict[str, str]) -> None:
        self.root = root
        self.slurm = slurm
        self.server = server
        self.bucket = bucket
        self.environment = {**server.environment, **{name: environment[name] for name in SECRETS}, "NO_COLOR": "1"}

    def vlaunch(
        self, *arguments: str, elsewhere: bool = False, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """The command, here or on a machine that has seen no launch."""
        home = {"VLAUNCH_HOME": str(self.root / "elsewhere")} if elsewhere else {}
        return subprocess.run(
            [sys.executable, "-m", "launcher", *arguments], env={**self.environment, **home, **environment},
            cwd=self.root, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip

    def follow(self, name: str) -> "subprocess.Popen[str]":
        """`vlaunch logs --follow`, under way."""
        return subprocess.Popen(
            [sys.executable, "-m", "launcher", "logs", name, "--follow"], env=self.environment, cwd=self.root,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def launch(self, name: str, places: list[str], *arguments: str, steps: int = 40, endpoint: str = "") -> str:
        """Send a run that may use these partitions, and return when SkyPilot has it; what was said besides the plan.
        `endpoint` is where it finds its bucket, if that is not the bucket's own."""
        recipe = self.with_places(RECIPE, name, places)
        done = self.vlaunch(
            "train", str(recipe), "--spot", "--infra", "slurm/sim", "--yes", "--name", name, "--detach",
            "--set", f"checkpoints.store={self.bucket}", "--set", f"train.max_steps={steps}", *arguments,
            **({"AWS_ENDPOINT_URL": endpoint} if endpoint else {}),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stderr

    def with_places(self, given: Path, name: str, places: list[str]) -> Path:
        """A recipe or spec with these partitions."""
        text = given.read_text()
        for place in places:
            kind, _, zone = place.partition("-")
            usd = SPOT_USD_PER_HOUR[zone] if kind == "spot" else ON_DEMAND_USD_PER_HOUR
            text += (
                f'\n[[machine.places]]\ninfra = "slurm/sim/{place}"\nusd_per_hour = {usd}\n'
                f"spot = {'true' if kind == 'spot' else 'false'}\n"
            )
        path = self.root / f"{name}.toml"
        path.write_text(text)
        return path

    def wait(self, name: str) -> dict[str, Any]:
        """Until the run is over; its report."""
        self.until(lambda: self.server.done(name), 600, f"{name} does not end")
        return self.report(name)

    def state(self, name: str) -> str:
        """Of the newest job, in SkyPilot's words."""
        return (self.server.states(name) or [""])[-1]

    def report(self, name: str) -> dict[str, Any]:
        import msgspec

        done = self.vlaunch("status", name, "--json")
        assert done.returncode == 0, done.stderr
        return msgspec.json.decode(done.stdout)["runs"][0]

    def records(self, name: str) -> list[Record]:
        """What the controller has written."""
        return journal.read(open_store(self.bucket).inside(name))

    def events(self, name: str, kind: str) -> list[dict[str, Any]]:
        """What the trainer has written."""
        found = journal.TrainerLog(open_store(self.bucket).inside(name)).events()
        return [event for event in found if event["event"] == kind]

    def losses(self, name: str) -> dict[int, float]:
        """Of each step; where it was done twice, the last."""
        return {
            line["step"]: line["loss"] for line in journal.TrainerLog(open_store(self.bucket).inside(name)).metrics()
        }

    def committed(self, name: str, attempt: int = 1) -> None:
        """Until this attempt has committed a checkpoint."""
        self.until(
            lambda: [event for event in self.events(name, "save_committed") if event["attempt"] == attempt],
            300, f"attempt {attempt} of {name} commits nothing",
        )  # fmt: skip

    def until(self, what: Callable[[], Any], seconds: float, why: str) -> Any:
        """What `what()` returns once it is true."""
        over = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < over, why
            time.sleep(1)
        return found
