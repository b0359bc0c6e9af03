"""The whole trainer is told to leave, by four voices, and comes back with another number of processes."""

import datetime
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from checkpoints.stores.folder import FolderStore
from tests.metadata_server import MetadataServer
from tests.warm_machine import Life, Machine
from train.config import INTERRUPTED

SELDOM = "checkpoints.every_seconds=3600"
ENDLESS = ["train.max_steps=100000", "train.epochs=100000"]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    running = Machine(tmp_path_factory.mktemp("machine"))
    yield running
    running.close()


def until_said(life: Life, text: str) -> None:
    deadline = time.monotonic() + 200
    while text not in life.said:
        assert not life.over(), life.said
        assert time.monotonic() < deadline, life.said
        time.sleep(0.02)


def events(run: FolderStore) -> list[dict[str, object]]:
    return [msgspec.json.decode(run.read(entry.name)) for entry in sorted(run.list("events/"), key=lambda e: e.name)]


@pytest.mark.parametrize("voice", ["aws", "gcp", "azure", "SIGTERM"])
def test_told_to_leave_every_rank_stops_at_one_step_and_its_state_is_committed(
    machine: Machine, tmp_path: Path, voice: str
) -> None:
    with MetadataServer() as server:
        place = {} if voice == "SIGTERM" else {"SKYPILOT_CLUSTER_INFO": json.dumps({"cloud": voice, "region": "r"})}
        life = machine.start("run", str(tmp_path), [*ENDLESS, SELDOM], {**server.environment, **place})
        until_said(life, "step 3/")
        announced = time.time()
        if voice == "SIGTERM":
            life.kill(signal.SIGTERM)
        else:
            server.announce(60)
        assert life.wait(200), life.said
    assert set(life.codes.values()) == {INTERRUPTED}, life.said
    found = {str(event["event"]): event for event in events(FolderStore(tmp_path / "run"))}
    at = datetime.datetime.fromisoformat(str(found["save_committed"]["at"])).timestamp()
    print(f"{voice}: committed {at - announced:.2f} s after the notice")
    assert found["save_committed"]["step"] == found["stopped"]["step"]
    assert voice.lower() in str(found["stopped"]["reason"]).lower().replace("google", "gcp")


def test_where_no_time_is_left_for_another_save_it_leaves_with_the_one_it_has(machine: Machine, tmp_path: Path) -> None:
    changes = [*ENDLESS, "checkpoints.every_seconds=0.5"]
    life = machine.start("run", str(tmp_path), changes, {"VLAUNCH_GRACE_SECONDS": "0.01"})
    until_said(life, "committed:")
    life.kill(signal.SIGTERM)
    assert life.wait(200), life.said
    assert set(life.codes.values()) == {INTERRUPTED}, life.said
    saves = [
        int(str(event["step"])) for event in events(FolderStore(tmp_path / "run")) if event["event"] == "save_committed"
    ]
    assert f"step {saves[-1]} is committed" in life.said


def losses(run: Path) -> dict[int, float]:
    """The loss of each step; where it was done twice, the last one's."""
    found: dict[int, float] = {}
    for path in sorted((run / "metrics").glob("*")):
        found |= {line["step"]: line["loss"] for line in map(msgspec.json.decode, path.read_bytes().splitlines())}
    return found


def test_two_processes_then_one_then_two_lose_nothing_and_learn_the_same(machine: Machine, tmp_path: Path) -> None:
    changes = ["train.max_steps=60", "train.precision=fp32", SELDOM]
    alone = machine.start("alone", str(tmp_path), changes)
    assert alone.wait(200), alone.said
    assert alone.finished, alone.said
    for processes, last in ((2, "step 15/"), (1, "step 30/")):
        life = machine.start("elastic", str(tmp_path), changes, processes=processes)
        until_said(life, last)
        life.kill(signal.SIGTERM)
        assert life.wait(200), life.said
    end = machine.start("elastic", str(tmp_path), changes)
    assert end.wait(200), end.said
    assert end.finished, end.said
    assert "resumed from the checkpoint of step" in end.said
    want, got = losses(tmp_path / "alone"), losses(tmp_path / "elastic")
    assert set(want) == set(got) == set(range(1, 61))
    assert max(abs(want[step] - got[step]) for step in want) < 1e-5
