"""What a run refuses to go on with, by real attempts of one process."""

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from launcher import recipe
from train.config import REFUSED

ROOT = Path(__file__).resolve().parent.parent


def attempt(folder: Path, *changes: str, processes: int = 1) -> tuple[int, str]:
    """One attempt of the tiny recipe on `folder`'s data; exit code and output."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "VLAUNCH_RECIPE": recipe.load("tiny", ["data.conversations=data.jsonl", "train.max_steps=3", *changes]).text,
        "VLAUNCH_STORE": str(folder / "store"),
        "VLAUNCH_RUN": "run",
        "VLAUNCH_SCRATCH": str(folder / "scratch"),
        "PYTHONPATH": str(ROOT),
    }
    command = [
        sys.executable, "-m", "train.torchrun", "--standalone", f"--nproc-per-node={processes}", "-m", "train"
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


def write_data(folder: Path, count: int = 40) -> None:
    lines = [
        {"id": f"chat-{n}", "conversations": [{"from": "human", "value": f"{n}?"}, {"from": "gpt", "value": "a" * n}]}
        for n in range(1, count + 1)
    ]
    (folder / "data.jsonl").write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """A run whose weights grow beyond all measure at the first step."""
    folder = tmp_path_factory.mktemp("run")
    write_data(folder)
    return folder, *attempt(folder, "train.learning_rate=1e30", "checkpoints.every_seconds=0.0001", processes=2)


def test_a_step_that_is_not_finite_stops_with_step_records_and_last_good_checkpoint(run: tuple[Path, int, str]) -> None:
    folder, code, said = run
    assert code == REFUSED, said
    last = said.strip().splitlines()[-1]
    assert re.search(r"At step 2/3 the (loss|gradient's norm) is (nan|inf); the step was not taken", last), said
    assert "the last good checkpoint is of step 1" in last
    assert re.search(r"line \d+, record (\d+) \(id chat-\1\)", last)
    assert "Traceback" not in said
    events = [msgspec.json.decode(path.read_bytes()) for path in (folder / "store/run/events").iterdir()]
    (stopped,) = (event for event in events if event["event"] == "stopped")
    assert stopped["reason"] == "not finite"
    assert stopped["records"]


def test_conversations_that_changed_between_attempts_are_refused_by_their_hash(run: tuple[Path, int, str]) -> None:
    folder, _, _ = run
    write_data(folder, count=39)
    code, said = attempt(folder, "train.learning_rate=1e30", "checkpoints.every_seconds=0.0001", processes=2)
    assert code == REFUSED, said
    assert re.search(r"data\.jsonl is not what the run at .* was begun with: its sha256 is \w{12}…", said)
    assert "Traceback" not in said
