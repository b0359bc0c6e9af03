"""`torchrun -m tests.killed_trainer`: the trainer over a store that comes to a halt at a moment the test names,
so that the test can kill the whole machine exactly there.

KILL_AT is one of `start`, `save`, `before-manifest`, `after-manifest`, or empty; KILL_STEP the first step whose
checkpoint counts. When the moment has come the file KILL_SIGNAL appears, and nothing more happens.
"""

import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from checkpoints import layout
from checkpoints.stores.folder import FolderStore
from train.__main__ import main


class HaltingStore(FolderStore):
    """A folder that stops answering at the moment that is asked for."""

    def inside(self, prefix: str) -> "HaltingStore":
        return HaltingStore(self._path(prefix))

    def create(self, name: str, data: bytes) -> bool:
        manifest = name.endswith(layout.MANIFEST) and self._is_due(name)
        if manifest and self._wanted("before-manifest"):
            self._halt()
        created = super().create(name, data)
        if (manifest and self._wanted("after-manifest")) or (name.startswith("attempts/") and self._wanted("start")):
            self._halt()
        return created

    def write(self, name: str, chunks: Iterable[bytes | memoryview]) -> int:
        if name.endswith("rank-00001.bin") and self._is_due(name) and self._wanted("save"):
            chunks = self._halfway(chunks)
        return super().write(name, chunks)

    def _halfway(self, chunks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        for number, chunk in enumerate(chunks):
            if number == 3:
                self._halt()
            yield chunk

    @staticmethod
    def _wanted(moment: str) -> bool:
        return os.environ["KILL_AT"] == moment

    @staticmethod
    def _is_due(name: str) -> bool:
        found = re.search(r"checkpoints/(\d+)-", name)
        return found is not None and int(found[1]) >= int(os.environ["KILL_STEP"])

    @staticmethod
    def _halt() -> None:
        Path(os.environ["KILL_SIGNAL"]).touch()
        time.sleep(1000)


if __name__ == "__main__":
    sys.exit(main(lambda uri, transfer: HaltingStore(Path(uri))))
