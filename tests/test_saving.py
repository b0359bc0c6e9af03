"""When a save is begun, and when it is skipped."""

from pathlib import Path
from typing import Any

import pytest

from checkpoints.cadence import Cadence
from checkpoints.config import CheckpointConfig
from checkpoints.run import Attempt
from checkpoints.stores.folder import FolderStore
from train.machine import Machine
from train.progress import Progress
from train.saving import Saving


class OneSaver:
    """A saver of which only matters whether it is at work."""

    busy = False
    on_begin: Any = None
    on_commit: Any = None


def test_a_save_that_is_due_while_one_is_going_is_skipped_and_said_and_never_waits_in_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    attempt, saver = Attempt.begin(FolderStore(tmp_path), {}), OneSaver()
    cadence = Cadence(CheckpointConfig(every_seconds=60), life_seconds=3600)
    progress = Progress(attempt, Machine("nowhere", None, ""), None)
    unused: Any = None
    saving = Saving(saver, cadence, unused, attempt, progress, dict)  # type: ignore[arg-type]
    assert not saving.due()
    now += 61
    saver.busy = True
    assert not saving.due()
    assert "a save is due while the last one is still going; it is skipped" in capsys.readouterr().out
    saver.busy = False
    assert not saving.due()  # the next one is due an interval after the skipped one
    now += 61
    assert saving.due()
