"""Raw chats by the names a person gives them: files and folders of this machine, and objects in stores of clouds, which
the room of conversations is handed as streams.
"""

import io
from collections.abc import Sequence
from typing import Any, BinaryIO

from checkpoints.stores import Store, open_store
from conversations import sources
from conversations.sources import Source
from launcher.errors import VlaunchError

CHUNK = 4 << 20


class StoredFile(io.RawIOBase):
    """An object of a store as a file that is read from anywhere."""

    def __init__(self, store: Store, name: str, size: int) -> None:
        self._store = store
        self._name = name
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        data = self._store.read(self._name, self._at, length)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class StoredSource:
    """A source that lies in a store."""

    def __init__(self, store: Store, entry: str, size: int, name: str) -> None:
        self._store = store
        self._entry = entry
        self.size = size
        self.name = name

    def open(self) -> BinaryIO:
        return io.BufferedReader(StoredFile(self._store, self._entry, self.size), CHUNK)

    def stamp(self) -> str:
        return f"{self.name} {self.size}"


def find(given: Sequence[str]) -> list[Source]:
    """The sources at paths and URIs, in the order given. Raises ConversationsError, StoreError, VlaunchError."""
    found: list[Source] = []
    for each in given:
        found += _stored(each) if "://" in each else sources.local([each])
    return found


def _stored(uri: str) -> list[Source]:
    """One object, or every one below a prefix that is named like chats."""
    scheme, _, path = uri.rstrip("/").partition("://")
    bucket, _, key = path.partition("/")
    folder, _, name = key.rpartition("/")
    above = f"{scheme}://{bucket}/{folder}".rstrip("/")
    store = open_store(above)
    entries = sorted((entry.name, entry.size) for entry in store.list(name))
    below = [(each, size) for each, size in entries if each == name]
    if not below:
        prefix = f"{name}/" if name else ""
        below = [(each, size) for each, size in entries if each.startswith(prefix) and sources.is_chats(each)]
    if not below:
        raise VlaunchError(f"There are no chats at {uri}.")
    return [StoredSource(store, each, size, f"{above}/{each}") for each, size in below]
