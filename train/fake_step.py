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
from train.config import LoraConfig, TrainConfig
from train.loss import weighted_loss

_SHARDS = {"Sharded Param": "weights", "Sharded Grad": "gradients", "OptState": "optimizer"}
"""The tracker's names of what is sharded."""
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers that get an adapter where a recipe names none."""


def peak(
    found: Any,
    train: TrainConfig,
    *,
    context_tokens: int,
    world_size: int,
    masked: bool = False,
    lora: LoraConfig | None = None,
) -> dict[str, int]:
    """Bytes on rank 0 at the fullest moment of a step of the model with configuration `found`: its shards of
    `weights`, `gradients` and `optimizer`, and the `rest`.

    Attention is torch's variable-length kernel, with `masked` the one that takes a mask. Adapters are our own here:
    peft moves its tensors to a device, which fake ones refuse; the arithmetic is the same.
    """
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world_size)
    try:
        mesh = init_device_mesh("cpu", (world_size,), mesh_dim_names=("fsdp",))
        with FakeTensorMode():
            kernel = attention.MASKED if masked else attention.VARLEN
            counted = _one_step(_network(found, train, lora, kernel), train, context_tokens, mesh, kernel)
    finally:
        dist.destroy_process_group()
    parts = {part: counted[name] for name, part in _SHARDS.items()}
    return {**parts, "rest": counted["Total"] - sum(parts.values())}


class _Adapter(torch.nn.Module):
    """A frozen linear layer and what is trained beside it, as peft's `lora.Linear` computes them."""

    def __init__(self, base_layer: torch.nn.Linear, lora: LoraConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.down = torch.nn.Linear(base_layer.in_features, lora.rank, bias=False)
        self.up = torch.nn.Linear(lora.rank, base_layer.out_features, bias=False)
        self.dropout = torch.nn.Dropout(lora.dropout) if lora.dropout else torch.nn.Identity()
        self.scaling = lora.alpha / lora.rank

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = self.up(self.down(self.dropout(given))) * self.scaling
        found: torch.Tensor = self.base_layer(given) + added
        return found


def _network(found: Any, train: TrainConfig, lora: LoraConfig | None, kernel: str) -> Any:
    """The model in fp32; with adapters frozen in the precision of the recipe, and they in fp32."""
    from transformers import AutoModelForCausalLM

    attention.register()
    from_config: Any = AutoModelForCausalLM.from_config
    low = lora is not None and train.precision == "bf16"
    network = from_config(found, attn_implementation=kernel, dtype=torch.bfloat16 if low else torch.float32)
    if lora is None:
        return network
    network.requires_grad_(False)
    for name, module in list(network.named_modules()):
        parent, _, last = name.rpartition(".")
        if isinstance(module, torch.nn.Linear) and last in (lora.target_modules or LINEAR):
            setattr(network.get_submodule(parent), last, _Adapter(module, lora))
    return network


def _one_step(network: Any, train: TrainConfig, context_tokens: int, mesh: DeviceMesh, kernel: str) -> dict[str, int]:
    """The tracker's count at the peak of the second step; the first makes the optimizer's state."""
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
