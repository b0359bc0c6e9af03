"""FSDP state to files and back, by torch.distributed.checkpoint's planners over our own store.

Every rank streams one file of raw tensor bytes from memory to the store; sizes and checksums go into a
manifest that is written last. Knows nothing of training: a state is a dictionary of tensors.
"""

import hashlib
import io
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
import torch.distributed as dist
import xxhash
from torch.distributed.checkpoint._state_dict_stager import StateDictStager
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import (
    LoadItemType,
    LoadPlan,
    LoadPlanner,
    SavePlan,
    SavePlanner,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.state_dict_saver import save as save_state
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from checkpoints import layout
from checkpoints.layout import Checkpoint, FileSum, Manifest
from checkpoints.run import Attempt, utc_now
from checkpoints.stores import Store, StoreError

BLOCK_BYTES = 8 << 20
METADATA = "metadata.bin"

State = dict[str, Any]


class Corrupt(Exception):
    """A file of a committed checkpoint is missing or is not what its manifest says; names file and reason."""


@dataclass(frozen=True)
class _Place:
    """Where one tensor, or one part of it, lies."""

    file: str
    offset: int
    length: int


class _Summed:
    """Passes chunks on and keeps the checksum of every block."""

    def __init__(self) -> None:
        self.size = 0
        self.digests: list[str] = []
        self._hash = xxhash.xxh3_128()
        self._room = BLOCK_BYTES

    def through(self, chunks: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        for chunk in chunks:
            view = memoryview(chunk).cast("B")
            while view:
                part, view = view[: self._room], view[self._room :]
                self._hash.update(part)
                self.size += len(part)
                self._room -= len(part)
                if not self._room:
                    self._finish_block()
                yield part
        if self._room < BLOCK_BYTES:
            self._finish_block()

    def _finish_block(self) -> None:
        self.digests.append(self._hash.hexdigest())
        self._hash.reset()
        self._room = BLOCK_BYTES

    def sum(self) -> FileSum:
        return FileSum(size=self.size, digests=self.digests)


def _tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a CPU tensor, without a copy where it is contiguous."""
    flat: Any = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)


class StoreWriter(StorageWriter):
    """Writes one rank's part of a checkpoint below `prefix` of a store."""

    def __init__(self, store: Store, prefix: str, rank: int) -> None:
        self.store = store
        self.prefix = prefix
        self.file = f"rank-{rank:05d}.bin"
        self.sums: dict[str, FileSum] = {}
        """What this rank has written, for the manifest."""

    def reset(self, checkpoint_id: Any = None) -> None: ...

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None: ...

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        results: list[WriteResult] = []
        if plan.items:
            self._write(self.file, self._stream(plan.items, planner, results))
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        metadata.storage_data = {result.index: result.storage_data for each in results for result in each}
        metadata.storage_meta = self.storage_meta()
        self._write(METADATA, iter([pickle.dumps(metadata)]))

    def storage_meta(self) -> StorageMeta | None:
        return StorageMeta()

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True

    def _stream(
        self, items: list[WriteItem], planner: SavePlanner, results: list[WriteResult]
    ) -> Iterator[bytes | memoryview]:
        """The bytes of every item in turn; fills `results` with where each lies."""
        offset = 0
        for item in items:
            data = planner.resolve_data(item)
            if item.type == WriteItemType.BYTE_IO:
                assert isinstance(data, io.BytesIO)
                chunk = data.getbuffer()
            else:
                assert isinstance(data, torch.Tensor)
                chunk = _tensor_bytes(data.cpu())
            place = _Place(self.file, offset, chunk.nbytes)
            results.append(WriteResult(index=item.index, size_in_bytes=chunk.nbytes, storage_data=place))
            offset += chunk.nbytes
            yield chunk

    def _write(self, file: str, chunks: Iterator[bytes | memoryview]) -> None:
        summed = _Summed()
        self.store.write(self.prefix + file, summed.through(chunks))
        self.sums[file] = summed.sum()


class StoreReader(StorageReader):
    """Reads what a rank needs of a committed checkpoint, and verifies every block it touches."""

    def __init__(self, store: Store, checkpoint: Checkpoint, manifest: Manifest) -> None:
        self.store = store
        self.prefix = checkpoint.prefix
        self.manifest = manifest
        self._metadata: Metadata | None = None
        self._cached: tuple[str, int, bytes] = ("", -1, b"")

    def reset(self, checkpoint_id: Any = None) -> None: ...

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        self._metadata = metadata

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        # Pickle runs code: it is only read after its checksum agrees with the manifest.
        metadata: Metadata = pickle.loads(self.bytes_of(METADATA, 0, self._size(METADATA)))
        return metadata

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        assert self._metadata is not None
        places: dict[Any, _Place] = self._metadata.storage_data
        # In the order of the file, so that a block is fetched once.
        for item in sorted(plan.items, key=lambda item: _place_key(places[item.storage_index])):
            place = places[item.storage_index]
            data = self.bytes_of(place.file, place.offset, place.length)
            if item.type == LoadItemType.BYTE_IO:
                planner.load_bytes(item, io.BytesIO(data))
                continue
            stored = self._tensor(item.storage_index, data)
            for dim, (start, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                stored = stored.narrow(dim, start, length)
            target = planner.resolve_tensor(item).detach()
            target.copy_(stored)
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True

    def bytes_of(self, file: str, offset: int, length: int) -> bytes:
        """`length` verified bytes. Raises Corrupt."""
        block = self.manifest.block_bytes
        parts = [self._block(file, index) for index in range(offset // block, -(-(offset + length) // block))]
        joined = parts[0] if len(parts) == 1 else b"".join(parts)
        start = offset % block
        return joined[start : start + length]

    def _size(self, file: str) -> int:
        if file not in self.manifest.files:
            raise Corrupt(f"{self.prefix}{file} is not in the manifest")
        return self.manifest.files[file].size

    def _block(self, file: str, index: int) -> bytes:
        if self._cached[:2] == (file, index):
            return self._cached[2]
        size = self._size(file)
        start = index * self.manifest.block_bytes
        want = min(self.manifest.block_bytes, size - start)
        try:
            data = self.store.read(self.prefix + file, start, want)
        except FileNotFoundError:
            raise Corrupt(f"{self.prefix}{file} is missing") from None
        if len(data) != want:
            raise Corrupt(f"{self.prefix}{file} is cut short: {start + len(data)} of {size} bytes")
        if xxhash.xxh3_128_hexdigest(data) != self.manifest.files[file].digests[index]:
            raise Corrupt(f"{self.prefix}{file} is damaged: the checksum of bytes {start} to {start + want} differs")
        self._cached = (file, index, data)
        return data

    def _tensor(self, index: Any, data: bytes) -> torch.Tensor:
        assert self._metadata is not None
        about = self._metadata.state_dict_metadata[index.fqn]
        assert isinstance(about, TensorStorageMetadata)
        sizes = next(
            chunk.sizes
            for chunk in about.chunks
            if index.offset is None or torch.Size(chunk.offsets) == torch.Size(index.offset)
        )
        dtype = about.properties.dtype
        if not data:
            return torch.empty(sizes, dtype=dtype)
        return torch.frombuffer(bytearray(data), dtype=dtype).reshape(sizes)


def _place_key(place: _Place) -> tuple[str, int]:
    return place.file, place.offset


def read_manifest(store: Store, checkpoint: Checkpoint) -> Manifest:
    """The manifest of a committed checkpoint. Raises Corrupt where it cannot be understood."""
    name = checkpoint.prefix + layout.MANIFEST
    try:
        return msgspec.json.decode(store.read(name), type=Manifest)
    except FileNotFoundError:
        raise Corrupt(f"{name} is missing") from None
    except msgspec.DecodeError as failure:
        raise Corrupt(f"{name} is damaged: {failure}") from failure


def committed(store: Store, group: dist.ProcessGroup | None) -> list[Checkpoint]:
    """The run's committed checkpoints, newest first, the same list on every rank."""
    found = [layout.committed(entry.name for entry in store.list("checkpoints/"))]
    dist.broadcast_object_list(found, src=0, group=group)
    return found[0]


def load_first_whole(
    store: Store,
    checkpoints: list[Checkpoint],
    state: State,
    *,
    group: dist.ProcessGroup | None,
    say: Callable[[str], None],
) -> Manifest:
    """Fill `state` in place from the first of `checkpoints` that is whole; its manifest. A damaged one is passed
    over by every rank together, and `say` is told file and reason.

    Raises Corrupt where none is whole (`state` is then half overwritten), StoreError where the store cannot be
    read.
    """
    for checkpoint in checkpoints:
        why = _load(store, checkpoint, state, group)
        if isinstance(why, Manifest):
            return why
        say(f"checkpoint {checkpoint.prefix.rstrip('/')} is passed over: {why}")
    raise Corrupt(f"none of the {len(checkpoints)} committed checkpoints in {store.uri} is whole")


def _load(store: Store, checkpoint: Checkpoint, state: State, group: dist.ProcessGroup | None) -> Manifest | str:
    """The manifest when every rank has loaded its part, else the first rank's reason."""
    mine: str | None = None
    manifest: Manifest | None = None
    try:
        manifest = read_manifest(store, checkpoint)
        planner = DefaultLoadPlanner()
        reader = StoreReader(store, checkpoint, manifest)
        # Each rank plans alone and reads what it needs: no collective that a damaged file could hang.
        metadata = reader.read_metadata()
        reader.set_up_storage_reader(metadata, is_coordinator=True)
        planner.set_up_planner(state, metadata, is_coordinator=True)
        plan = planner.finish_plan(planner.create_local_plan())
        reader.read_data(plan, planner).wait()
    except Corrupt as failure:
        mine = str(failure)
    reasons: list[str | None] = [None] * dist.get_world_size(group)
    dist.all_gather_object(reasons, mine, group=group)
    broken = next((reason for reason in reasons if reason is not None), None)
    if broken is not None:
        return broken
    assert manifest is not None
    return manifest


@dataclass
class Save:
    """A save that is under way or done."""

    checkpoint: Checkpoint
    stall_seconds: float
    began: float
    seconds: float = 0.0
    """From the copy to the commit."""
    size: int = 0
    """Bytes of all ranks."""
    failure: StoreError | None = None


class Saver:
    """Saves a state while training goes on: the step waits for the copy, a thread does the rest.

    One save at a time: `start` while one is going raises; ask `busy` first. `group` must be a process group
    of its own, because the thread's collectives run beside the training's.
    """

    def __init__(
        self,
        store: Store,
        attempt: int,
        *,
        group: dist.ProcessGroup,
        recipe_sha256: str,
        on_commit: Callable[[Save], None] = lambda save: None,
    ) -> None:
        self.store = store
        self.attempt = attempt
        self.group = group
        self.recipe_sha256 = recipe_sha256
        self.on_commit = on_commit
        """Called on rank 0, in the saving thread, as soon as a checkpoint exists."""
        self._stager = StateDictStager(pin_memory=torch.cuda.is_available())
        self._thread: threading.Thread | None = None
        self._save: Save | None = None
        self._crash: BaseException | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, state: State, *, step: int, tokens_seen: int) -> float:
        """Copy `state` and save the copy in the background; the seconds the caller was held up."""
        if self._thread is not None:
            raise RuntimeError("a save is still under way")
        began = time.monotonic()
        copy = self._stager.stage(state)
        stalled = time.monotonic() - began
        self._save = Save(Checkpoint(step, self.attempt), stalled, began)
        self._thread = threading.Thread(target=self._run, args=(copy, self._save, tokens_seen), name="checkpoint")
        self._thread.start()
        return stalled

    def collect(self) -> Save | None:
        """Wait for the save under way, if any, and return it; raises where the machinery itself broke."""
        if self._thread is None:
            return None
        self._thread.join()
        self._thread = None
        if self._crash is not None:
            raise self._crash
        return self._save

    def _run(self, state: State, save: Save, tokens_seen: int) -> None:
        try:
            self._write(state, save, tokens_seen)
        except Exception as crash:  # noqa: BLE001  carried to the training thread, where `collect` raises it
            self._crash = crash

    def _write(self, state: State, save: Save, tokens_seen: int) -> None:
        rank = dist.get_rank(self.group)
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
        outcome: list[StoreError | None] = [None]
        if rank == 0:
            outcome[0] = self._commit(save, files, tokens_seen, len(sums))
            save.seconds = time.monotonic() - save.began
            if outcome[0] is None:
                self.on_commit(save)
        dist.broadcast_object_list(outcome, src=0, group=self.group)
        save.failure = outcome[0]

    def _commit(self, save: Save, files: dict[str, FileSum], tokens_seen: int, world_size: int) -> StoreError | None:
        """Write the manifest: from here on the checkpoint exists."""
        manifest = Manifest(
            step=save.checkpoint.step,
            attempt=self.attempt,
            tokens_seen=tokens_seen,
            world_size=world_size,
            recipe_sha256=self.recipe_sha256,
            created_at=utc_now(),
            block_bytes=BLOCK_BYTES,
            files=files,
        )
        try:
            self.store.create(save.checkpoint.prefix + layout.MANIFEST, msgspec.json.encode(manifest))
        except StoreError as failure:
            return failure
        return None


def recipe_digest(recipe: str) -> str:
    """The hash a manifest carries of the frozen recipe."""
    return hashlib.sha256(recipe.encode()).hexdigest()


def forget(attempt: Attempt, *, keep: int, saving: Checkpoint | None = None) -> None:
    """Delete what no longer serves; called by rank 0 after a commit."""
    names = [entry.name for entry in attempt.store.list("checkpoints/")]
    attempt.store.delete(layout.deletable(names, keep=keep, attempt=attempt.number, saving=saving))
