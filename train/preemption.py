"""Learns that the machine is about to be taken, and tells the loop at the next step's end: save and leave.

SIGTERM is how a shutdown, Slurm, Kubernetes and SkyPilot say it; AWS, Google and Azure have a metadata server on the
machine, which a thread watches. The decision to stop is made by all ranks together.
"""

import contextlib
import datetime
import email.utils
import json
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

GRACE = "VLAUNCH_GRACE_SECONDS"
"""Set by train.torchrun: how long a worker has after SIGTERM."""
_POLL_SECONDS = 2.0
_GOOGLE_GRACE_SECONDS = 30.0
_AZURE_GRACE_SECONDS = 30.0
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""A metadata server is on the machine itself."""


class Notice:
    """Whether this process has been told to leave, by whom, and until when it has time."""

    def __init__(self, grace_seconds: float = 30.0) -> None:
        self.at: float | None = None
        """time.monotonic() of the notice."""
        self.source = ""
        self._grace_seconds = grace_seconds
        self._deadline = float("inf")
        self._warned = threading.Event()
        self._done = threading.Event()

    def listen(self) -> None:
        """From now on SIGTERM is a notice, not the end."""
        signal.signal(signal.SIGTERM, self._handle)

    @contextlib.contextmanager
    def watching(self, cloud: str, environment: Mapping[str, str]) -> Iterator[None]:
        """Ask the metadata server of `cloud` (aws, gcp, azure) meanwhile; other places have none."""
        watch = {"aws": self._watch_aws, "gcp": self._watch_google, "azure": self._watch_azure}.get(cloud)
        if watch is not None:
            threading.Thread(target=watch, args=(environment,), name=f"notices-{cloud}", daemon=True).start()
        try:
            yield
        finally:
            self._done.set()

    def told(self, source: str, seconds_left: float) -> None:
        """The machine goes away in `seconds_left`; the first to say so counts, the earliest end too."""
        now = time.monotonic()
        self._deadline = min(self._deadline, now + seconds_left)
        if self.at is None:
            self.source = source
            self.at = now

    def seconds_left(self) -> float:
        """Until the machine goes; for ever where nobody has said so."""
        return self._deadline - time.monotonic()

    def take_warning(self) -> bool:
        """True once after the cloud has warned that this machine is likelier to go than others: a save is wise, but
        leaving is not, for it may stay for hours.
        """
        if not self._warned.is_set():
            return False
        self._warned.clear()
        return True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.told("SIGTERM", self._grace_seconds)

    def _every_poll(self, ask: Callable[[], None]) -> None:
        """Until told or done. A server that does not answer now is asked again: notices are best effort anyway, and
        SIGTERM comes in the end.
        """
        while not self._done.is_set() and self.at is None:
            with contextlib.suppress(OSError, ValueError, KeyError):
                ask()
            self._done.wait(_POLL_SECONDS)

    def _watch_aws(self, environment: Mapping[str, str]) -> None:
        server = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254"
        token = ""
        warned = False

        def ask() -> None:
            nonlocal token, warned
            try:
                action = _get(f"{server}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
                if action is not None:
                    self.told("AWS spot instance action", _until(_utc(json.loads(action)["time"])))
                    return
                path = "/latest/meta-data/events/recommendations/rebalance"
                if not warned and _get(server + path, {"X-aws-ec2-metadata-token": token}) is not None:
                    warned = True
                    self._warned.set()
            except PermissionError:  # none yet, or it has run out
                lasting = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
                token = (_get(f"{server}/latest/api/token", lasting, method="PUT") or b"").decode()
                if token:
                    ask()

        self._every_poll(ask)

    def _watch_google(self, environment: Mapping[str, str]) -> None:
        server = environment.get("GCE_METADATA_HOST") or "metadata.google.internal"
        url = f"http://{server}/computeMetadata/v1/instance/preempted"
        state = {"wait": False}

        def ask() -> None:
            # The first answer comes at once, for it may have happened already; the next ones when it changes.
            query = "?wait_for_change=true&timeout_sec=30" if state["wait"] else ""
            answer = _get(url + query, {"Metadata-Flavor": "Google"}, timeout=40)
            state["wait"] = answer is not None
            if answer is not None and answer.strip().upper() == b"TRUE":
                self.told("Google preemption", _GOOGLE_GRACE_SECONDS)

        self._every_poll(ask)

    def _watch_azure(self, environment: Mapping[str, str]) -> None:
        server = environment.get("VLAUNCH_AZURE_METADATA") or "http://169.254.169.254"
        url = f"{server}/metadata/scheduledevents?api-version=2020-07-01"

        def ask() -> None:
            # The first answer may take two minutes: Azure begins to look only now.
            answer = _get(url, {"Metadata": "true"}, timeout=130)
            for event in json.loads(answer or b"{}").get("Events", ()):
                if event["EventType"] in ("Preempt", "Terminate"):
                    at = event.get("NotBefore")
                    left = _until(email.utils.parsedate_to_datetime(at)) if at else _AZURE_GRACE_SECONDS
                    self.told(f"Azure scheduled event {event['EventType']}", left)

        self._every_poll(ask)


def _get(url: str, headers: dict[str, str], *, method: str = "GET", timeout: float = 5.0) -> bytes | None:
    """The answer, None where there is none (404). Raises PermissionError for 401, OSError where it fails."""
    try:
        with _NO_PROXY.open(urllib.request.Request(url, headers=headers, method=method), timeout=timeout) as answer:
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError as failure:
        failure.close()
        if failure.code == 404:
            return None
        if failure.code == 401:
            raise PermissionError(url) from None
        raise


def _utc(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def _until(when: datetime.datetime) -> float:
    return (when - datetime.datetime.now(datetime.UTC)).total_seconds()
