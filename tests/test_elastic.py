"""A run that goes on with another number of processes, and comes back."""

from pathlib import Path

import pytest

from tests.attempts import Run
from train.config import INTERRUPTED

STEPS = range(1, 15)


def test_from_two_processes_to_one_and_back_the_losses_are_those_of_the_undisturbed_run(tmp_path: Path) -> None:
    # Four groups of rows a step, so that what is summed by one process and by two is summed in another order.
    changes = f"train.max_steps={STEPS[-1]}", "train.global_batch=8"
    undisturbed, moved = (Run(tmp_path / name, *changes) for name in ("undisturbed", "moved"))
    code, said = undisturbed.attempt(2)
    assert code == 0, said
    for processes, leave_after in ((2, 3), (1, 7)):
        code, said = moved.attempt(processes, leave_after=leave_after)
        assert code == INTERRUPTED, said
    code, said = moved.attempt(2)
    assert code == 0, said
    alone = moved.processes.index(1) + 1  # the first step of the attempt with one process
    assert 1 < alone < len(STEPS)
    assert set(moved.losses()) == set(undisturbed.losses()) == set(STEPS)
    for step, losses in moved.losses().items():
        (reference,), (loss,) = undisturbed.losses()[step], losses
        assert loss == reference if step < alone else loss == pytest.approx(reference, rel=1e-5)
