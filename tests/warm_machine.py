"""Attempts of the real trainer that start in a second: their processes are forked from a parent that has imported
everything already (tests/warm_parent.py).
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher import recipe
from tests import servers
from train.config import INTERRUPTED

_GRACE_SECONDS = 5.0
"""For the others' last words, once one has failed; torchrun gives 30."""
ROOT = Path(__file__).resolve().parent.parent


class Machine:
    """The processes of an attempt, forked from a parent that is warm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.attempts = 0
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "tests.warm_parent"],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def close(self) -> None:
        """End the parent; its children are ended by whoever started them."""
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.close()
        self._parent.stdout.close()
        self._parent.wait()

    def start(
        self, run: str, store: str, changes: list[str], environment: dict[str, str] | None = None, processes: int = 2
    ) -> "Life":
        """Begin an attempt of `run`, the tiny recipe with `changes`."""
        self.attempts += 1
        log = self.folder / f"attempt-{self.attempts}.txt"
        (port,) = servers.free_ports(1)
        about = {
            "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            "VLAUNCH_RUN": run, "VLAUNCH_STORE": store,
            "VLAUNCH_SCRATCH": str(self.folder / f"scratch-{self.attempts}"),
            "VLAUNCH_RECIPE": recipe.load("tiny", changes).text,
            **(environment or {}),
        }  # fmt: skip
        return Life(self, self._ask({"environment": about, "log": str(log)}), log)

    def ended(self, pids: list[int]) -> dict[int, int]:
        return {int(pid): code for pid, code in self._ask({"pids": pids}).items()}

    def _ask(self, request: object) -> Any:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(request) + "\n")
        self._parent.stdin.flush()
        return json.loads(self._parent.stdout.readline())


@dataclass
class Life:
    """One attempt's processes."""

    machine: Machine
    pids: list[int]
    log: Path
    codes: dict[int, int] = field(default_factory=dict)
    _kill_at: float = 0.0

    def kill(self, how: int = signal.SIGKILL) -> None:
        """A signal to all of them."""
        for pid in self.pids:
            if pid not in self.codes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, how)

    def over(self) -> bool:
        """Whether all have ended; where one has failed the other is ended after a while, as torchrun would."""
        self.codes |= self.machine.ended([pid for pid in self.pids if pid not in self.codes])
        if any(code not in (0, INTERRUPTED) for code in self.codes.values()):
            self._kill_at = self._kill_at or time.monotonic() + _GRACE_SECONDS
            if time.monotonic() > self._kill_at:
                self.kill()
        return len(self.codes) == len(self.pids)

    def wait(self, seconds: float) -> bool:
        """Until all have ended, at most so long; whether they have."""
        deadline = time.monotonic() + seconds
        while not self.over():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    @property
    def finished(self) -> bool:
        return all(self.codes.get(pid) == 0 for pid in self.pids)
