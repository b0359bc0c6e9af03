"""A checkpoint's files as blocks with a checksum each: summed on the way out, verified on the way in, fetched ahead of
their use. Knows nothing of tensors.
"""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import xxhash

from checkpoints import layout
from checkpoints.layout import Checkpoint, FileSum, Manifest
from checkpoints.stores import Store

BLOCK_BYTES = 8 << 20
_BLOCKS_AT_ONCE = 4
_BLOCKS_AHEAD = 8
"""Blocks of a checkpoint that a rank holds or fetches while it places another: 64 MB."""


class Corrupt(Exception):
    """A file of a committed checkpoint is missing or is not what its manifest says; names file and reason."""


class Summed:
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


class Blocks:
    """The files of a committed checkpoint, of which nothing comes back that its manifest does not vouch for."""

    def __init__(self, store: Store, checkpoint: Checkpoint, manifest: Manifest) -> None:
        self.store = store
        self.prefix = checkpoint.prefix
        self.manifest = manifest
        self._cached: tuple[str, int, memoryview] = ("", -1, memoryview(b""))
        self._ahead: _Ahead | None = None

    @contextlib.contextmanager
    def ahead(self, pieces: list[tuple[str, int, int]]) -> Iterator[None]:
        """Fetch what will be read (file, offset and length of each, in that order) before it is asked for."""
        wanted = dict.fromkeys(block for piece in pieces for block in self._blocks(*piece))
        with ThreadPoolExecutor(_BLOCKS_AT_ONCE, thread_name_prefix="read-ahead") as pool:
            self._ahead = _Ahead(self._fetch, list(wanted), pool)
            try:
                yield
            finally:
                self._ahead.cancel()
                self._ahead = None

    def bytes_of(self, file: str, offset: int, length: int) -> bytearray:
        """`length` verified bytes. Raises Corrupt."""
        data = bytearray(length)
        self.fill(memoryview(data), file, offset)
        return data

    def fill(self, memory: memoryview, file: str, offset: int) -> None:
        """Copy as many verified bytes as `memory` has room for. Raises Corrupt, perhaps after some were copied."""
        end = offset + len(memory)
        for _, index in self._blocks(file, offset, len(memory)):
            start = index * self.manifest.block_bytes
            low, high = max(offset, start), min(end, start + self.manifest.block_bytes)
            memory[low - offset : high - offset] = self.block(file, index)[low - start : high - start]

    def _blocks(self, file: str, offset: int, length: int) -> list[tuple[str, int]]:
        block = self.manifest.block_bytes
        return [(file, index) for index in range(offset // block, -(-(offset + length) // block))] if length else []

    def size(self, file: str) -> int:
        """Of a file, by the manifest. Raises Corrupt."""
        if file not in self.manifest.files:
            raise Corrupt(f"{self.prefix}{file} is not in the manifest")
        return self.manifest.files[file].size

    def block(self, file: str, index: int) -> memoryview:
        """One verified block, without a copy. Raises Corrupt."""
        if self._cached[:2] != (file, index):
            data = self._ahead.take((file, index)) if self._ahead else self._fetch((file, index))
            self._cached = (file, index, data)
        return self._cached[2]

    def _fetch(self, block: tuple[str, int]) -> memoryview:
        file, index = block
        size = self.size(file)
        start = index * self.manifest.block_bytes
        want = min(self.manifest.block_bytes, size - start)
        try:
            data = self.store.part(self.prefix + file, start, want)
        except FileNotFoundError:
            raise Corrupt(f"{self.prefix}{file} is missing") from None
        if len(data) != want:
            raise Corrupt(f"{self.prefix}{file} is cut short: {start + len(data)} of {size} bytes")
        if xxhash.xxh3_128_hexdigest(data) != self.manifest.files[file].digests[index]:
            raise Corrupt(f"{self.prefix}{file} is damaged: the checksum of bytes {start} to {start + want} differs")
        return data


class _Ahead:
    """Blocks fetched before they are asked for, in the order in which they will be; only so many are held."""

    def __init__(
        self, fetch: Callable[[tuple[str, int]], memoryview], wanted: list[tuple[str, int]], pool: ThreadPoolExecutor
    ) -> None:
        self._fetch = fetch
        self._wanted = iter(wanted)
        self._pool = pool
        self._under_way: dict[tuple[str, int], Any] = {}
        for _ in range(_BLOCKS_AHEAD):
            self._begin_next()

    def take(self, block: tuple[str, int]) -> memoryview:
        """Waits for `block`, and begins another one."""
        future = self._under_way.pop(block, None)
        self._begin_next()
        data: memoryview = future.result() if future is not None else self._fetch(block)
        return data

    def cancel(self) -> None:
        for future in self._under_way.values():
            future.cancel()

    def _begin_next(self) -> None:
        block = next(self._wanted, None)
        if block is not None:
            self._under_way[block] = self._pool.submit(self._fetch, block)


class _Sealed(msgspec.Struct, frozen=True):
    """A manifest as it is stored. It vouches for every other file and nothing for it, so its own checksum is beside
    it."""

    manifest: msgspec.Raw
    xxh3_128: str


def sealed(manifest: Manifest) -> bytes:
    """The bytes that `read_manifest` reads."""
    text = msgspec.json.encode(manifest)
    return msgspec.json.encode(_Sealed(msgspec.Raw(text), xxhash.xxh3_128_hexdigest(text)))


def read_manifest(store: Store, checkpoint: Checkpoint) -> Manifest:
    """The manifest of a committed checkpoint. Raises Corrupt where it is not what was written."""
    name = checkpoint.prefix + layout.MANIFEST
    try:
        data = store.read(name)
        if data.startswith(b'{"step"'):  # of a run that was begun before manifests had a checksum
            return msgspec.json.decode(data, type=Manifest)
        found = msgspec.json.decode(data, type=_Sealed)
        if xxhash.xxh3_128_hexdigest(found.manifest) != found.xxh3_128:
            raise Corrupt(f"{name} is damaged: its checksum differs")
        return msgspec.json.decode(found.manifest, type=Manifest)
    except FileNotFoundError:
        raise Corrupt(f"{name} is missing") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as failure:
        raise Corrupt(f"{name} is damaged: {failure}") from failure
