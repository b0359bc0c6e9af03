"""A gigabyte to an S3 server and back, beside boto3's own transfer manager: `python benchmarks/stores.py`.

SeaweedFS runs on this machine. Each transfer is a process of its own, whose peak of memory is shown; ours sends from
memory in 8 MB blocks, as a checkpoint does, and reads blocks ahead, as a resume does. The other's best of several
settings counts.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from checkpoints.stores import Transfer, open_store

ROOT = Path(__file__).resolve().parent.parent
MEGABYTE = 1 << 20
BLOCK = 8 * MEGABYTE
BUCKET = "bench"


def blocks(megabytes: int) -> Iterator[memoryview]:
    """As many bytes as asked for, from one block of random ones: nobody holds a gigabyte."""
    block = memoryview(os.urandom(BLOCK))
    return (block for _ in range(megabytes * MEGABYTE // BLOCK))


class Reader:
    """The blocks as the file that boto3 wants."""

    def __init__(self, megabytes: int) -> None:
        self._left = megabytes * MEGABYTE
        self._block = os.urandom(BLOCK)

    def read(self, size: int = -1) -> bytes:
        size = self._left if size < 0 else min(size, self._left)
        self._left -= size
        whole, rest = divmod(size, BLOCK)
        return self._block * whole + self._block[:rest]


class Sink:
    """Takes what boto3 fetches, in order or not, and forgets it."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: bytes) -> int:
        self.size += len(data)
        return len(data)


def ours_up(megabytes: int, name: str) -> None:
    open_store(f"s3://{BUCKET}", Transfer()).write(name, blocks(megabytes))


def ours_down(megabytes: int, name: str) -> None:
    """Blocks in order, four at once, eight held: what checkpoints.sharded does."""
    store = open_store(f"s3://{BUCKET}", Transfer())
    starts = list(range(0, megabytes * MEGABYTE, BLOCK))
    size = 0
    with ThreadPoolExecutor(4) as pool:
        ahead = [pool.submit(store.read, name, start, BLOCK) for start in starts[:8]]
        for at in range(len(starts)):
            size += len(ahead.pop(0).result())
            if at + 8 < len(starts):
                ahead.append(pool.submit(store.read, name, starts[at + 8], BLOCK))
    assert size == megabytes * MEGABYTE


def _boto3(threads: int, part: int) -> tuple[Any, Any]:
    import boto3
    from boto3.s3.transfer import TransferConfig

    config = TransferConfig(max_concurrency=threads, multipart_chunksize=part * MEGABYTE, multipart_threshold=MEGABYTE)
    return boto3.client("s3"), config


def boto3_up(megabytes: int, name: str, threads: int, part: int) -> None:
    client, config = _boto3(threads, part)
    client.upload_fileobj(Reader(megabytes), BUCKET, name, Config=config)


def boto3_down(megabytes: int, name: str, threads: int, part: int) -> None:
    client, config = _boto3(threads, part)
    sink = Sink()
    client.download_fileobj(BUCKET, name, sink, Config=config)
    assert sink.size == megabytes * MEGABYTE


PEERS = {"boto3, as it comes": (10, 8), "boto3, 64 MB parts": (10, 64), "boto3, 4 threads": (4, 16)}


def child(what: str, megabytes: int, name: str) -> None:
    """One transfer; prints seconds and the peak of memory in MB."""
    peer, _, direction = what.rpartition("/")
    began = time.perf_counter()
    if peer == "ours":
        (ours_up if direction == "up" else ours_down)(megabytes, name)
    else:
        (boto3_up if direction == "up" else boto3_down)(megabytes, name, *PEERS[peer])
    seconds = time.perf_counter() - began
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measured(what: str, megabytes: int, name: str) -> tuple[float, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--child", what, "--megabytes", str(megabytes), "--name", name],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    seconds, memory = map(float, done.stdout.split())
    return seconds, memory


def main() -> int:
    """Print the table; 1 where a target is missed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--megabytes", type=int, default=1024)
    options.add_argument("--times", type=int, default=2)
    options.add_argument("--child", default="")
    options.add_argument("--name", default="")
    chosen = options.parse_args()
    if chosen.child:
        child(chosen.child, chosen.megabytes, chosen.name)
        return 0
    sys.path.insert(0, str(ROOT))
    from tests import servers

    speed: dict[str, dict[str, float]] = {"up": {}, "down": {}}
    memory: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, servers.seaweedfs(Path(folder)) as server:
        os.environ.update(server.environment)
        servers.make_bucket(server, BUCKET)
        measured("ours/up", 64, "warm")  # the server makes its first volumes
        for direction in ("up", "down"):
            for peer in ("ours", *PEERS):
                found = [measured(f"{peer}/{direction}", chosen.megabytes, "object") for _ in range(chosen.times)]
                seconds = statistics.median(seconds for seconds, _ in found)
                speed[direction][peer] = chosen.megabytes / seconds
                memory[peer] = max(memory.get(peer, 0), *(peak for _, peak in found))
                print(f"{direction:4s} {peer:20s} {speed[direction][peer]:7.0f} MB/s", flush=True)
    ratios = {}
    for direction, found in speed.items():
        best = max((peer for peer in found if peer != "ours"), key=lambda peer: found[peer])
        ratios[direction] = found["ours"] / found[best]
        plain = found["ours"] / found[next(iter(PEERS))]
        print(f"{direction}: {ratios[direction]:.2f} times {best}; {plain:.2f} times boto3 as it comes")
    print("peak memory of a process: " + ", ".join(f"{peer} {peak:.0f} MB" for peer, peak in memory.items()))
    return int(ratios["up"] < 1.2 or ratios["down"] < 2 or memory["ours"] > 512)


if __name__ == "__main__":
    sys.exit(main())
