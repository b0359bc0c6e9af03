"""When to save and when not, what is said of it, and how to leave with everything committed. Between the loop, which
knows steps, and the saver, which knows files.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from checkpoints import run
from checkpoints.cadence import Cadence
from checkpoints.fence import Fence
from checkpoints.layout import Checkpoint
from checkpoints.run import Attempt
from checkpoints.saver import Save, Saver, Superseded
from checkpoints.sharded import State
from checkpoints.stores import StoreError, StoreRefused
from train.errors import TrainError
from train.preemption import Notice
from train.progress import Progress

_FLUSH_SECONDS = 5.0, 60.0
"""How often metrics are written to the store, when training begins and after a while: a bucket sees few objects."""
_MARGIN_SECONDS = 2.0
"""Of what is left after a notice, for the manifest and the exit."""


class Saving:
    """The saves of one attempt."""

    def __init__(
        self,
        saver: Saver,
        cadence: Cadence,
        fence: Fence,
        attempt: Attempt | None,
        progress: Progress,
        state: Callable[[], State],
    ) -> None:
        self.saver = saver
        self.cadence = cadence
        self.fence = fence
        self.attempt = attempt
        """Rank 0's; None on the others."""
        self.progress = progress
        self.state = state
        self.damaged: list[Checkpoint] = []
        """Found so at resume: they do not count among those kept."""
        self.saved_step = -1
        """The step whose state was saved last, or is being saved."""
        self.committed_step = 0
        """The newest step that a checkpoint holds, of this attempt or of the one it went on from."""
        self._said_seconds = 0.0
        self._last = time.monotonic()
        self._slowest = 0.0
        """Seconds that the slowest save so far took to be committed."""
        self._done = threading.Event()
        saver.on_begin, saver.on_commit = self._begun, self._committed

    def __enter__(self) -> "Saving":
        if self.attempt is not None:
            self.progress.say(str(self.cadence))
            threading.Thread(target=self._flush_now_and_then, name="flush", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def due(self) -> bool:
        """Whether a save is due now, by rank 0's clock. Where one is still going it is skipped."""
        now = time.monotonic()
        if self.attempt is None or now - self._last <= self.cadence.seconds:
            return False
        if not self.saver.busy:
            return True
        self.progress.say("a save is due while the last one is still going; it is skipped")
        self._last = now
        return False

    def start(self, step: int, tokens_seen: int) -> None:
        """Begin a save of the state after `step`; the previous one has ended or is waited for."""
        self.finish()
        self._last = time.monotonic()
        self.saver.start(self.state, step=step, tokens_seen=tokens_seen)
        self.saved_step = step

    def finish(self) -> None:
        """Wait for the save under way. Raises TrainError where going on makes no sense."""
        save = self.saver.collect()
        if save is None:
            return
        if save.failure is None:
            self._slowest = max(self._slowest, save.seconds)
            self.committed_step = save.checkpoint.step
            return
        self.saved_step = -1
        self.note("save_failed", step=save.checkpoint.step, why=str(save.failure))
        self.progress.say(f"the save after step {save.checkpoint.step} failed: {save.failure}")
        if isinstance(save.failure, (StoreRefused, Superseded)):
            raise TrainError(str(save.failure))

    def complete(self, step: int, tokens_seen: int) -> None:
        """Everything up to `step` is committed when this returns; a store that fails is tried three times."""
        self.finish()
        for _ in range(3):
            if self.committed_step == step:
                return
            self.start(step, tokens_seen)
            self.finish()
        if self.committed_step != step:
            raise TrainError(
                f"The state after step {step} could not be saved; started again, the run goes on from step "
                f"{self.committed_step}."
            )

    def leave(self, notice: Notice, step: int, tokens_seen: int) -> int:
        """Commit what the time left allows, called by every rank; the step that is committed."""
        self.finish()
        left = self._agreed(notice.seconds_left(), dist.ReduceOp.MIN)
        need = self._agreed(self._slowest * 1.5 + _MARGIN_SECONDS, dist.ReduceOp.MAX)
        if self.committed_step < step and left >= need:
            self.start(step, tokens_seen)
            self.finish()
        elif self.committed_step < step:
            self.progress.say(
                f"{left:.0f} s are left and a save may take {need:.0f}: step {step} is given up, leaving with step "
                f"{self.committed_step} committed"
            )
        return self.committed_step

    def note(self, kind: str, **facts: Any) -> None:
        """Record an event; a store that fails now does not stop training, it is said instead."""
        if self.attempt is None:
            return
        try:
            self.attempt.event(kind, **facts)
        except StoreError as failure:
            self.progress.say(f"the event {kind} is not recorded: {failure}")

    def flush(self) -> None:
        """Write the metrics noted so far, or say why not."""
        if self.attempt is None:
            return
        try:
            self.attempt.flush()
        except StoreError as failure:
            self.progress.say(f"metrics wait for the next time: {failure}")

    def _agreed(self, seconds: float, how: Any) -> float:
        value = torch.tensor([seconds], dtype=torch.float64)
        dist.all_reduce(value, op=how, group=self.saver.group)
        return float(value.item())

    def _flush_now_and_then(self) -> None:
        pause, slowest = _FLUSH_SECONDS
        while not self._done.wait(pause):
            self.flush()
            pause = min(1.1 * pause, slowest)

    def _begun(self, save: Save) -> None:
        """Rank 0, in the saving thread: no step is committed whose metrics are not."""
        self.flush()
        self.note("save_started", step=save.checkpoint.step)

    def _committed(self, save: Save) -> None:
        """Rank 0, in the saving thread: record the commit and delete what it replaces."""
        self.cadence.learn(stall_seconds=save.stall_seconds, seconds=save.seconds)
        self.progress.say(
            f"checkpoint of step {save.checkpoint.step} committed: {save.size / 1e6:,.0f} MB in {save.seconds:.1f} s, "
            f"training waited {save.stall_seconds:.2f} s"
        )
        if abs(self.cadence.seconds - self._said_seconds) > 0.2 * self._said_seconds:
            self._said_seconds = self.cadence.seconds
            self.progress.say(str(self.cadence))
        self.note(
            "save_committed",
            step=save.checkpoint.step, seconds=save.seconds, stall_seconds=save.stall_seconds, bytes=save.size,
            interval_seconds=self.cadence.seconds,
        )  # fmt: skip
        try:
            run.forget(self.saver.store, self.saver.attempt, keep=self.cadence.config.keep, damaged=self.damaged)
        except StoreError as failure:  # the checkpoint exists; the tidying can wait for the next
            self.progress.say(f"after the commit of step {save.checkpoint.step}: {failure}")
