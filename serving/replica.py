"""One machine of a service: starts an engine, the worker beside it, and answers the probe that asks whether both are
ready. It knows their command lines and nothing of what they say to anyone.

`python -m serving.replica --gateway URL --model NAME --engine URL -- ENGINE COMMAND...`. It ends with the engine, or,
told to leave (SIGTERM), once the worker has handed its answers over.
"""

import argparse
import http.server
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import msgspec

from serving.config import CLOUDS, ENVIRONMENT, WorkerConfig

_LOOK_SECONDS = 0.1
_PROBE_SECONDS = 5.0
_WORKER_RESTARTS_SECONDS = 1.0


class Replica:
    """An engine and a worker, kept together."""

    def __init__(self, engine: Sequence[str], config: WorkerConfig, grace_seconds: float) -> None:
        self.engine_command = list(engine)
        self.config = config
        self.grace_seconds = grace_seconds
        self.worker: subprocess.Popen[bytes] | None = None
        self._told_to_leave = threading.Event()
        self._worker_left = False
        """By itself: the cloud gave it notice. What is left of the machine's time nobody needs."""

    def leave(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Fit for a signal handler."""
        self._told_to_leave.set()

    def run(self) -> int:
        """Until the engine ends or it is told to leave; the exit code."""
        with subprocess.Popen(self.engine_command, stdin=subprocess.DEVNULL, start_new_session=True) as engine:
            try:
                self._keep(engine)
            finally:
                self._end_worker()
                code = engine.poll()
                engine.kill()  # an engine with answers under way takes its time when asked
        if self._told_to_leave.is_set():
            return 0
        print(f"replica: the engine ended with code {code}", flush=True)
        return code or 1

    def why_not_ready(self) -> str:
        """Empty where requests can come."""
        if self._told_to_leave.is_set():
            return "leaving"
        if not self._engine_answers():
            return "the engine does not answer yet"
        if self._worker_left:
            return "the machine will be taken away"
        if self.worker is None or self.worker.poll() is not None:
            return "the worker is not running"
        return "" if Path(self.config.ready_file).exists() else "no gateway has the worker yet"

    def _keep(self, engine: "subprocess.Popen[bytes]") -> None:
        while engine.poll() is None and not self._told_to_leave.wait(_LOOK_SECONDS):
            if self._engine_answers():
                break
        while engine.poll() is None and not self._told_to_leave.is_set():
            code = None if self.worker is None else self.worker.poll()
            self._worker_left = self._worker_left or code == 0
            if not self._worker_left and (self.worker is None or code is not None):
                if self.worker is not None:
                    print(f"replica: the worker ended with code {self.worker.returncode}; again", flush=True)
                    self._told_to_leave.wait(_WORKER_RESTARTS_SECONDS)
                self.worker = self._start_worker()
            self._told_to_leave.wait(_LOOK_SECONDS)

    def _start_worker(self) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, ENVIRONMENT: msgspec.json.encode(self.config).decode()}
        command = [sys.executable, "-m", "serving", "worker"]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment)

    def _engine_answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.config.engine}/health", timeout=_PROBE_SECONDS) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _end_worker(self) -> None:
        """It hands its answers over first."""
        if self.worker is None or self.worker.poll() is not None:
            return
        self.worker.terminate()
        try:
            self.worker.wait(self.grace_seconds)
        except subprocess.TimeoutExpired:
            self.worker.kill()
            self.worker.wait()


def probe_server(replica: Replica, port: int) -> http.server.ThreadingHTTPServer:
    """What answers `/ready` on `port`, and nothing else."""

    class Answer(http.server.BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            why = replica.why_not_ready() if self.path == "/ready" else "only /ready is here"
            status = 404 if self.path != "/ready" else 503 if why else 200
            body = json.dumps({"ready": not why, "why_not": why}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """A probe each few seconds is no news."""

    return http.server.ThreadingHTTPServer(("", port), Answer)


def _cloud() -> str:
    """Whose machine this is, as SkyPilot says it; empty where it does not."""
    return str(json.loads(os.environ.get("SKYPILOT_CLUSTER_INFO", "{}")).get("cloud", "")).lower()


def main(arguments: Sequence[str]) -> int:
    """Run a replica by its command line."""
    parser = argparse.ArgumentParser(prog="serving.replica", description=__doc__)
    parser.add_argument("--gateway", action="append", required=True)
    parser.add_argument("--model", required=True, help="what users call it")
    parser.add_argument("--engine", required=True, metavar="URL")
    parser.add_argument("--engine-model", required=True, help="what the engine calls it")
    parser.add_argument("--ready-port", type=int, required=True)
    parser.add_argument("--grace-seconds", type=float, default=25.0)
    parser.add_argument("command", nargs="+", help="after --: the engine")
    given = parser.parse_args(arguments)
    worker = WorkerConfig(
        gateways=tuple(given.gateway),
        models=(f"{given.model}={given.engine_model}",),
        engine=given.engine,
        token=os.environ.get("VLAUNCH_WORKER_TOKEN", ""),
        ready_file=str(Path(tempfile.mkdtemp(prefix="vlaunch-replica-"), "ready")),
        leave_seconds=given.grace_seconds,
        notice=cloud if (cloud := _cloud()) in CLOUDS else "",
    )
    replica = Replica(given.command, worker, given.grace_seconds)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, replica.leave)
    with probe_server(replica, given.ready_port) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        began = time.monotonic()
        code = replica.run()
        print(f"replica: {time.monotonic() - began:.0f} s", flush=True)
        server.shutdown()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
