"""What every store offers, and how it fails. Names are relative, with `/`; bytes are streamed."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec


class StoreError(Exception):
    """A store could not do what was asked; the text is one sentence for a person, without secrets."""


class StoreRefused(StoreError):
    """Retrying cannot help: no permission, no such bucket, a wrong secret, a path that is not a folder."""


class StoreFull(StoreRefused):
    """No space is left."""


class Entry(msgspec.Struct, frozen=True):
    """One object in a listing."""

    name: str
    size: int


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """How bytes travel to and from a bucket."""

    memory_mb: int = 256
    """Most that one process holds of what is on its way."""

    idle_seconds: float = 30.0
    """A request that makes no progress for so long has failed and is tried again."""

    retry_seconds: float = 180.0
    """How long what may be tried again is tried again, with growing pauses of random length."""


class Store(Protocol):
    """Bytes under names. Every method raises StoreError, whose text can be shown as it is, and may be called
    from several threads at once."""

    uri: str

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Every object whose name starts with `prefix`, in no promised order."""

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """The bytes of `name` from `offset`; FileNotFoundError where there is no such object. Fewer bytes than
        `length` come back only where the object ends."""

    def part(self, name: str, offset: int = 0, length: int | None = None) -> memoryview:
        """The same bytes where they arrived; `read` copies them, which for large ones is half of the work."""

    def write(self, name: str, chunks: Iterable[bytes | memoryview]) -> int:
        """Store the chunks under `name`, durably, all or nothing; the number of bytes. What the store received is
        what was sent: a bucket is given checksums and asked for the size afterwards."""

    def create(self, name: str, data: bytes) -> bool:
        """Store `data` under `name` only if nothing is there; whether it did. Of several callers at once
        exactly one gets True, also where the answer to its request was lost and it asked again."""

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects in the order given; one that is not there is no error."""

    def tidy(self) -> None:
        """Remove what writers that died left unfinished; for the attempt that owns the run."""

    def place(self) -> str:
        """Whose cloud bills it and where: `aws/us-east-1`, `aws` where the region is not told, empty where no cloud
        does (a folder, a server of one's own)."""

    def inside(self, prefix: str) -> "Store":
        """The same store seen from below `prefix`."""
