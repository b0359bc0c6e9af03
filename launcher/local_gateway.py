"""The gateway of a service on this machine: its process, and how much it says it has to do."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

_LOOK_SECONDS = 0.1
_START_SECONDS = 30.0
_ANSWER_SECONDS = 60.0


class LocalGateway:
    """A gateway process, which is started again where it ends."""

    def __init__(self, mark: str, token: str, port: int, arguments: Sequence[str], hear: Callable[[str], None]) -> None:
        """`mark` is the VLAUNCH_MACHINE by which its end finds it; `hear` gets each line it says."""
        self.mark = mark
        self.token = token
        self.port = port
        self.arguments = arguments
        self.hear = hear
        self._process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> bool:
        """Whether it answers; where not, it is ended."""
        environment = {**os.environ, "VLAUNCH_MACHINE": self.mark, "VLAUNCH_WORKER_TOKEN": self.token}
        process = subprocess.Popen(
            [sys.executable, "-m", "launcher", "gateway", "--port", str(self.port), *self.arguments],
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", start_new_session=True,
        )  # fmt: skip
        self._process = process
        threading.Thread(target=self._pump, args=(process,), daemon=True).start()
        over = time.monotonic() + _START_SECONDS
        while not answers(self.port, "/health"):
            if process.poll() is not None or time.monotonic() > over:
                self.end()
                return False
            time.sleep(_LOOK_SECONDS)
        return True

    def end(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def _pump(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self.hear(line.rstrip())


def measured(port: int, name: str) -> Counter[str]:
    """What the gateway's /metrics say under `name`, added up by model; nothing where it does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return Counter()
    finally:
        connection.close()
    found: Counter[str] = Counter()
    for labels, number in re.findall(rf"^{name}\{{(.*)\}} (\S+)$", text, re.M):
        model = re.search(r'model="([^"]*)"', labels)
        found[model[1] if model else ""] += int(float(number))
    return found


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int, path: str = "/ready") -> bool:
    """Whether 200 comes back from this machine's `port`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
