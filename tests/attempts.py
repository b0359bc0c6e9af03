"""Attempts of the trainer as a machine makes them, on a folder store, for tests."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from launcher import recipe

ROOT = Path(__file__).resolve().parent.parent


class Run:
    """A run of the tiny recipe with `changes` to it, in `folder`."""

    def __init__(self, folder: Path, *changes: str) -> None:
        self.folder = folder
        self.store = folder / "store" / "run"
        self.processes: list[int] = []
        """How many took each step that was done."""
        self.environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "VLAUNCH_RECIPE": recipe.load("tiny", changes).text,
            "VLAUNCH_STORE": str(folder / "store"),
            "VLAUNCH_RUN": "run",
            "VLAUNCH_SCRATCH": str(folder / "scratch"),
        }

    def attempt(self, processes: int = 2, *, leave_after: int = 0) -> tuple[int, str]:
        """One attempt; its exit code and output. It is told to leave when step `leave_after` is done."""
        command = [
            sys.executable,
            "-m",
            "train.torchrun",
            "--standalone",
            f"--nproc-per-node={processes}",
            "-m",
            "train",
        ]
        said = []
        with subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                said.append(line)
                if "  loss " in line:
                    self.processes.append(processes)
                if leave_after and f" step {leave_after}/" in line:
                    process.send_signal(signal.SIGTERM)
        return process.returncode, "".join(said)

    def losses(self) -> dict[int, set[float]]:
        """Every loss that any attempt reported for a step."""
        found: dict[int, set[float]] = {}
        for path in sorted((self.store / "metrics").iterdir()):
            for line in path.read_bytes().splitlines():
                fields = msgspec.json.decode(line)
                found.setdefault(fields["step"], set()).add(fields["loss"])
        return found

    def exported(self) -> bytes:
        return (self.store / "export" / "model.safetensors").read_bytes()
