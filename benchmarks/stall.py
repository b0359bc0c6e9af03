"""What a save costs training, beside torch's own: `python benchmarks/stall.py`.

Two processes hold a model of 47 million parameters and its Adam state (565 MB) under FSDP2 on this machine's CPUs and
save to its disk: by torch.distributed.checkpoint.save, by its async_save with a stager that is kept, and by ours.
Stall is how long a step waits, gathering the state dictionary included; durable is until the checkpoint exists.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TIMES = 3


def model() -> tuple[Any, Any]:
    """A Llama under FSDP2, and AdamW with its state there."""
    import torch
    from torch.distributed.fsdp import fully_shard
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=512, intermediate_size=1408, num_hidden_layers=12, num_attention_heads=8, num_key_value_heads=8,
        vocab_size=8192, max_position_embeddings=512, use_cache=False,
    )  # fmt: skip
    network: Any = LlamaForCausalLM(config)
    for layer in network.model.layers:
        fully_shard(layer)
    fully_shard(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return network, optimizer


def rank(folder: Path) -> None:
    """One of the two processes; rank 0 prints the table."""
    import torch
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
    from torch.distributed.checkpoint.state_dict import get_state_dict

    from checkpoints.saver import Saver
    from checkpoints.stores.folder import FolderStore

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    group = dist.new_group(backend="gloo")
    network, optimizer = model()

    def state() -> dict[str, Any]:
        weights, moments = get_state_dict(network, optimizer)
        return {"model": weights, "optim": moments}

    stager = DefaultStager(
        StagingOptions(
            use_pinned_memory=False, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=False
        )
    )
    saver = Saver(FolderStore(folder / "ours"), 1, group=group, recipe_sha256="")
    saver.reserve(state())
    step = 0

    def sync() -> tuple[float, float]:
        began = time.perf_counter()
        dcp.save(state(), checkpoint_id=folder / "dcp", process_group=group)
        return (time.perf_counter() - began,) * 2

    def asynchronous() -> tuple[float, float]:
        began = time.perf_counter()
        done: Any = dcp.async_save(state(), checkpoint_id=folder / "dcp", process_group=group, async_stager=stager)
        stall = time.perf_counter() - began
        getattr(done, "upload_completion", done).result()
        return stall, time.perf_counter() - began

    def ours() -> tuple[float, float]:
        nonlocal step
        step += 1
        stall = saver.start(state, step=step, tokens_seen=0)
        save = saver.collect()
        assert save is not None
        assert save.failure is None
        return stall, save.seconds

    # In turn, so that a noisy machine is as noisy for each.
    ways: dict[str, Callable[[], tuple[float, float]]] = {
        "dcp.save": sync,
        "dcp.async_save": asynchronous,
        "ours": ours,
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(TIMES):
        for name, way in ways.items():
            if dist.get_rank() == 0:
                shutil.rmtree(folder / "dcp", ignore_errors=True)
            dist.barrier()
            seconds = torch.tensor(way(), dtype=torch.float64)
            dist.all_reduce(seconds, op=dist.ReduceOp.MAX)  # the slower of the two
            found[name].append((float(seconds[0]), float(seconds[1])))
            dist.barrier()
    if dist.get_rank() == 0:
        size = sum(path.stat().st_size for path in next((folder / "ours/checkpoints").iterdir()).iterdir())
        _report(found, size)
    dist.barrier()
    dist.destroy_process_group()


def _report(found: dict[str, list[tuple[float, float]]], size: int) -> None:
    print(f"{size / 1e6:.0f} MB on 2 processes, median of {TIMES} (each)")
    middle = {name: [statistics.median(column) for column in zip(*times, strict=True)] for name, times in found.items()}
    base = middle["dcp.save"][0]
    for name, (stall, durable) in middle.items():
        each = ", ".join(f"{seconds * 1e3:.0f}" for seconds, _ in found[name])
        print(
            f"{name:16s} stall {stall * 1e3:6.0f} ms ({each}), {stall / base:6.1%} of dcp.save; "
            f"durable after {durable:5.2f} s, {durable / base:.2f} times"
        )


def main() -> int:
    """Start the two processes, or be one."""
    if "RANK" in os.environ:
        rank(Path(sys.argv[1]))
        return 0
    with tempfile.TemporaryDirectory(dir=os.environ.get("STALL_FOLDER")) as folder:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        return subprocess.run([*torchrun, __file__, folder], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
