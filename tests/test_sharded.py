"""A checkpoint on disk: what is saved is loaded, and every kind of damage is found, named and passed over."""

import datetime
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import MetadataIndex
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, ReadItem

from checkpoints import layout, sharded
from checkpoints.blocks import BLOCK_BYTES, Corrupt, read_manifest
from checkpoints.layout import Checkpoint
from checkpoints.run import Attempt, forget, reading
from checkpoints.saver import Save, Saver, Staging, Superseded
from checkpoints.sharded import State, committed, load_first_whole
from checkpoints.stores import StoreError, StoreFull
from checkpoints.stores.folder import FolderStore


@pytest.fixture(scope="module")
def group() -> Iterator[dist.ProcessGroup]:
    dist.init_process_group(
        "gloo", rank=0, world_size=1, store=dist.HashStore(), timeout=datetime.timedelta(seconds=60)
    )
    yield dist.group.WORLD
    dist.destroy_process_group()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "run")


def some_state(seed: int) -> State:
    torch.manual_seed(seed)
    return {
        "model": {"a": torch.randn(300, 700), "b": torch.randn(11).bfloat16(), "empty": torch.zeros(0, 3)},
        "optim": {"step": torch.tensor(float(seed)), "rate": 0.5 + seed},
    }


def save(store: FolderStore, group: dist.ProcessGroup, step: int, attempt: int = 1) -> Save:
    saver = Saver(store, attempt, group=group, recipe_sha256="r")
    saver.start(lambda: some_state(step), step=step, tokens_seen=step * 10)
    done = saver.collect()
    assert done is not None
    return done


def load(store: FolderStore, group: dist.ProcessGroup) -> tuple[int, State, list[str]]:
    state, said = some_state(999), list[str]()
    manifest, _ = load_first_whole(store, committed(store, group), state, group=group, say=said.append)
    return manifest.step, state, said


def equal(state: State, seed: int) -> bool:
    want = some_state(seed)
    tensors = all(torch.equal(state["model"][key], want["model"][key]) for key in want["model"])
    return (
        tensors and torch.equal(state["optim"]["step"], want["optim"]["step"]) and state["optim"]["rate"] == 0.5 + seed
    )


def test_what_is_saved_is_loaded_bit_for_bit(store: FolderStore, group: dist.ProcessGroup) -> None:
    done = save(store, group, 3)
    assert done.failure is None
    step, state, said = load(store, group)
    assert (step, said) == (3, [])
    assert equal(state, 3)
    manifest = read_manifest(store, Checkpoint(3, 1))
    assert (manifest.tokens_seen, manifest.world_size, manifest.recipe_sha256) == (30, 1, "r")
    assert done.size == sum(each.size for each in manifest.files.values()) > 300 * 700 * 4


def test_a_tensor_that_lies_otherwise_than_it_was_stored_gets_the_same_numbers(
    store: FolderStore, group: dist.ProcessGroup
) -> None:
    save(store, group, 3)
    state = some_state(999)
    state["model"]["a"] = torch.zeros(700, 300).T  # not contiguous
    state["model"]["b"] = torch.zeros(11, dtype=torch.float64)
    load_first_whole(store, committed(store, group), state, group=group, say=print)
    want = some_state(3)["model"]
    assert torch.equal(state["model"]["a"], want["a"])
    assert torch.equal(state["model"]["b"], want["b"].double())


def test_a_save_is_of_the_state_at_its_start(store: FolderStore, group: dist.ProcessGroup) -> None:
    state = some_state(5)
    saver = Saver(store, 1, group=group, recipe_sha256="r")
    saver.start(lambda: state, step=5, tokens_seen=0)
    saver.settle()
    state["model"]["a"].zero_()  # training goes on
    saver.collect()
    assert equal(load(store, group)[1], 5)


class Held(Staging):
    """Copies when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()

    def copy(self, state: State) -> tuple[State, Callable[[], None]]:
        copied, fill = super().copy(state)

        def late() -> None:
            self.let.wait()
            fill()

        return copied, late


def test_training_goes_on_beside_the_copy_and_waits_for_it_before_the_state_changes(
    store: FolderStore, group: dist.ProcessGroup
) -> None:
    staging, state = Held(), some_state(5)
    saver = Saver(store, 1, group=group, recipe_sha256="r", staging=staging)
    assert saver.settle() == 0.0  # no save is under way

    def change() -> None:
        saver.settle()
        for tensor in state["model"].values():
            tensor.add_(1)

    saver.start(lambda: state, step=5, tokens_seen=0)  # returns, though nothing is copied yet
    training = threading.Thread(target=change)
    training.start()
    assert equal(state, 5)
    staging.let.set()
    training.join()
    saver.collect()
    assert not equal(state, 5)
    step, loaded, _ = load(store, group)
    assert step == 5
    assert equal(loaded, 5)


class Broken(Staging):
    """Cannot copy."""

    def copy(self, state: State) -> tuple[State, Callable[[], None]]:
        def fill() -> None:
            raise RuntimeError("no memory")

        return state, fill


def test_a_copy_that_fails_is_not_waited_for_and_raised_where_the_save_is_collected(
    store: FolderStore, group: dist.ProcessGroup
) -> None:
    saver = Saver(store, 1, group=group, recipe_sha256="r", staging=Broken())
    saver.start(lambda: some_state(5), step=5, tokens_seen=0)
    saver.settle()
    with pytest.raises(RuntimeError, match="no memory"):
        saver.collect()
    assert not list(store.list("checkpoints/"))


def test_two_saves_are_never_under_way_at_once(store: FolderStore, group: dist.ProcessGroup) -> None:
    saver = Saver(store, 1, group=group, recipe_sha256="r")
    saver.start(lambda: some_state(1), step=1, tokens_seen=0)
    with pytest.raises(RuntimeError, match="still under way"):
        saver.start(lambda: some_state(2), step=2, tokens_seen=0)
    saver.collect()


FILES = ["rank-00000.bin", sharded.METADATA, layout.MANIFEST]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["a flipped bit", "cut short", "missing", "empty"])
def test_damage_is_found_named_and_passed_over(
    store: FolderStore, group: dist.ProcessGroup, file: str, damage: str
) -> None:
    save(store, group, 3)
    save(store, group, 7)
    path = store.root / Checkpoint(7, 1).prefix / file
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut short":
        path.write_bytes(data[:-1])
    else:
        at = len(data) // 2
        data[at] ^= 1
        path.write_bytes(data)
    step, state, said = load(store, group)
    assert step == 3
    assert equal(state, 3)
    if (file, damage) != (layout.MANIFEST, "missing"):  # without its manifest it was never there
        assert len(said) == 1
        assert "00000007-0001 is passed over" in said[0]


def test_no_bit_of_a_manifest_flips_unseen(store: FolderStore, group: dist.ProcessGroup) -> None:
    save(store, group, 3)
    path = store.root / Checkpoint(3, 1).prefix / layout.MANIFEST
    whole = path.read_bytes()
    assert read_manifest(store, Checkpoint(3, 1)).step == 3
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(Corrupt, match=r"00000003-0001/manifest\.json is damaged"):
            read_manifest(store, Checkpoint(3, 1))


def test_a_manifest_of_before_they_had_a_checksum_is_read(store: FolderStore, group: dist.ProcessGroup) -> None:
    save(store, group, 3)
    manifest = read_manifest(store, Checkpoint(3, 1))
    path = store.root / Checkpoint(3, 1).prefix / layout.MANIFEST
    path.write_bytes(msgspec.json.encode(manifest))
    assert read_manifest(store, Checkpoint(3, 1)) == manifest
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Corrupt, match=r"manifest\.json is damaged"):
        read_manifest(store, Checkpoint(3, 1))


class LostAnswer(FolderStore):
    """A manifest takes effect, and the answer never comes."""

    def create(self, name: str, data: bytes) -> bool:
        created = super().create(name, data)
        if name.endswith(layout.MANIFEST) and created:
            raise StoreError("it cannot be reached")
        return created


@pytest.mark.parametrize("seed", [3, 4])
def test_a_step_saved_again_after_a_commit_that_seemed_to_fail_is_committed_if_it_is_the_same(
    tmp_path: Path, group: dist.ProcessGroup, seed: int
) -> None:
    saver = Saver(LostAnswer(tmp_path / "run"), 1, group=group, recipe_sha256="r")
    failures = []
    for state in (3, seed):
        saver.start(lambda state=state: some_state(state), step=3, tokens_seen=0)  # type: ignore[misc]
        done = saver.collect()
        assert done is not None
        failures.append(str(done.failure or ""))
    assert failures[0] == "it cannot be reached"
    other = "checkpoints/00000003-0001/manifest.json is there and names other files than these."
    assert failures[1] == ("" if seed == 3 else other)


def test_when_none_is_whole_it_says_so_and_deletes_nothing(store: FolderStore, group: dist.ProcessGroup) -> None:
    save(store, group, 3)
    path = store.root / Checkpoint(3, 1).prefix / "rank-00000.bin"
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(Corrupt, match="none of the 1 committed checkpoints"):
        load(store, group)
    assert path.exists()


class FullStore(FolderStore):
    """Has room for everything but a rank's file."""

    def write(self, name: str, chunks: Iterable[bytes | memoryview]) -> int:
        if name.endswith("rank-00000.bin"):
            raise StoreFull("no space is left")
        return super().write(name, chunks)


def test_a_save_that_finds_no_room_commits_nothing_and_says_why(tmp_path: Path, group: dist.ProcessGroup) -> None:
    store = FullStore(tmp_path / "run")
    done = save(store, group, 3)
    assert str(done.failure) == "no space is left"
    assert committed(store, group) == []


def test_old_checkpoints_are_forgotten_and_the_newest_stay(store: FolderStore, group: dist.ProcessGroup) -> None:
    attempt = Attempt.begin(store, {})
    for step in (1, 2, 3, 4):
        save(store, group, step)
    forget(store, attempt.number, keep=2)
    assert committed(store, group) == [Checkpoint(4, 1), Checkpoint(3, 1)]
    assert sorted(path.name for path in (store.root / "checkpoints").iterdir()) == ["00000003-0001", "00000004-0001"]


def test_what_somebody_is_loading_stays_and_goes_when_they_are_done(
    store: FolderStore, group: dist.ProcessGroup
) -> None:
    attempt = Attempt.begin(store, {})
    for step in (1, 2, 3, 4):
        save(store, group, step)
    with reading(store, Checkpoint(2, 1)):
        forget(store, attempt.number, keep=2)
        assert committed(store, group) == [Checkpoint(4, 1), Checkpoint(3, 1), Checkpoint(2, 1)]
    forget(store, attempt.number, keep=2)
    assert committed(store, group) == [Checkpoint(4, 1), Checkpoint(3, 1)]


def test_a_reader_that_takes_long_holds_its_checkpoint_until_it_is_done(store: FolderStore) -> None:
    checkpoint = Checkpoint(2, 1)
    with reading(store, checkpoint, datetime.timedelta(seconds=0.2)):
        (mark,) = layout.being_read(entry.name for entry in store.list("readers/"))
        first = store.read(mark)
        deadline = time.monotonic() + 30
        while store.read(mark) == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert list(store.list("readers/")) == []


def test_the_mark_of_a_reader_that_died_does_not_hold_a_checkpoint_for_ever(
    store: FolderStore, group: dist.ProcessGroup
) -> None:
    attempt = Attempt.begin(store, {})
    for step in (1, 2, 3):
        save(store, group, step)
    store.create(layout.reader_name(Checkpoint(1, 1), "dead"), b"2026-01-01T00:00:00+00:00")
    forget(store, attempt.number, keep=2)
    assert committed(store, group) == [Checkpoint(3, 1), Checkpoint(2, 1)]
    assert list(store.list("readers/")) == []


def test_a_damaged_one_is_not_counted_among_those_kept(store: FolderStore, group: dist.ProcessGroup) -> None:
    Attempt.begin(store, {})
    for step in (1, 2, 3, 4):
        save(store, group, step)
    (store.root / Checkpoint(4, 1).prefix / "rank-00000.bin").write_bytes(b"")
    manifest, damaged = load_first_whole(store, committed(store, group), some_state(9), group=group, say=print)
    assert (manifest.step, damaged) == (3, [Checkpoint(4, 1)])
    forget(store, 1, keep=2, damaged=damaged)
    assert committed(store, group) == [Checkpoint(3, 1), Checkpoint(2, 1)]


def test_an_attempt_that_has_been_superseded_commits_and_deletes_nothing(
    store: FolderStore, group: dist.ProcessGroup
) -> None:
    old = Attempt.begin(store, {})
    for step in (1, 2, 3):
        save(store, group, step)
    Attempt.begin(store, {})
    done = save(store, group, 4)
    assert isinstance(done.failure, Superseded)
    assert str(done.failure) == "Attempt 2 has taken over this run; attempt 1 commits no more."
    forget(store, old.number, keep=2)
    assert committed(store, group) == [Checkpoint(3, 1), Checkpoint(2, 1), Checkpoint(1, 1)]


def test_only_the_rows_that_are_needed_are_read(store: FolderStore, group: dist.ProcessGroup) -> None:
    class Counting(FolderStore):
        read_bytes = 0

        def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
            data = super().read(name, offset, length)
            Counting.read_bytes += len(data) if name.endswith("rank-00000.bin") else 0
            return data

    big = torch.arange(6 << 20, dtype=torch.float32).reshape(-1, 1024)  # three blocks
    saver = Saver(store, 1, group=group, recipe_sha256="r")
    saver.start(lambda: {"big": big}, step=1, tokens_seen=0)
    saver.collect()
    counting = Counting(store.root)
    reader = sharded.StoreReader(counting, Checkpoint(1, 1), read_manifest(store, Checkpoint(1, 1)))
    metadata = reader.read_metadata()
    reader.set_up_storage_reader(metadata, is_coordinator=True)
    index = MetadataIndex("big", torch.Size((0, 0)))
    item = ReadItem(LoadItemType.TENSOR, index, torch.Size((0, 0)), index, torch.Size((16, 0)), torch.Size((4, 1024)))

    class Planner(DefaultLoadPlanner):
        rows = torch.zeros(4, 1024)

        def resolve_tensor(self, read_item: ReadItem) -> torch.Tensor:
            return self.rows

    planner = Planner()
    reader.read_data(LoadPlan([item]), planner).wait()
    assert torch.equal(planner.rows, big[16:20])
    assert Counting.read_bytes == BLOCK_BYTES


def test_attempts_are_numbered_and_an_old_one_learns_of_the_new(store: FolderStore) -> None:
    first = Attempt.begin(store, {"place": "aws/a"})
    assert (first.number, first.newer()) == (1, None)
    second = Attempt.begin(store, {"place": "aws/b"})
    assert (second.number, first.newer(), second.newer()) == (2, 2, None)
