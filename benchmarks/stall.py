"""What a save costs training, beside torch's own: `python benchmarks/stall.py`.

Two processes hold a model of 47 million parameters and its Adam state (565 MB) under FSDP2 on this machine's CPUs and
save to its disk: by torch.distributed.checkpoint.save, by its async_save with a stager that is kept, and by ours.
Stall is how long training waits, gathering the state dictionary included; durable is until the checkpoint exists.
Beside each save goes one step, forward and backward, as ours copies during it. Two processes on two cores leave the
copy no core of its own, so how much longer save and step together take than the step alone is shown too.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TIMES = 5
TOKENS = 512
"""Of the step beside a save, on each process."""
NONE, BASE, OURS = "none", "dcp.save", "ours"
STALL_AT_MOST, DURABLE_AT_MOST = 0.08, 3.0


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


@dataclass(frozen=True)
class Measured:
    """Seconds of one save."""

    stall: float
    """In which training stood still."""
    both: float
    """Until the step beside it was done too."""
    durable: float


class Ways:
    """The same state saved in each way, a step beside it."""

    def __init__(self, folder: Path, group: Any) -> None:
        from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

        from checkpoints.saver import Saver
        from checkpoints.stores.folder import FolderStore

        self.folder = folder
        self.group = group
        self.network, self.optimizer = model()
        self.stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=False, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=False
            )
        )
        self.saver = Saver(FolderStore(folder / "ours"), 1, group=group, recipe_sha256="")
        self.saver.reserve(self.state())
        self.saves = 0

    def state(self) -> dict[str, Any]:
        from torch.distributed.checkpoint.state_dict import get_state_dict

        weights, moments = get_state_dict(self.network, self.optimizer)
        return {"model": weights, "optim": moments}

    def step(self) -> None:
        """Forward and backward; the optimizer would come next."""
        import torch

        ids = torch.zeros(1, TOKENS, dtype=torch.int64)
        self.network(input_ids=ids, labels=ids).loss.backward()

    def none(self) -> Measured:
        began = time.perf_counter()
        self.step()
        return Measured(0.0, time.perf_counter() - began, 0.0)

    def sync(self) -> Measured:
        import torch.distributed.checkpoint as dcp

        began = time.perf_counter()
        dcp.save(self.state(), checkpoint_id=self.folder / "dcp", process_group=self.group)
        stall = time.perf_counter() - began
        self.step()
        return Measured(stall, time.perf_counter() - began, stall)

    def asynchronous(self) -> Measured:
        import torch.distributed.checkpoint as dcp

        began = time.perf_counter()
        done: Any = dcp.async_save(
            self.state(), checkpoint_id=self.folder / "dcp", process_group=self.group, async_stager=self.stager
        )
        stall = time.perf_counter() - began
        self.step()
        both = time.perf_counter() - began
        getattr(done, "upload_completion", done).result()
        return Measured(stall, both, time.perf_counter() - began)

    def ours(self) -> Measured:
        self.saves += 1
        began = time.perf_counter()
        stall = self.saver.start(self.state, step=self.saves, tokens_seen=0)
        self.step()
        stall += self.saver.settle()
        both = time.perf_counter() - began
        save = self.saver.collect()
        assert save is not None
        assert save.failure is None
        return Measured(stall, both, save.seconds)


def rank(folder: Path) -> None:
    """One of the two processes; rank 0 prints the table."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    ways = Ways(folder, dist.new_group(backend="gloo"))
    # In turn, so that a noisy machine is as noisy for each.
    named = {NONE: ways.none, BASE: ways.sync, "dcp.async_save": ways.asynchronous, OURS: ways.ours}
    found: dict[str, list[Measured]] = {name: [] for name in named}
    for number in range(TIMES + 1):
        for name, way in named.items():
            if dist.get_rank() == 0:
                shutil.rmtree(folder / "dcp", ignore_errors=True)
            dist.barrier()
            seconds = torch.tensor(astuple(way()), dtype=torch.float64)
            dist.all_reduce(seconds, op=dist.ReduceOp.MAX)  # the slower of the two
            if number:  # the first makes files and memory for all of them
                found[name].append(Measured(*seconds.tolist()))
            dist.barrier()
    missed = False
    if dist.get_rank() == 0:
        size = sum(path.stat().st_size for path in next((folder / "ours/checkpoints").iterdir()).iterdir())
        missed = _report(found, size)
    dist.barrier()
    dist.destroy_process_group()
    sys.exit(int(missed))


def _report(found: dict[str, list[Measured]], size: int) -> bool:
    """Print the table; whether a limit is missed."""
    print(f"{size / 1e6:.0f} MB on 2 processes, median of {TIMES} (each)")
    middle = {
        name: Measured(*(statistics.median(column) for column in zip(*map(astuple, times), strict=True)))
        for name, times in found.items()
    }
    base, alone = middle[BASE], middle[NONE].both
    print(f"a step alone takes {alone * 1e3:.0f} ms")
    for name, one in middle.items():
        if name == NONE:
            continue
        each = ", ".join(f"{measured.stall * 1e3:.0f}" for measured in found[name])
        print(
            f"{name:16s} stall {one.stall * 1e3:6.0f} ms ({each}), {one.stall / base.stall:6.1%} of {BASE}; with the "
            f"step {(one.both - alone) * 1e3:.0f} ms more than without; durable after {one.durable:5.2f} s, "
            f"{one.durable / base.durable:.2f} times"
        )
    ours = middle[OURS]
    return ours.stall > STALL_AT_MOST * base.stall or ours.durable > DURABLE_AT_MOST * base.durable


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
