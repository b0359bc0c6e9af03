"""What one training step needs of a GPU's memory, measured without a GPU: the trainer's own model, shards, loss and
optimizer on fake tensors, which have a size and no bytes, among processes that do not exist. Every allocation is
counted by torch's own tracker. A step of a 7B model takes some ten seconds. `train.memory` is held against it.
"""

from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from train import attention
from train import model as models
from train.config import TrainConfig
from train.loss import weighted_loss

_SHARDS = {"Sharded Param": "weights", "Sharded Grad": "gradients", "OptState": "optimizer"}
"""The tracker's names of what is sharded."""


def peak(
    found: Any, train: TrainConfig, *, context_tokens: int, world_size: int, masked: bool = False
) -> dict[str, int]:
    """Bytes on rank 0 at the fullest moment of a step of the model with configuration `found`: its shards of
    `weights`, `gradients` and `optimizer`, and the `rest`.

    Attention is torch's variable-length kernel, with `masked` the one that takes a mask.
    """
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world_size)
    try:
        mesh = init_device_mesh("cpu", (world_size,), mesh_dim_names=("fsdp",))
        with FakeTensorMode():
            counted = _one_step(found, train, context_tokens, mesh, attention.MASKED if masked else attention.VARLEN)
    finally:
        dist.destroy_process_group()
    parts = {part: counted[name] for name, part in _SHARDS.items()}
    return {**parts, "rest": counted["Total"] - sum(parts.values())}


def _one_step(found: Any, train: TrainConfig, context_tokens: int, mesh: DeviceMesh, kernel: str) -> dict[str, int]:
    """The tracker's count at the peak of the second step; the first makes the optimizer's state."""
    from transformers import AutoModelForCausalLM

    attention.register()
    from_config: Any = AutoModelForCausalLM.from_config
    network = from_config(found, attn_implementation=kernel, dtype=torch.float32)
    network, optimizer = models.shard(_place(train, mesh), network, train)
    network.train()
    tokens = train.micro_batch * context_tokens
    ids, learned = torch.zeros(1, tokens, dtype=torch.int64), torch.arange(tokens)  # every token, which is the most
    told: dict[str, Any] = {"logits_to_keep": learned}
    if kernel == attention.VARLEN:
        told |= {
            "cu_seq_lens_q": torch.zeros(train.micro_batch + 1, dtype=torch.int32),
            "max_length_q": context_tokens,
        }

    def step() -> None:
        loss, _ = weighted_loss(network(input_ids=ids, **told).logits[0], ids[0], 1.0)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), train.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    tracker = FSDPMemTracker(network, optimizer)
    tracker.track_inputs((ids,))
    with tracker:
        step()
    (counted,) = tracker.get_tracker_snapshot("peak").values()
    return {str(getattr(name, "value", name)): size for name, size in counted.items()}


def _place(train: TrainConfig, mesh: DeviceMesh) -> SimpleNamespace:
    """Stands in for accelerate, which would want real processes."""
    fsdp = models.plugin(train)
    fsdp.cpu_ram_efficient_loading = False  # there is nothing to load
    return SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=fsdp),
        mixed_precision="bf16" if train.precision == "bf16" else "no",
        is_main_process=True,
        device=torch.device("cpu"),
        torch_device_mesh=mesh,
        parallelism_config=SimpleNamespace(fsdp_dim_names=mesh.mesh_dim_names),
    )
