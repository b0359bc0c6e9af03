"""What a run notes of its time: useful, paid, and their ratio over several attempts."""

from pathlib import Path

import msgspec
import pytest

from checkpoints.run import Attempt, lives
from checkpoints.stores.folder import FolderStore
from launcher.journal import TrainerLog
from train.machine import Machine
from train.progress import Progress, spent_before, useful_until


def train(store: FolderStore, steps: range, usd_per_hour: float | None = 3600.0) -> Progress:
    """An attempt that does `steps`, each of a tenth of a second by its own word."""
    attempt = Attempt.begin(store, {})
    progress = Progress(attempt, Machine("aws/a", usd_per_hour, "a test"), *spent_before(store, attempt.number))
    progress.resumed(store, steps[0] - 1)
    for step in steps:
        progress.step(step, 9, loss=1.0, norm=1.0, rate=1e-3, tokens=50, seconds=0.1)
    attempt.flush()
    return progress


def lines(store: FolderStore) -> list[dict[str, float]]:
    names = sorted(entry.name for entry in store.list("metrics/"))
    return [msgspec.json.decode(line) for name in names for line in store.read(name).splitlines()]


def test_goodput_is_useful_over_paid_seconds_and_a_step_done_again_counts_once(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    train(store, range(1, 6))
    assert useful_until(store, 3) == pytest.approx(0.3)
    train(store, range(4, 8))  # the checkpoint was of step 3: 4 and 5 are done again
    noted = lines(store)
    assert noted[-1]["useful_seconds"] == pytest.approx(0.7)
    assert [line["paid_seconds"] for line in noted] == sorted(line["paid_seconds"] for line in noted)
    for line in noted:
        assert line["goodput"] == line["useful_seconds"] / line["paid_seconds"]
        assert line["tokens_per_second"] == pytest.approx(500)
        assert line["save_stall_seconds"] >= 0


def test_without_a_gpu_there_is_no_utilisation_and_with_a_peak_it_is_a_share_of_it(tmp_path: Path) -> None:
    import torch

    from train import model

    network = torch.nn.Linear(10, 10)
    assert model.utilisation(network, 8) is None
    store = FolderStore(tmp_path)
    progress = train(store, range(1, 2))
    progress.utilisation = 1 / 1000
    progress.step(2, 9, loss=1.0, norm=1.0, rate=1e-3, tokens=50, seconds=0.1)
    assert progress.attempt is not None
    progress.attempt.flush()
    assert [line["mfu"] for line in lines(store)] == [None, pytest.approx(0.5)]


def test_dollars_are_unknown_as_soon_as_one_attempt_has_no_price(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    train(store, range(1, 3), usd_per_hour=None)
    train(store, range(3, 5))
    assert lines(store)[-1]["usd"] is None


@pytest.mark.parametrize("damaged", [b"", b'{"step": 5, "usd', b"\xff\xfe{"])
def test_what_a_run_has_said_of_itself_may_be_damaged_and_it_goes_on(tmp_path: Path, damaged: bytes) -> None:
    store = FolderStore(tmp_path)
    train(store, range(1, 6))
    store.write("events/0001-000001.json", [damaged])
    for name in [entry.name for entry in store.list("") if entry.name.startswith(("metrics/", "attempts/"))]:
        store.write(name, [damaged])
    assert lives(store, before=2) == []
    train(store, range(4, 8))
    assert [line["step"] for line in TrainerLog(store).metrics()] == [4, 5, 6, 7]
