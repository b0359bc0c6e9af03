"""Real gateways, workers and engines as processes of their own, for tests that kill them. All end with the test."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from launcher.serving_process import environment
from serving.config import ApiKey, GatewayConfig, WorkerConfig, WorkerToken, hashed
from tests.servers import free_port

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "a-registration-token"
TOKENS = (WorkerToken(name="test", sha256=hashed(TOKEN)),)
PATIENCE_SECONDS = 120.0


class Parts:
    """Starts processes and ends them all; each part is found by what it is called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: list[str], variables: dict[str, str] | None = None) -> None:
        """Its log begins anew; that of an earlier process of the name is lost."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                command, cwd=ROOT, env=variables or dict(os.environ), stdout=log, stderr=log, start_new_session=True
            )

    def engine(self, name: str, *flags: str) -> str:
        port = free_port()
        self.start(name, [sys.executable, "benchmarks/dummy_engine.py", str(port), *flags])
        return f"http://127.0.0.1:{port}"

    def gateway(self, name: str = "gateway", **settings: Any) -> str:
        """Its address, once it listens."""
        config = msgspec.structs.replace(GatewayConfig(port=0, worker_tokens=TOKENS), **settings)
        self.start(name, [sys.executable, "-m", "serving", "gateway"], environment(config))
        found = self.wait_for_log(name, r'"gateway listens".*"port":(\d+)')
        return f"http://127.0.0.1:{found.group(1)}"

    def worker(self, name: str, gateways: tuple[str, ...], engine: str, **settings: Any) -> None:
        config = WorkerConfig(
            gateways=gateways, engine=engine, name=name, **({"models": ("dummy",), "token": TOKEN} | settings)
        )
        self.start(name, [sys.executable, "-m", "serving", "worker"], environment(config))

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        self.processes[name].send_signal(number)
        self.processes[name].wait(PATIENCE_SECONDS)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def wait_for_log(self, name: str, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            found = re.search(pattern, self.log(name))
            if found:
                return found
            assert self.processes[name].poll() is None, f"{name} has ended:\n{self.log(name)}"
            time.sleep(0.02)
        raise AssertionError(f"{name} never said {pattern}:\n{self.log(name)}")

    def end(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
        for process in self.processes.values():
            process.wait(PATIENCE_SECONDS)


@contextmanager
def parts(folder: Path) -> Iterator[Parts]:
    made = Parts(folder)
    try:
        yield made
    finally:
        made.end()


def wait_for_workers(gateway: str, count: int, model: str = "dummy") -> None:
    """Until so many workers of `model` take requests."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if httpx.get(f"{gateway}/health").json().get("ready_workers", {}).get(model, 0) == count:
            return
        time.sleep(0.02)
    raise AssertionError(f"{gateway} never had {count} workers of {model}")


def key(name: str, secret: str, **settings: Any) -> ApiKey:
    return ApiKey(name=name, sha256=hashed(secret), **settings)


def wait_for_log_line(serving: Parts, name: str, *words: str) -> None:
    """Until a line of the log holds all the words."""
    serving.wait_for_log(name, ".*".join(re.escape(word) for word in words))
