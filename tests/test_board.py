"""Metrics as TensorBoard reads them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from launcher.cli import vlaunch
from tests.ledgers import Home


def test_every_step_is_there_once_with_its_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLAUNCH_HOME", str(tmp_path / "home"))
    home = Home(tmp_path / "home")
    run = home.two_machines()
    folder = home.store / run / "metrics"
    folder.mkdir()
    for attempt, steps, shift in ((1, (1, 2, 3), 0.0), (2, (3, 4), 0.5)):  # step 3 was done again
        lines = [
            {"at": f"2026-11-23T12:0{step}:00Z", "step": step, "loss": step + shift, "mfu": None, "goodput": 0.5}
            for step in steps
        ]
        (folder / f"{attempt:04d}-000001.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = CliRunner().invoke(vlaunch, ["logs", run, "--tensorboard", str(tmp_path / "board")])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("wrote 4 steps")
    found = EventAccumulator(str(tmp_path / "board" / run)).Reload()
    assert sorted(found.Tags()["scalars"]) == ["goodput", "loss"]
    assert [(each.step, each.value) for each in found.Scalars("loss")] == [(1, 1.0), (2, 2.0), (3, 3.5), (4, 4.5)]
