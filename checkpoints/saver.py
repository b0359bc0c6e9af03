"""Saves while training goes on: a thread copies the state and writes the copy. Whoever is about to change the state
waits for what is left of the copy, and for nothing else. Knows nothing of training: a state is a dictionary of
tensors.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_saver import save as save_state
from torch.distributed.tensor import DTensor

from checkpoints import layout, run
from checkpoints.blocks import BLOCK_BYTES, Corrupt, read_manifest, sealed
from checkpoints.layout import Checkpoint, FileSum, Manifest
from checkpoints.sharded import State, StoreWriter
from checkpoints.stores import Store, StoreError


@dataclass
class Save:
    """A save that is under way or done."""

    checkpoint: Checkpoint
    stall_seconds: float
    """What training waited: to begin it, and for the rest of the copy."""
    began: float
    seconds: float = 0.0
    """From its beginning to the commit."""
    size: int = 0
    """Bytes of all ranks."""
    failure: StoreError | None = None


class Superseded(StoreError):
    """A newer attempt owns the run; this one commits nothing any more."""


class Staging:
    """Memory that a state is copied into, the same from save to save: new pages cost more than the copy. Pinned where
    there is a GPU, so that the copy runs at the bus's speed.
    """

    def __init__(self) -> None:
        self._pinned = torch.cuda.is_available()
        self._kept: dict[str, torch.Tensor] = {}
        self._reserving: threading.Thread | None = None

    def reserve(self, state: State) -> None:
        """Have the memory for `state` before the first copy; done in a thread, while training goes on."""

        def touch() -> None:
            self._walk("", state, [], [])
            for memory in self._kept.values():
                memory.zero_()

        self._reserving = threading.Thread(target=touch, name="staging")
        self._reserving.start()

    def copy(self, state: State) -> tuple[State, Callable[[], None]]:
        """The same dictionary over memory on the CPU, valid until the next copy, and what fills it: to be called once,
        in any thread, while nothing changes `state`."""
        if self._reserving is not None:
            self._reserving.join()
            self._reserving = None
        sources: list[torch.Tensor] = []
        targets: list[torch.Tensor] = []
        copied: State = self._walk("", state, sources, targets)
        if not self._pinned:
            return copied, partial(torch._foreach_copy_, targets, sources)
        # A stream of its own, which begins after what has been asked of the GPU so far: the last change of the state.
        device, changed = torch.cuda.current_device(), torch.cuda.current_stream().record_event()

        def fill() -> None:
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            stream.wait_event(changed)
            with torch.cuda.stream(stream):
                torch._foreach_copy_(targets, sources, non_blocking=True)
            stream.synchronize()

        return copied, fill

    def _walk(self, path: str, value: Any, sources: list[torch.Tensor], targets: list[torch.Tensor]) -> Any:
        """`value` with memory of ours in place of its tensors; notes what has to be copied where."""
        if isinstance(value, dict):
            return {key: self._walk(f"{path}\0{key}", each, sources, targets) for key, each in value.items()}
        if isinstance(value, list):
            return [self._walk(f"{path}\0{at}", each, sources, targets) for at, each in enumerate(value)]
        if not isinstance(value, torch.Tensor):
            return value
        local = value.to_local() if isinstance(value, DTensor) else value
        kept = self._kept.get(path)
        if kept is None or kept.shape != local.shape or kept.dtype != local.dtype:
            kept = torch.empty(local.shape, dtype=local.dtype, pin_memory=self._pinned)
            self._kept[path] = kept
        sources.append(local.detach())
        targets.append(kept)
        if isinstance(value, DTensor):
            # Not from_local, which would move the copy back to the GPU of the mesh.
            return DTensor(kept, value._spec, requires_grad=False)  # type: ignore[no-untyped-call]
        return kept


class Saver:
    """One save at a time: `start` while one is going raises; ask `busy` first. `group` must be a process group of its
    own, because the thread's collectives run beside the training's.
    """

    def __init__(
        self,
        store: Store,
        attempt: int,
        *,
        group: dist.ProcessGroup,
        recipe_sha256: str,
        staging: Staging | None = None,
        on_begin: Callable[[Save], None] = lambda save: None,
        on_commit: Callable[[Save], None] = lambda save: None,
    ) -> None:
        self.store = store
        self.attempt = attempt
        self.group = group
        self.recipe_sha256 = recipe_sha256
        self.on_begin = on_begin
        """Called on rank 0, in the saving thread, before anything is written."""
        self.on_commit = on_commit
        """Called on rank 0, in the saving thread, as soon as a checkpoint exists."""
        self.ready = False
        """Whether the memory for a copy is there or being made."""
        self._staging = staging or Staging()
        self._copied = threading.Event()
        self._thread: threading.Thread | None = None
        self._save: Save | None = None
        self._crash: BaseException | None = None

    def reserve(self, state: State) -> None:
        """Have the memory for a copy of `state` ready before the first save."""
        self.ready = True
        self._staging.reserve(state)

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, state: Callable[[], State], *, step: int, tokens_seen: int) -> float:
        """Save what `state` gives in the background; the seconds the caller was held up. Nothing may change it before
        `settle` returns."""
        if self._thread is not None:
            raise RuntimeError("a save is still under way")
        began = time.monotonic()
        copy, fill = self._staging.copy(state())
        self._save = Save(Checkpoint(step, self.attempt), time.monotonic() - began, began)
        self._copied.clear()
        self._thread = threading.Thread(target=self._run, args=(copy, fill, self._save, tokens_seen), name="checkpoint")
        self._thread.start()
        return self._save.stall_seconds

    def settle(self) -> float:
        """Wait until the save under way, if any, has its copy, so that the state may change; the seconds it took."""
        if self._thread is None or self._save is None or self._copied.is_set():
            return 0.0
        began = time.monotonic()
        self._copied.wait()
        waited = time.monotonic() - began
        self._save.stall_seconds += waited
        return waited

    def collect(self) -> Save | None:
        """Wait for the save under way, if any, and return it; raises where the machinery itself broke."""
        if self._thread is None:
            return None
        self._thread.join()
        self._thread = None
        if self._crash is not None:
            raise self._crash
        return self._save

    def _run(self, state: State, fill: Callable[[], None], save: Save, tokens_seen: int) -> None:
        try:
            try:
                fill()
            finally:
                self._copied.set()  # where it failed nothing is written, and nobody has to wait
            self._write(state, save, tokens_seen)
        except Exception as crash:  # noqa: BLE001  carried to the training thread, where `collect` raises it
            self._crash = crash

    def _write(self, state: State, save: Save, tokens_seen: int) -> None:
        rank = dist.get_rank(self.group)
        if rank == 0:
            self.on_begin(save)
        writer = StoreWriter(self.store, save.checkpoint.prefix, rank)
        try:
            save_state(state, storage_writer=writer, process_group=self.group)
        except CheckpointException as failure:
            save.failure = next((f for f, _ in failure.failures.values() if isinstance(f, StoreError)), None)
            if save.failure is None:
                raise
            return
        sums: list[dict[str, FileSum]] = [{} for _ in range(dist.get_world_size(self.group))]
        dist.all_gather_object(sums, writer.sums, group=self.group)
        files = {name: each for rank_sums in sums for name, each in rank_sums.items()}
        save.size = sum(each.size for each in files.values())
        outcome: list[tuple[StoreError | None, float]] = [(None, 0.0)]
        if rank == 0:
            refusal = self._commit(save, files, tokens_seen, len(sums))
            outcome[0] = refusal, time.monotonic() - save.began
        dist.broadcast_object_list(outcome, src=0, group=self.group)
        save.failure, save.seconds = outcome[0]
        if rank == 0 and save.failure is None:
            self.on_commit(save)

    def _commit(self, save: Save, files: dict[str, FileSum], tokens_seen: int, world_size: int) -> StoreError | None:
        """Write the manifest: from here on the checkpoint exists."""
        manifest = Manifest(
            step=save.checkpoint.step,
            attempt=self.attempt,
            tokens_seen=tokens_seen,
            world_size=world_size,
            recipe_sha256=self.recipe_sha256,
            created_at=run.utc_now(),
            block_bytes=BLOCK_BYTES,
            files=files,
        )
        try:
            owner = run.newer(self.store, self.attempt)
            if owner is not None:
                return Superseded(f"Attempt {owner} has taken over this run; attempt {self.attempt} commits no more.")
            if self.store.create(save.checkpoint.prefix + layout.MANIFEST, sealed(manifest)):
                return None
            # The step was saved before, and its commit, which seemed to fail, took effect: it holds for the same files.
            if read_manifest(self.store, save.checkpoint).files == files:
                return None
            return StoreError(f"{save.checkpoint.prefix}{layout.MANIFEST} is there and names other files than these.")
        except Corrupt as failure:
            return StoreError(f"{save.checkpoint.prefix} was committed before, but {failure}.")
        except StoreError as failure:
            return failure
