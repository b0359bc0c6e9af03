"""Files of conversations as they are written: JSON or JSON lines, compressed or not, whole or not at all, the same
bytes for the same records; and the manifest beside each.
"""

import contextlib
import errno
import gzip
import hashlib
import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from conversations.errors import ConversationsError
from conversations.records import Input

MANIFEST = ".manifest.json"


class Writer:
    """Takes records as JSON and puts them into the file that the name's ending asks for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(path.name + ".partial")
        plain = path.name.removesuffix(".gz").removesuffix(".zst")
        if not plain.endswith((".json", ".jsonl")):
            raise ConversationsError(f"{path} should end in .json or .jsonl (and .gz or .zst to compress).")
        self._as_list = plain.endswith(".json")
        self._file: BinaryIO | None = None
        self.records = 0

    def __enter__(self) -> "Writer":
        self._raw = self._partial.open("wb")
        if self.path.name.endswith(".gz"):
            self._file = gzip.GzipFile(filename="", mode="wb", fileobj=self._raw, mtime=0)  # type: ignore[assignment]
        elif self.path.name.endswith(".zst"):
            import zstandard

            self._file = zstandard.ZstdCompressor(level=10).stream_writer(self._raw, closefd=False)
        else:
            self._file = self._raw
        return self

    def write(self, record: bytes) -> None:
        """One record as JSON, without a line's end."""
        assert self._file is not None
        if self._as_list:
            self._file.write(b",\n" if self.records else b"[\n")
            self._file.write(record)
        else:
            self._file.write(record + b"\n")
        self.records += 1

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        assert self._file is not None
        if kind is None and self._as_list:
            self._file.write(b"\n]\n" if self.records else b"[]\n")
        if self._file is not self._raw:
            self._file.close()
        self._raw.flush()
        if kind is None:
            os.fsync(self._raw.fileno())
        self._raw.close()
        if kind is None:
            os.replace(self._partial, self.path)
        else:
            self._partial.unlink(missing_ok=True)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a file of conversations is made of. It holds no time: the same inputs make the same manifest."""

    format: int = 1
    made_by: str
    """The command."""
    file: str
    sha256: str
    bytes: int
    records: int
    inputs: list[Input]
    settings: dict[str, Any]
    """Rules, or what else the command was told."""
    counts: dict[str, Any]
    versions: dict[str, str]


def describe(path: Path, *, made_by: str, inputs: list[Input], settings: dict[str, Any], counts: dict[str, Any],
             records: int, libraries: tuple[str, ...] = ()) -> Manifest:  # fmt: skip
    """Write the manifest of the file at `path` beside it."""
    manifest = Manifest(
        made_by=made_by,
        file=path.name,
        sha256=sha256(path),
        bytes=path.stat().st_size,
        records=records,
        inputs=inputs,
        settings=settings,
        counts=counts,
        versions={name: importlib.metadata.version(name) for name in ("vlaunch", *libraries)},
    )
    beside = manifest_path(path)
    partial = beside.with_name(beside.name + ".partial")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
    os.replace(partial, beside)
    return manifest


def manifest_path(path: Path) -> Path:
    return path.with_name(path.name + MANIFEST)


def read_manifest(path: Path) -> Manifest | None:
    """The manifest beside a file; None where there is none. Raises ConversationsError where it is not one."""
    beside = manifest_path(path)
    try:
        return msgspec.json.decode(beside.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, OSError) as failure:
        raise ConversationsError(f"The manifest {beside} cannot be read: {failure}.") from None


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """The operating system's refusals as sentences; `out` names what was being written."""
    try:
        yield
    except OSError as failure:
        why = (failure.strerror or str(failure)).lower()
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            why = "no space is left on its disk; free some and give the same command again, it goes on"
        raise ConversationsError(f"{failure.filename or out} could not be written or read: {why}.") from None
