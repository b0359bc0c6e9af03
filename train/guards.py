"""What a run must not go on with: data that changed under it, and numbers that are none any more. Each is a sentence
with what a person needs to find the cause.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from checkpoints.layout import Checkpoint
from checkpoints.stores import Store
from train import conversations
from train.errors import TrainError

DATA_SHA256 = "data.sha256"
"""Beside the run's recipe: the hash of the conversations it was begun with."""
_NAMED = 20
"""So many records are named in the sentence; all are in the run's event."""


def same_data(store: Store, path: Path, digest: str) -> None:
    """Note the hash of the conversations at a run's first attempt; at a later one raise TrainError where it differs,
    for rows in another order would pass as the same run.
    """
    if store.create(DATA_SHA256, digest.encode()):
        return
    kept = store.read(DATA_SHA256).decode()
    if kept != digest:
        raise TrainError(
            f"{path} is not what the run at {store.uri} was begun with: its sha256 is {digest[:12]}…, the run's is "
            f"{kept[:12]}…. Put the first file back to go on, or give the new one a run of its own."
        )


def not_finite(
    *, step: int, steps: int, loss: float, norm: float, path: Path, records: Sequence[int], last_good: Checkpoint | None
) -> str:
    """Why a step cannot be taken; `records` are the batch's, from 0."""
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
    names = conversations.record_names(path, records[:_NAMED])
    more = f" and {len(records) - _NAMED} more" if len(records) > _NAMED else ""
    good = f"the last good checkpoint is of step {last_good.step}" if last_good else "there is no checkpoint yet"
    return (
        f"At step {step}/{steps} {what}; the step was not taken, and {good}. The batch is of {path}: "
        f"{', '.join(names)}{more}. Look at these records, or lower train.learning_rate, and start a new run."
    )


def clip(parameters: Iterable[torch.nn.Parameter], most: float) -> float:
    """Scale the sharded gradients so that their common norm is at most `most`; what it was, the same on every rank.

    Summed in fp64: in fp32 the last bit would depend on the number of processes, and all later steps with it.
    """
    gradients = [_local(parameter.grad) for parameter in parameters if parameter.grad is not None]
    squares = torch.zeros((), dtype=torch.float64, device=gradients[0].device)
    for gradient in gradients:
        squares += torch.linalg.vector_norm(gradient, dtype=torch.float64) ** 2
    dist.all_reduce(squares)
    norm = math.sqrt(float(squares))
    if norm > most:
        torch._foreach_mul_(gradients, most / norm)
    return norm


def _local(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient
