"""A store that is a folder of this machine or of a shared file system. Durable before it says so: every file
and the folder that names it are synced.
"""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from checkpoints.stores.protocol import Entry, StoreError, StoreFull, StoreRefused

_PARTIAL = ".partial"
"""The folder, below a store's root, of files being written; a listing never shows it."""


class FolderStore:
    """Objects are files below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)

    def place(self) -> str:
        return ""

    def inside(self, prefix: str) -> "FolderStore":
        return FolderStore(self._path(prefix))

    def list(self, prefix: str = "") -> Iterator[Entry]:
        start = self.root / prefix.rpartition("/")[0]
        with self._failing("listed"):
            for folder, folders, files in os.walk(start):
                folders[:] = [each for each in folders if each != _PARTIAL]
                for file in sorted(files):
                    path = Path(folder, file)
                    name = path.relative_to(self.root).as_posix()
                    if name.startswith(prefix):
                        with contextlib.suppress(FileNotFoundError):  # deleted while we walk
                            yield Entry(name, path.stat().st_size)

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        with self._failing(f"read ({name})"), self._path(name).open("rb") as file:
            file.seek(offset)
            return file.read(-1 if length is None else length)

    def part(self, name: str, offset: int = 0, length: int | None = None) -> memoryview:
        return memoryview(self.read(name, offset, length))

    def write(self, name: str, chunks: Iterable[bytes | memoryview]) -> int:
        target = self._path(name)
        with self._failing(f"written ({name})"):
            partial, size = self._partial(target, chunks)
            with self._removed_on_failure(partial):
                try:
                    os.replace(partial, target)
                except FileNotFoundError:
                    raise StoreError(
                        f"{partial} was removed while {name} was written; the run has a new owner."
                    ) from None
            self._sync_folder(target.parent)
        return size

    def create(self, name: str, data: bytes) -> bool:
        target = self._path(name)
        with self._failing(f"written ({name})"):
            partial, _ = self._partial(target, [data])
            try:
                # A hard link appears whole or not at all, and fails where the name is taken.
                os.link(partial, target)
            except FileExistsError:
                return False
            except FileNotFoundError:
                raise StoreError(f"{partial} was removed while {name} was written; the run has a new owner.") from None
            finally:
                partial.unlink(missing_ok=True)
            self._sync_folder(target.parent)
        return True

    def delete(self, names: Iterable[str]) -> None:
        with self._failing("deleted from"):
            for name in names:
                path = self._path(name)
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # not empty yet, or gone already
                    path.parent.rmdir()

    def tidy(self) -> None:
        with self._failing("tidied"):
            for partial in (self.root / _PARTIAL).glob("*"):
                partial.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        path = self.root / name
        if ".." in path.parts:
            raise ValueError(f"{name!r} leaves the store")
        return path

    def _partial(self, target: Path, chunks: Iterable[bytes | memoryview]) -> tuple[Path, int]:
        """The chunks in a synced file that can be renamed to `target`."""
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = self.root / _PARTIAL / uuid.uuid4().hex
        partial.parent.mkdir(exist_ok=True)
        size = 0
        with self._removed_on_failure(partial), partial.open("xb") as file:
            for chunk in chunks:
                size += file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return partial, size

    @staticmethod
    @contextlib.contextmanager
    def _removed_on_failure(partial: Path) -> Iterator[None]:
        try:
            yield
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    @staticmethod
    def _sync_folder(folder: Path) -> None:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _failing(self, done: str) -> Iterator[None]:
        """Translate the operating system's words; a missing object stays FileNotFoundError."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as failure:
            where = f"The store {self.uri} could not be {done}"
            if failure.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreFull(
                    f"{where}: no space is left on its disk. Free some, or name another store with "
                    "--set checkpoints.store=…; what was committed is safe."
                ) from failure
            if failure.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS):
                why = "a file is in the way" if failure.errno == errno.EEXIST else os.strerror(failure.errno).lower()
                raise StoreRefused(
                    f"{where}: {why}. Choose a folder this user may write, with --set checkpoints.store=…"
                ) from failure
            raise StoreError(f"{where}: {failure.strerror or failure}.") from failure
