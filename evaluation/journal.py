"""An append-only file of JSON lines with one writer: a line is on the disk when `append` returns, and a line that a
killed writer left half written is taken away when the next one opens the file.
"""

import datetime
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import msgspec

from evaluation.errors import EvaluationError


def utc_now() -> str:
    """The time, UTC, ISO 8601 with milliseconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Journal:
    """The file, locked while it is open. Raises EvaluationError where it is in use or cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = path.open("ab+")
        except OSError as failure:
            raise self._unwritable(failure) from failure
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as failure:
            self._file.close()
            raise EvaluationError(f"{path} is being written by another vlaunch; wait for it or end it.") from failure
        self._file.truncate(self._whole())

    def append(self, record: msgspec.Struct) -> None:
        """Write one line, durable when this returns."""
        try:
            self._file.write(msgspec.json.encode(record) + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as failure:
            raise self._unwritable(failure) from failure

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the file to the next writer."""
        self._file.close()

    def _whole(self) -> int:
        """How many bytes are whole lines."""
        self._file.seek(0)
        return self._file.read().rfind(b"\n") + 1

    def _unwritable(self, failure: OSError) -> EvaluationError:
        return EvaluationError(
            f"{self.path} cannot be written: {failure.strerror}. What is in it is whole; free space or choose "
            "another --folder, and run the command again to go on."
        )
