"""One attempt: find the newest checkpoint, train from there, save on a cadence of time, leave when told.

The order of a step is the same on every rank; what one rank alone knows (a notice, that a save is due, that a
newer attempt has taken over) travels with the loss, so all act on it after the same step.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from checkpoints.blocks import Corrupt
from checkpoints.cadence import Cadence
from checkpoints.fence import Fence
from checkpoints.run import Attempt
from checkpoints.saver import Saver
from checkpoints.sharded import committed, load_first_whole
from checkpoints.stores import Store
from train import attention, guards
from train.config import TrainConfig, TrainerRecipe
from train.data import Batch, Rows
from train.errors import TrainError
from train.loss import weighted_loss
from train.preemption import Notice
from train.progress import Progress
from train.saving import Saving


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """The rate at `step` (from 0) of `steps`: linear warm-up, then the schedule down to 0 at the end."""
    warmup = math.ceil(config.warmup_fraction * steps)
    peak = config.learning_rate
    if step < warmup:
        return peak * (step + 1) / warmup
    if config.schedule == "constant":
        return peak
    share = (step - warmup) / max(1, steps - warmup)
    return 0.5 * peak * (1 + math.cos(math.pi * share))


@dataclass
class Signals:
    """What ranks tell each other at a step's end. Anything above 0 is true."""

    loss: float = 0.0
    notice: float = 0.0
    save_due: float = 0.0
    superseded: float = 0.0

    def reduced(self) -> "Signals":
        vector = torch.tensor([self.loss, self.notice, self.save_due, self.superseded], dtype=torch.float64)
        vector = vector.cuda() if torch.cuda.is_available() else vector
        dist.all_reduce(vector)
        return Signals(*vector.tolist())


class Trainer:
    """Trains one attempt of a run."""

    def __init__(
        self,
        recipe: TrainerRecipe,
        *,
        model: Any,
        optimizer: torch.optim.Optimizer,
        accelerate: Any,
        rows: Rows,
        store: Store,
        attempt: Attempt | None,
        attempt_number: int,
        recipe_sha256: str,
        life_seconds: float,
        fence: Fence,
        notice: Notice,
        progress: Progress,
    ) -> None:
        self.recipe = recipe
        self.config = recipe.train
        self.model = model
        self.optimizer = optimizer
        self.accelerate = accelerate
        self.rows = rows
        self.store = store
        self.attempt = attempt
        """Rank 0's; None on the others."""
        self.notice = notice
        self.progress = progress
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.kernel = str(model.config._attn_implementation)
        self.tied = bool(model.config.tie_word_embeddings)
        self.steps = rows.steps(
            epochs=self.config.epochs, global_batch=self.config.global_batch, max_steps=self.config.max_steps
        )
        self.step = 0
        """Steps done."""
        self.tokens_seen = 0
        self._group = dist.new_group(backend="gloo")
        saver = Saver(store, attempt_number, group=self._group, recipe_sha256=recipe_sha256)
        cadence = Cadence(recipe.checkpoints, life_seconds)
        self.saving = Saving(saver, cadence, fence, attempt, progress, self._state)

    def resume(self) -> int:
        """Load the newest whole checkpoint, if there is one; the step it was taken after."""
        found = committed(self.store, self._group, self.progress.say)
        if not found:
            return 0
        state = self._state()
        while True:
            try:
                manifest, self.saving.damaged = load_first_whole(
                    self.store, found, state, group=self._group, say=self.progress.say
                )
                break
            except Corrupt as failure:
                before, found = found, committed(self.store, self._group)
                if found == before:  # else an older attempt was still saving, and deleted what we read
                    raise TrainError(
                        f"The run cannot be resumed: {failure}. Nothing was deleted; start a new run, or remove the "
                        "damaged checkpoints to begin this one again."
                    ) from failure
        set_state_dict(
            self.model,
            self.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optim"],
            options=StateDictOptions(strict=not self.tied and self.recipe.lora is None),
        )
        self.step = self.saving.committed_step = manifest.step
        self.tokens_seen = manifest.tokens_seen
        return manifest.step

    def run(self) -> str:
        """Train to the end or until told to leave: `finished`, `notice` or `superseded`."""
        self.model.train()
        self.saving.note("training_started", step=self.step, steps=self.steps)
        with self.saving:
            ended = self._steps()
            if ended == "superseded":
                self.saving.finish()
            elif ended == "notice":
                self.saving.note("notice", source=self.notice.source, step=self.step)
                self.saving.leave(self.notice, self.step, self.tokens_seen)
            else:
                self.saving.complete(self.step, self.tokens_seen)
        self.saving.flush()
        return ended

    def _steps(self) -> str:
        while self.step < self.steps:
            told = self._one_step(time.monotonic())
            if not self.saving.saver.ready:
                self.saving.saver.reserve(self._state())  # now that the optimizer has its state
            if told.superseded:
                return "superseded"
            if told.notice:
                return "notice"
            if told.save_due and self.step < self.steps:
                self.saving.start(self.step, self.tokens_seen)
        return "finished"

    def _one_step(self, began: float) -> Signals:
        mine = self.rows.micro_batches(
            self.step, global_batch=self.config.global_batch, micro_batch=self.config.micro_batch,
            rank=self.rank, world_size=self.world_size,
        )  # fmt: skip
        micro = [self.rows.batch(rows) for rows in mine]
        device = self.accelerate.device
        counts = torch.tensor(
            [sum(len(each.learned[0]) for each in micro), sum(each.ids.size for each in micro)], device=device
        )
        dist.all_reduce(counts)
        trained, seen = counts.tolist()
        rate = learning_rate(self.config, self.step, self.steps)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        loss_sum = self._backward(micro, trained, device)
        norm = guards.clip(self.model.parameters(), self.config.clip_norm)
        if not math.isfinite(norm):  # as it is wherever a loss is not, and the same on every rank
            raise self._not_finite(loss_sum, norm, mine)
        waited = self.saving.saver.settle()  # a save copies the state that this changes
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens_seen += seen
        told = self._signals(loss_sum).reduced()
        self.progress.step(
            self.step, self.steps, loss=told.loss / trained, norm=norm, rate=rate, tokens=seen,
            seconds=time.monotonic() - began - waited,
        )  # fmt: skip
        return told

    def _backward(self, micro: list[Batch], trained: int, device: torch.device) -> float:
        """Gradients of the mean loss over the `trained` tokens of the whole batch; this rank's sum of losses."""
        loss_sum = 0.0
        for number, batch in enumerate(micro):
            self.model.set_requires_gradient_sync(number == len(micro) - 1)
            self._seed(number * self.world_size + self.rank)
            at, targets = (torch.from_numpy(each).to(device) for each in batch.learned)
            # All rows as one, which is what kernels of variable length want, and logits of what is learned alone.
            logits = self.model(
                input_ids=torch.from_numpy(batch.ids.reshape(1, -1)).to(device),
                position_ids=torch.from_numpy(batch.positions.reshape(1, -1)).to(device),
                logits_to_keep=at,
                **attention.borders(self.kernel, batch, device),
            ).logits
            # FSDP averages over ranks; the batch's mean is over its tokens, wherever they lie.
            loss, total = weighted_loss(logits[0], targets, self.world_size / trained)
            loss.backward()  # type: ignore[no-untyped-call]
            loss_sum += total.item()
        return loss_sum

    def _seed(self, group: int) -> None:
        """What dropout draws depends on seed, step and group of rows alone, like the rows themselves."""
        (drawn,) = np.random.SeedSequence([self.config.seed, self.step, group]).generate_state(1)
        torch.manual_seed(int(drawn))

    def _not_finite(self, loss_sum: float, norm: float, mine: list[list[int]]) -> TrainError:
        """The sentence and the event for a step that cannot be taken; called by every rank."""
        self.saving.finish()
        rows = [row for group in mine for row in group]
        everyone: list[Any] = [None] * self.world_size
        dist.all_gather_object(everyone, (loss_sum, rows), group=self._group)
        # The ranks whose own loss is broken have the record; where only the gradient is, any may.
        suspects = [rows for loss, rows in everyone if not math.isfinite(loss)] or [rows for _, rows in everyone]
        records = sorted(record for rows in suspects for row in rows for record in self.rows.records(row))
        why = guards.not_finite(
            step=self.step + 1, steps=self.steps, loss=sum(loss for loss, _ in everyone), norm=norm,
            path=Path(self.recipe.data.conversations).expanduser(), records=records,
            last_good=next(iter(committed(self.store, self._group)), None),
        )  # fmt: skip
        self.saving.note("stopped", reason="not finite", step=self.step, records=records)
        return TrainError(why)

    def _signals(self, loss_sum: float) -> Signals:
        if self.saving.fence.asked_to_leave:
            self.notice.told("the launcher", math.inf)
        return Signals(
            loss=loss_sum,
            notice=float(self.notice.at is not None),
            save_due=float(self.saving.due() or self.notice.take_warning()),
            superseded=float(self.saving.fence.superseded_by is not None),
        )

    def _state(self) -> dict[str, Any]:
        # Of a model with adapters only what is trained: the base is loaded again from where it came.
        trained = StateDictOptions(ignore_frozen_params=self.recipe.lora is not None)
        model, optimizer = get_state_dict(self.model, self.optimizer, options=trained)
        if self.tied:
            model.pop("lm_head.weight", None)  # the embedding, which is there already
        return {"model": model, "optim": optimizer}
