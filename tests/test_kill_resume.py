"""A run that is killed at five moments ends bit for bit like one that nobody touched."""

import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from launcher import recipe
from launcher.local import kill_all

ROOT = Path(__file__).resolve().parent.parent
SEED = int(os.environ.get("KILL_SEED", "20261123"))
STEPS = 20


class Machine:
    """The tiny recipe under torchrun, on a store that halts at a moment of the test's choosing."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.run = folder / "store" / name
        self.attempts = 0

    def train(self, kill_at: str = "", kill_step: int = 0, delay: float = 0.0) -> str:
        """One attempt; its output. With `kill_at`, everything is killed at that moment."""
        self.attempts += 1
        halted = self.folder / f"{self.name}-{self.attempts}-halted"
        mark = f"kill-test-{os.getpid()}"
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "VLAUNCH_MACHINE": mark,
            "VLAUNCH_RECIPE": recipe.load("tiny", ["checkpoints.every_seconds=0.2"]).text,
            "VLAUNCH_STORE": str(self.folder / "store"),
            "VLAUNCH_RUN": self.name,
            "VLAUNCH_SCRATCH": str(self.folder / f"scratch-{self.name}-{self.attempts}"),
            "KILL_AT": kill_at,
            "KILL_STEP": str(kill_step),
            "KILL_SIGNAL": str(halted),
        }
        command = [
            sys.executable,
            "-m",
            "train.torchrun",
            "--standalone",
            "--nproc-per-node=2",
            "-m",
            "tests.killed_trainer",
        ]
        output = self.folder / f"{self.name}-{self.attempts}.txt"
        with output.open("w") as said:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT)
            if kill_at:
                self._wait(lambda: self._come(kill_at, kill_step, halted, output), process, output)
                time.sleep(delay)
                kill_all(mark)
            code = process.wait(timeout=300)
        assert bool(kill_at) == (code != 0), output.read_text()
        return output.read_text()

    @staticmethod
    def _come(kill_at: str, kill_step: int, halted: Path, output: Path) -> bool:
        return f"step {kill_step}/{STEPS}" in output.read_text() if kill_at == "step" else halted.exists()

    @staticmethod
    def _wait(come: Any, process: "subprocess.Popen[bytes]", output: Path) -> None:
        deadline = time.monotonic() + 240
        while not come():
            assert process.poll() is None, f"it ended before the moment came:\n{output.read_text()}"
            assert time.monotonic() < deadline, f"the moment never came:\n{output.read_text()}"
            time.sleep(0.01)

    def losses(self) -> dict[int, set[float]]:
        """Every loss that any attempt reported for a step: one value a step, if nothing has diverged."""
        found: dict[int, set[float]] = {}
        for path in sorted((self.run / "metrics").glob("*")):
            for line in path.read_bytes().splitlines():
                fields = msgspec.json.decode(line)
                found.setdefault(fields["step"], set()).add(fields["loss"])
        return found

    def weights(self) -> bytes:
        return (self.run / "export" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    machine = Machine(tmp_path_factory.mktemp("undisturbed"), "undisturbed")
    machine.train()
    assert set(machine.losses()) == set(range(1, STEPS + 1))
    return machine


@pytest.mark.timeout(900)
def test_a_run_killed_at_five_moments_ends_bit_for_bit_like_one_that_was_not(
    undisturbed: Machine, tmp_path: Path
) -> None:
    draw = random.Random(SEED)
    step = iter(sorted(draw.sample(range(1, STEPS - 2), 4)))
    moments: list[tuple[str, int]] = [
        ("start", 0),
        *((m, next(step)) for m in ("step", "save", "before-manifest", "after-manifest")),
    ]
    machine = Machine(tmp_path, "killed")
    for moment, at in moments:
        said = machine.train(moment, at, delay=draw.uniform(0, 0.05) if moment == "step" else 0)
        print(f"seed {SEED}: killed at {moment} (step {at} on) after: {said.splitlines()[-1:]}")
    said = machine.train()
    resumed = re.search(r"resumed from the checkpoint of step (\d+)", said)
    assert resumed, said
    assert int(resumed[1]) >= moments[-1][1]  # right after the manifest the checkpoint is there
    killed, reference = machine.losses(), undisturbed.losses()
    assert killed == reference
    assert all(len(values) == 1 for values in killed.values())
    assert machine.weights() == undisturbed.weights()


def test_an_older_attempt_that_is_still_alive_stops_itself(undisturbed: Machine) -> None:
    from checkpoints.run import Attempt
    from checkpoints.stores.folder import FolderStore

    store = FolderStore(undisturbed.run)
    old = Attempt(store, undisturbed.attempts)
    assert old.newer() is None
    Attempt.begin(store, {"place": "elsewhere"})
    assert old.newer() == undisturbed.attempts + 1
