"""Blocks of a checkpoint are fetched beside their placing, and only so many are held."""

import threading
from pathlib import Path

import xxhash

from checkpoints import blocks
from checkpoints.blocks import Blocks
from checkpoints.layout import Checkpoint, FileSum, Manifest
from checkpoints.stores.folder import FolderStore

FILE = "rank-00000.bin"
MANY = 3 * blocks._BLOCKS_AHEAD


class Counting(FolderStore):
    """Notes how many blocks were asked for, and at first answers none before several are asked for at once."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked = 0
        self.together = threading.Barrier(blocks._BLOCKS_AT_ONCE)
        self.counting = threading.Lock()

    def part(self, name: str, offset: int = 0, length: int | None = None) -> memoryview:
        with self.counting:
            self.asked += 1
            early = self.asked <= blocks._BLOCKS_AT_ONCE
        if early:
            self.together.wait(30)
        return super().part(name, offset, length)


def test_blocks_are_fetched_several_at_once_ahead_of_their_use_and_no_more_than_a_few_are_held(tmp_path: Path) -> None:
    store, size = Counting(tmp_path), 1000
    data = bytes(range(250)) * (MANY * size // 250)
    store.write(Checkpoint(1, 1).prefix + FILE, [data])
    digests = [xxhash.xxh3_128_hexdigest(data[at : at + size]) for at in range(0, len(data), size)]
    manifest = Manifest(
        step=1, attempt=1, tokens_seen=0, world_size=1, recipe_sha256="", created_at="", block_bytes=size,
        files={FILE: FileSum(size=len(data), digests=digests)},
    )  # fmt: skip
    found = Blocks(store, Checkpoint(1, 1), manifest)
    with found.ahead([(FILE, 0, len(data))]):
        for index in range(MANY):
            assert found.block(FILE, index) == data[index * size : (index + 1) * size]
            assert store.asked <= index + 1 + blocks._BLOCKS_AHEAD
    assert store.asked == MANY
