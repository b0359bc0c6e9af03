"""A model in a folder, served on this machine for as long as it is asked: `transformers serve` on a free port."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

from evaluation.errors import EvaluationError

_READY_SECONDS = 600


class Engine:
    """The server as a context; its `url` answers inside, and nothing of it is left afterwards."""

    def __init__(self, model: Path, log: Path) -> None:
        self.model = model.resolve()
        self.log = log
        self.url = f"http://127.0.0.1:{_free_port()}/v1"

    def __enter__(self) -> "Engine":
        program = Path(sys.executable).parent / "transformers"
        if not program.exists():
            raise EvaluationError(
                f"Serving {self.model} here needs an engine; install it with: pip install 'vlaunch[train,serve]', "
                "or give the URL of a server."
            )
        self.log.parent.mkdir(parents=True, exist_ok=True)
        port = self.url.rpartition(":")[2].partition("/")[0]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, "serve", self.model, "--host", "127.0.0.1", "--port", port],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _wait(self) -> None:
        """Until it answers. Raises EvaluationError where it ends instead."""
        until = time.monotonic() + _READY_SECONDS
        while time.monotonic() < until:
            if self._process.poll() is not None:
                said = self.log.read_text(errors="replace").strip().splitlines()
                raise EvaluationError(
                    f"The server of {self.model} ended: {said[-1] if said else 'it said nothing'}. See {self.log}."
                )
            try:
                with urllib.request.urlopen(f"{self.url.removesuffix('/v1')}/health", timeout=5):
                    return
            except (urllib.error.URLError, TimeoutError, ConnectionError):
                time.sleep(0.2)
        raise EvaluationError(f"The server of {self.model} did not answer within {_READY_SECONDS} s. See {self.log}.")

    def _end(self) -> None:
        """SIGKILL, because it does not leave on less; its whole session, because it may have children."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
