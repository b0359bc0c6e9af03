"""FSDP state to files and back, by torch.distributed.checkpoint's planners over our own store.

Every rank streams one file of raw tensor bytes from memory to the store; sizes and checksums (checkpoints.blocks) go
into a manifest that is written last. Knows nothing of training: a state is a dictionary of tensors.
"""

import contextlib
import hashlib
import io
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import (
    LoadItemType,
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from checkpoints import layout
from checkpoints.blocks import Blocks, Corrupt, Summed, read_manifest
from checkpoints.layout import Checkpoint, FileSum, Manifest
from checkpoints.run import reading
from checkpoints.stores import Store

METADATA = "metadata.bin"

State = dict[str, Any]


@dataclass(frozen=True)
class _Place:
    """Where one tensor, or one part of it, lies."""

    file: str
    offset: int
    length: int


@dataclass(frozen=True)
class _Piece:
    """What is read of a file for one item of a plan, and what it is: a tensor of `sizes`, or bytes without a dtype."""

    file: str
    offset: int
    length: int
    sizes: torch.Size
    dtype: torch.dtype | None

    @property
    def place_key(self) -> tuple[str, int]:
        return self.file, self.offset


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
        summed = Summed()
        self.store.write(self.prefix + file, summed.through(chunks))
        self.sums[file] = summed.sum()


class StoreReader(StorageReader):
    """Reads what a rank needs of a committed checkpoint, and verifies every block it touches."""

    def __init__(self, store: Store, checkpoint: Checkpoint, manifest: Manifest) -> None:
        self._blocks = Blocks(store, checkpoint, manifest)
        self._metadata: Metadata | None = None

    def reset(self, checkpoint_id: Any = None) -> None: ...

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        self._metadata = metadata

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        # Pickle runs code: it is only read after its checksum agrees with the manifest.
        metadata: Metadata = pickle.loads(self._blocks.bytes_of(METADATA, 0, self._blocks.size(METADATA)))
        return metadata

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        # In the order of the files, so that a block is fetched once, and the next ones while this one is placed.
        pieces = sorted(((self._piece(item), item) for item in plan.items), key=lambda pair: pair[0].place_key)
        with self._blocks.ahead([(piece.file, piece.offset, piece.length) for piece, _ in pieces]):
            for piece, item in pieces:
                self._place(piece, item, planner)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _piece(self, item: ReadItem) -> "_Piece":
        """What has to be read for `item`: of a stored tensor only the rows that this rank needs."""
        assert self._metadata is not None
        place: _Place = self._metadata.storage_data[item.storage_index]
        if item.type == LoadItemType.BYTE_IO:
            return _Piece(place.file, place.offset, place.length, torch.Size(), None)
        about = self._metadata.state_dict_metadata[item.storage_index.fqn]
        assert isinstance(about, TensorStorageMetadata)
        sizes = _stored_sizes(about, item.storage_index)
        if not sizes or not place.length:
            return _Piece(place.file, place.offset, place.length, sizes, about.properties.dtype)
        row = place.length // sizes[0]
        first, rows = item.storage_offsets[0], item.lengths[0]
        return _Piece(
            place.file, place.offset + first * row, rows * row, torch.Size((rows, *sizes[1:])), about.properties.dtype
        )

    def _place(self, piece: "_Piece", item: ReadItem, planner: LoadPlanner) -> None:
        if piece.dtype is None:
            planner.load_bytes(item, io.BytesIO(self._blocks.bytes_of(piece.file, piece.offset, piece.length)))
            return
        target = planner.resolve_tensor(item).detach()
        as_stored = (target.device.type, target.dtype, target.shape) == ("cpu", piece.dtype, piece.sizes)
        if as_stored and target.is_contiguous():
            self._blocks.fill(_tensor_bytes(target), piece.file, piece.offset)
        else:
            target.copy_(self._stored(piece, item))
        planner.commit_tensor(item, target)

    def _stored(self, piece: "_Piece", item: ReadItem) -> torch.Tensor:
        """What is read for `item` as a tensor of its own."""
        assert piece.dtype is not None
        data = self._blocks.bytes_of(piece.file, piece.offset, piece.length)
        stored = torch.frombuffer(data, dtype=piece.dtype) if data else torch.empty(0, dtype=piece.dtype)
        stored = stored.reshape(piece.sizes)
        for dim in range(1, len(piece.sizes)):  # the rows are the ones asked for already
            stored = stored.narrow(dim, item.storage_offsets[dim], item.lengths[dim])
        return stored

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True


def _stored_sizes(about: TensorStorageMetadata, index: MetadataIndex) -> torch.Size:
    """The shape of the part of a tensor that was stored under `index`."""
    return next(
        chunk.sizes
        for chunk in about.chunks
        if index.offset is None or torch.Size(chunk.offsets) == torch.Size(index.offset)
    )


def committed(
    store: Store, group: dist.ProcessGroup | None, say: Callable[[str], None] = lambda text: None
) -> list[Checkpoint]:
    """The run's committed checkpoints, newest first, the same list on every rank; `say` is told what is newer and has
    no manifest.
    """
    names = [entry.name for entry in store.list("checkpoints/")]
    for torso in layout.without_manifest(names):
        say(f"{torso.prefix.rstrip('/')} is not used: it has no {layout.MANIFEST}, so it was never committed whole")
    found = [layout.committed(names)]
    dist.broadcast_object_list(found, src=0, group=group)
    return found[0]


def load_first_whole(
    store: Store,
    checkpoints: list[Checkpoint],
    state: State,
    *,
    group: dist.ProcessGroup | None,
    say: Callable[[str], None],
) -> tuple[Manifest, list[Checkpoint]]:
    """Fill `state` in place from the first of `checkpoints` that is whole; its manifest, and those that were passed
    over by every rank together because they are damaged. `say` is told file and reason.

    Raises Corrupt where none is whole (`state` is then half overwritten), StoreError where the store cannot be
    read.
    """
    damaged: list[Checkpoint] = []
    for checkpoint in checkpoints:
        why = _load(store, checkpoint, state, group)
        if isinstance(why, Manifest):
            return why, damaged
        say(f"checkpoint {checkpoint.prefix.rstrip('/')} is passed over: {why}")
        damaged.append(checkpoint)
    raise Corrupt(f"none of the {len(checkpoints)} committed checkpoints in {store.uri} is whole")


def _load(store: Store, checkpoint: Checkpoint, state: State, group: dist.ProcessGroup | None) -> Manifest | str:
    """The manifest when every rank has loaded its part, else the first rank's reason."""
    mine: str | None = None
    manifest: Manifest | None = None
    # Rank 0 marks it for all: the others' parts are read before its mark is taken away.
    with reading(store, checkpoint) if dist.get_rank(group) == 0 else contextlib.nullcontext():
        try:
            manifest = read_manifest(store, checkpoint)
            _fill(state, StoreReader(store, checkpoint, manifest))
        except Corrupt as failure:
            mine = str(failure)
        reasons: list[str | None] = [None] * dist.get_world_size(group)
        dist.all_gather_object(reasons, mine, group=group)
    broken = next((reason for reason in reasons if reason is not None), None)
    if broken is not None:
        return broken
    assert manifest is not None
    return manifest


def _fill(state: State, reader: StoreReader) -> None:
    """Each rank plans alone and reads what it needs: no collective that a damaged file could hang."""
    planner = DefaultLoadPlanner()
    metadata = reader.read_metadata()
    reader.set_up_storage_reader(metadata, is_coordinator=True)
    planner.set_up_planner(state, metadata, is_coordinator=True)
    plan = planner.finish_plan(planner.create_local_plan())
    reader.read_data(plan, planner).wait()


def recipe_digest(recipe: str) -> str:
    """The hash a manifest carries of the frozen recipe."""
    return hashlib.sha256(recipe.encode()).hexdigest()
