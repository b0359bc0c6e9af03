"""A gigabyte to an S3 server and back, beside boto3's own transfer manager: `python benchmarks/stores.py`.

What is compared: bytes in memory to an object, and an object to bytes in memory, one process a transfer, its seconds
and CPU without the imports. Ours does what a checkpoint does: 8 MB blocks, each with its checksum for the manifest on
the way up, fetched ahead and compared with the manifest on the way down; then the bytes of both are dropped. Beside
that they are "kept", ours in memory made for tensors and boto3's in a BytesIO, and boto3's go "to a file", which its
users take: a model is larger than what they keep in memory.

SeaweedFS runs on this machine, its data in memory where there is a /dev/shm, so that no disk decides. It shares the
cores with the client; where both keep them busy, the server's CPU bounds what any client can reach. The ratio of a
client that costs nothing is printed beside ours. Rounds alternate the order and have a server each; medians count.
"""

import argparse
import io
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil

from checkpoints.blocks import BLOCK_BYTES, Blocks, Summed
from checkpoints.layout import Checkpoint, Manifest
from checkpoints.stores import Transfer, open_store

ROOT = Path(__file__).resolve().parent.parent
MEGABYTE = 1 << 20
BUCKET = "bench"
FILE = "rank-00000.bin"
CHECKPOINT = Checkpoint(1, 1)
UP, DOWN = 1.2, 2.0
"""Times boto3 that were aimed at."""


class Cost(msgspec.Struct, frozen=True):
    """One transfer, or the medians of several."""

    seconds: float
    client_cpu: float
    server_cpu: float
    peak_mb: float

    @property
    def cpu(self) -> float:
        return self.client_cpu + self.server_cpu


def blocks(megabytes: int) -> Iterator[memoryview]:
    """As many bytes as asked for, from one block of random ones: nobody holds a gigabyte."""
    block = memoryview(random.Random(1).randbytes(BLOCK_BYTES))
    return (block for _ in range(megabytes * MEGABYTE // BLOCK_BYTES))


class Reader:
    """The blocks as the file that boto3 wants; whole blocks come back without a copy."""

    def __init__(self, megabytes: int) -> None:
        self._left = megabytes * MEGABYTE
        self._block = bytes(next(blocks(8)))

    def read(self, size: int = -1) -> bytes:
        size = self._left if size < 0 else min(size, self._left)
        self._left -= size
        whole, rest = divmod(size, BLOCK_BYTES)
        return self._block * whole + self._block[:rest]


class Sink:
    """Takes what boto3 fetches and forgets it."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: bytes) -> int:
        self.size += len(data)
        return len(data)


def ours_up(megabytes: int) -> Callable[[], object]:
    store = open_store(f"s3://{BUCKET}", Transfer())
    return lambda: store.write(CHECKPOINT.prefix + FILE, Summed().through(blocks(megabytes)))


def ours_down(megabytes: int) -> Callable[[], object]:
    found, size = checkpoint(megabytes)

    def fetch() -> None:
        with found.ahead([(FILE, 0, size)]):
            assert sum(len(found.block(FILE, index)) for index in range(size // BLOCK_BYTES)) == size

    return fetch


def ours_kept(megabytes: int) -> Callable[[], object]:
    found, size = checkpoint(megabytes)
    memory = memoryview(bytearray(size))

    def fetch() -> None:
        with found.ahead([(FILE, 0, size)]):
            found.fill(memory, FILE, 0)

    return fetch


def checkpoint(megabytes: int) -> tuple[Blocks, int]:
    """What `ours_up` has written, with the manifest it would have, and its bytes."""
    store = open_store(f"s3://{BUCKET}", Transfer())
    summed = Summed()
    for _ in summed.through(blocks(megabytes)):
        pass
    manifest = Manifest(
        step=1, attempt=1, tokens_seen=0, world_size=1, recipe_sha256="", created_at="", block_bytes=BLOCK_BYTES,
        files={FILE: summed.sum()},
    )  # fmt: skip
    return Blocks(store, CHECKPOINT, manifest), summed.size


def boto3_up(megabytes: int, part: int) -> Callable[[], object]:
    client, config = _boto3(part)
    return lambda: client.upload_fileobj(Reader(megabytes), BUCKET, "boto3", Config=config)


def boto3_down(megabytes: int, part: int) -> Callable[[], object]:
    client, config = _boto3(part)
    sink = Sink()
    return lambda: client.download_fileobj(BUCKET, CHECKPOINT.prefix + FILE, sink, Config=config)


def boto3_kept(megabytes: int, part: int) -> Callable[[], object]:
    client, config = _boto3(part)
    memory = io.BytesIO()
    return lambda: client.download_fileobj(BUCKET, CHECKPOINT.prefix + FILE, memory, Config=config)


def boto3_file(megabytes: int, part: int) -> Callable[[], object]:
    client, config = _boto3(part)
    path = os.environ["BENCH_FOLDER"] + "/fetched"
    return lambda: client.download_file(BUCKET, CHECKPOINT.prefix + FILE, path, Config=config)


def _boto3(part: int) -> tuple[Any, Any]:
    import boto3
    from boto3.s3.transfer import TransferConfig

    return boto3.client("s3"), TransferConfig(multipart_chunksize=part * MEGABYTE)


TRANSFERS: dict[str, dict[str, Callable[[int], Callable[[], object]]]] = {
    "up": {
        "ours": ours_up,
        "boto3, as it comes": lambda megabytes: boto3_up(megabytes, 8),
        "boto3, 64 MB parts": lambda megabytes: boto3_up(megabytes, 64),
    },
    "down": {
        "ours": ours_down,
        "boto3, as it comes": lambda megabytes: boto3_down(megabytes, 8),
        "boto3, 64 MB parts": lambda megabytes: boto3_down(megabytes, 64),
        "ours, kept": ours_kept,
        "boto3, kept": lambda megabytes: boto3_kept(megabytes, 8),
        "boto3, to a file": lambda megabytes: boto3_file(megabytes, 8),
    },
}


def child(direction: str, peer: str, megabytes: int) -> None:
    """One transfer; prints what it cost."""
    ready = TRANSFERS[direction][peer](megabytes)
    server = psutil.Process(int(os.environ["BENCH_SERVER"]))
    before, cpu, began = server.cpu_times(), time.process_time(), time.perf_counter()
    ready()
    seconds, used, after = time.perf_counter() - began, time.process_time() - cpu, server.cpu_times()
    served = after.user + after.system - before.user - before.system
    print(json.dumps([seconds, used, served, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


def measured(direction: str, peer: str, megabytes: int, environment: dict[str, str]) -> Cost:
    done = subprocess.run(
        [sys.executable, __file__, "--child", direction, peer, "--megabytes", str(megabytes)],
        capture_output=True, text=True, check=True, env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return Cost(*json.loads(done.stdout))


def one_round(number: int, megabytes: int) -> dict[tuple[str, str], Cost]:
    """Every transfer once; every second round in the other order."""
    from tests import servers

    found = {}
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder, servers.seaweedfs(Path(folder)) as server:
        (process,) = [each for each in psutil.Process().children() if each.name() == "weed"]
        environment = {**server.environment, "BENCH_SERVER": str(process.pid), "BENCH_FOLDER": tempfile.gettempdir()}
        servers.make_bucket(server, BUCKET)
        measured("up", "ours", 64, environment)  # the server makes its first volumes
        for direction, peers in TRANSFERS.items():
            for peer in list(peers)[:: 1 if number % 2 else -1]:
                cost = found[direction, peer] = measured(direction, peer, megabytes, environment)
                print(f"round {number}: {direction:4s} {peer:20s} {megabytes / cost.seconds:5.0f} MB/s", flush=True)
    return found


def compared(costs: dict[tuple[str, str], Cost], direction: str, megabytes: int) -> float:
    """Print how ours stands to every other, kept to kept; the ratio to boto3 as it comes."""
    ratios = {}
    for peer in TRANSFERS[direction]:
        cost, ours = costs[direction, peer], costs[direction, "ours, kept" if "kept" in peer else "ours"]
        ratios[peer] = cost.seconds / ours.seconds
        print(
            f"{direction:4s} {peer:20s} {megabytes / cost.seconds:5.0f} MB/s; {cost.client_cpu:5.2f} s of CPU, the "
            f"server's {cost.server_cpu:5.2f}; {cost.peak_mb:4.0f} MB; ours {ratios[peer]:.2f} times as quick with "
            f"{ours.client_cpu / cost.client_cpu:.2f} of the CPU; if it cost none {cost.cpu / ours.server_cpu:.2f}"
        )
    return ratios["boto3, as it comes"]


def main() -> int:
    """Print the table; 1 where a target is missed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--megabytes", type=int, default=1024)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--child", nargs=2)
    chosen = options.parse_args()
    if chosen.child:
        child(*chosen.child, chosen.megabytes)
        return 0
    sys.path.insert(0, str(ROOT))
    rounds = [one_round(number, chosen.megabytes) for number in range(1, chosen.rounds + 1)]
    costs = {
        each: Cost(
            *(statistics.median(getattr(found[each], part) for found in rounds) for part in Cost.__struct_fields__)
        )
        for each in rounds[0]
    }
    up, down = (compared(costs, direction, chosen.megabytes) for direction in TRANSFERS)
    return int(up < UP or down < DOWN or max(costs[each, "ours"].peak_mb for each in TRANSFERS) > 512)


if __name__ == "__main__":
    sys.exit(main())
