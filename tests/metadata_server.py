"""The metadata servers of the clouds as a machine sees them, for real over HTTP on this machine."""

import datetime
import email.utils
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class MetadataServer:
    """Answers as AWS, Google and Azure do; `announce` is the cloud's decision to take the machine."""

    def __init__(self) -> None:
        self.ending: float | None = None
        """Seconds that are left at the announcement, None while there is none."""
        self.announced_at = 0.0
        self.rebalance = False
        self.changed = threading.Condition()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

            def do_PUT(self) -> None:
                given = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
                self._answer(200 if given and self.path == "/latest/api/token" else 400, b"a-token")

            def do_GET(self) -> None:
                self._answer(*server.answer(self.path, dict(self.headers.items())))

            def _answer(self, code: int, body: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> "MetadataServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.changed:
            self.changed.notify_all()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def environment(self) -> dict[str, str]:
        """What points a client here."""
        address = f"127.0.0.1:{self._http.server_port}"
        return {
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{address}",
            "GCE_METADATA_HOST": address,
            "VLAUNCH_AZURE_METADATA": f"http://{address}",
        }

    def announce(self, seconds: float) -> None:
        """From now on the machine has `seconds` left."""
        with self.changed:
            self.ending, self.announced_at = seconds, time.time()
            self.changed.notify_all()

    def answer(self, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        """The status and body for a GET."""
        url = urlsplit(path)
        headers = {name.lower(): value for name, value in headers.items()}
        if url.path.startswith("/latest/"):
            if headers.get("x-aws-ec2-metadata-token") != "a-token":
                return 401, b""
            return self._aws(url.path)
        if url.path == "/computeMetadata/v1/instance/preempted" and headers.get("metadata-flavor") == "Google":
            return self._google(parse_qs(url.query))
        if url.path == "/metadata/scheduledevents" and headers.get("metadata") == "true":
            return self._azure()
        return 404, b""

    def _aws(self, path: str) -> tuple[int, bytes]:
        if path.endswith("/spot/instance-action") and self.ending is not None:
            end = datetime.datetime.fromtimestamp(self.announced_at + self.ending, datetime.UTC)
            action = {"action": "terminate", "time": end.strftime("%Y-%m-%dT%H:%M:%SZ")}
            return 200, json.dumps(action).encode()
        if path.endswith("/events/recommendations/rebalance") and self.rebalance:
            return 200, json.dumps({"noticeTime": "2026-11-25T08:22:00Z"}).encode()
        return 404, b""

    def _google(self, query: dict[str, list[str]]) -> tuple[int, bytes]:
        if query.get("wait_for_change") == ["true"]:
            with self.changed:
                if self.ending is None:
                    self.changed.wait(float(query["timeout_sec"][0]))
        return 200, b"FALSE" if self.ending is None else b"TRUE"

    def _azure(self) -> tuple[int, bytes]:
        events = []
        if self.ending is not None:
            before = email.utils.formatdate(self.announced_at + self.ending, usegmt=True)
            events = [{"EventId": "1", "EventType": "Preempt", "EventStatus": "Scheduled", "NotBefore": before}]
        return 200, json.dumps({"DocumentIncarnation": 1, "Events": events}).encode()
