"""Where raw chats come from: files, folders of them, and streams that somebody else opened. Knows compression and
tables of Hugging Face datasets; not what a record says.
"""

import bz2
import hashlib
import io
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import msgspec

from conversations.errors import ConversationsError, Unreadable

SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet", ".arrow")
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
BESIDE = (".manifest.json", ".report.jsonl", ".report.jsonl.gz", "dataset_info.json", "dataset_dict.json", "state.json")
"""Ends of names that are not chats though they look so: this room's own, and those a dataset's folder has."""
CHUNK = 1 << 18
"""Bytes that are read at a time."""
_PACKED_CHUNK = 1 << 14
"""Small, so that what expands a thousandfold is still little at a time."""


class Source(Protocol):
    """A file of chats. Names are what a person typed, or below it."""

    name: str
    size: int
    """Bytes, as stored."""

    def open(self) -> BinaryIO:
        """Its bytes, from the beginning. Raises ConversationsError."""

    def stamp(self) -> str:
        """What changes when its content does; cheap, no reading."""


class LocalFile:
    """A file of this machine."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.size = path.stat().st_size

    def open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as failure:
            raise ConversationsError(
                f"{self.name} cannot be read: {(failure.strerror or str(failure)).lower()}."
            ) from None

    def stamp(self) -> str:
        facts = self.path.stat()
        return f"{self.path.resolve()} {facts.st_size} {facts.st_mtime_ns}"


class Hashing(io.RawIOBase):
    """A stream that knows the SHA-256 of what was read of it, in order."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._hash.update(data)
        self.size += len(data)
        return len(data)

    def finish(self) -> str:
        """The hash of the whole, of what nobody asked for too."""
        while self.read(CHUNK):
            pass
        return self._hash.hexdigest()


def local(given: Sequence[str]) -> list[Source]:
    """The files at the paths given, folders walked in order of names. Raises ConversationsError."""
    found: list[Source] = []
    for each in given:
        path = Path(each).expanduser()
        if path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if file.is_file() and is_chats(file.name)]
            if not inside:
                raise ConversationsError(
                    f"The folder {each} holds no chats: no file that ends in {', '.join(SUFFIXES)} (or compressed)."
                )
            found += [LocalFile(file, str(Path(each) / file.relative_to(path))) for file in inside]
        elif path.exists():
            found.append(LocalFile(path, each))
        else:
            raise ConversationsError(f"There is nothing at {each}.")
    return found


def is_chats(name: str) -> bool:
    """Whether a file in a folder is taken for chats, by its name."""
    plain = name.lower()
    if plain.startswith(".") or plain.endswith(BESIDE):
        return False
    for end in COMPRESSED:
        plain = plain.removesuffix(end)
    return plain.endswith(SUFFIXES)


def unpacked(stream: BinaryIO) -> BinaryIO:
    """The stream without its compression and in UTF-8, by its first bytes and not by its name. Where the data is
    broken, reading by `read1` gives what comes before and then raises Unreadable.
    """
    buffered = io.BufferedReader(stream, CHUNK)  # type: ignore[type-var]
    head = buffered.peek(8)[:8]
    if head.startswith(b"\x1f\x8b"):
        return unpacked(_Unpacked(buffered, lambda: zlib.decompressobj(wbits=31)))  # type: ignore[arg-type]
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        import zstandard

        return unpacked(_Unpacked(buffered, zstandard.ZstdDecompressor().decompressobj))  # type: ignore[arg-type]
    if head.startswith(b"BZh"):
        return unpacked(_Unpacked(buffered, bz2.BZ2Decompressor))  # type: ignore[arg-type]
    if head.startswith(b"\xfd7zXZ\x00"):
        return unpacked(_Unpacked(buffered, lzma.LZMADecompressor))  # type: ignore[arg-type]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return io.BufferedReader(_Recoded(buffered))
    if head.startswith(b"\xef\xbb\xbf"):
        buffered.read(3)
    return buffered


class _Unpacked(io.RawIOBase):
    """Compressed data, one or several pieces of it after another, unpacked."""

    def __init__(self, stream: BinaryIO, decoder: Callable[[], Any]) -> None:
        self._stream = stream
        self._new = decoder
        self._decoder: Any = None
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            data = self._stream.read(_PACKED_CHUNK)
            if not data and self._decoder is None:
                return 0
            if not data:
                raise Unreadable("truncated", "its compressed data ends early")
            self._left = self._decompress(data)
        taken, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)

    def _decompress(self, data: bytes) -> bytes:
        parts = []
        while data:
            self._decoder = self._decoder or self._new()
            try:
                parts.append(self._decoder.decompress(data))
            except Exception as failure:  # noqa: BLE001 - each library has errors of its own, and all mean this
                raise Unreadable("truncated", f"its compressed data is broken: {failure}") from None
            if not self._decoder.eof:
                break
            data = self._decoder.unused_data.lstrip(b"\0")
            self._decoder = None
        return b"".join(parts)


class _Recoded(io.RawIOBase):
    """UTF-16, as its byte order mark says, as UTF-8."""

    def __init__(self, stream: BinaryIO) -> None:
        self._text = io.TextIOWrapper(stream, encoding="utf-16", newline="")
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            try:
                self._left = self._text.read(1 << 16).encode()
            except UnicodeError:
                raise Unreadable("encoding", "its text is not the UTF-16 that its first bytes promise") from None
        data, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


def rows(stream: BinaryIO) -> Iterator[bytes]:
    """The rows of a parquet or arrow file, each as JSON. Raises Unreadable."""
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise missing("pyarrow", "a table of a dataset") from None
    try:
        head = stream.read(4)
        stream.seek(0)
        batches: Iterator[Any]
        if head == b"PAR1":
            batches = pyarrow.parquet.ParquetFile(stream).iter_batches(batch_size=256)
        elif head == b"ARRO":
            file = pyarrow.ipc.open_file(stream)
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
        else:
            batches = iter(pyarrow.ipc.open_stream(stream))
        for batch in batches:
            for row in batch.to_pylist():
                yield msgspec.json.encode(row, enc_hook=str)
    except (pyarrow.ArrowException, OSError) as failure:
        raise Unreadable("truncated", f"it is not a whole table: {str(failure).splitlines()[0]}") from None


def is_table(head: bytes) -> bool:
    """Whether a file that begins so is parquet, or arrow as a file or a stream."""
    return head[:4] in (b"PAR1", b"ARRO", b"\xff\xff\xff\xff")


def missing(package: str, what: str) -> ConversationsError:
    """The sentence for a library that is not installed."""
    return ConversationsError(f"{what[:1].upper()}{what[1:]} needs {package}: pip install 'vlaunch[data]'")
