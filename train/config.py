"""What a recipe says of model, data and training, and how a recipe's text becomes these. Light: the laptop
reads it too, so nothing heavy is imported here.
"""

from typing import Literal

import msgspec

from checkpoints.config import CheckpointConfig

FINISHED = 0
REFUSED = 1
"""A sentence says why; starting again does not help."""
INTERRUPTED = 75
"""Left with a checkpoint because the machine is going away (EX_TEMPFAIL): start again and it goes on."""

MACHINE_LIFE = "VLAUNCH_MACHINE_LIFE_SECONDS"
"""The variable that says how long the plan expects a machine to last; without, `checkpoints.machine_life_seconds`."""


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[model]` section."""

    base: str
    """A Hugging Face name or a folder with a model in its form; `package:NAME/FILE.gguf`, a GGUF file inside an
    installed Python package; or `tiny`, a Llama of random weights made on the spot, for tests."""

    parameters: float
    """How many, in billions; what a plan is reckoned from."""

    native_context_tokens: int
    """The context the base model was trained with."""

    context_tokens: int
    """The length of a training row."""

    position_interpolation: float = 1.0
    """Linear scaling of rotary positions: 4.0 stretches a context of 4,096 to 16,384."""

    template: Literal["tokenizer", "vicuna", "chatml", "llama2"] = "tokenizer"
    """The chat template; `tokenizer` takes the base model's own, which must mark the assistant's text."""

    attention: Literal["auto", "flash", "varlen", "torch"] = "auto"
    """`flash`: flash-attn; `varlen`: torch's own variable-length kernel; `torch`: torch's attention with a mask, for
    comparison. `auto`: the first of the kernels that this machine has, or torch's attention one conversation at a
    time; the log says which."""

    def __post_init__(self) -> None:
        at_least(self, "context_tokens", 8)
        at_least(self, "native_context_tokens", 8)
        at_least(self, "position_interpolation", 1.0)
        above_zero(self, "parameters")
        reach = self.native_context_tokens * self.position_interpolation
        if self.context_tokens > reach:
            factor = -(-self.context_tokens // self.native_context_tokens)
            raise ValueError(
                f"context_tokens is {self.context_tokens}, more than the {reach:.0f} that {self.base} reaches; "
                f"set position_interpolation = {factor:.1f} or a shorter context"
            )


class DataConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[data]` section."""

    conversations: str
    """ShareGPT conversations, JSON or JSON lines: a path, or a name in the folder the task is launched from."""

    tokens_per_epoch: int = 0
    """How many tokens the conversations hold, where it is known beforehand; what a plan is reckoned from."""

    def __post_init__(self) -> None:
        at_least(self, "tokens_per_epoch", 0)


class TrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[train]` section."""

    epochs: float = 3.0
    """Passes over the data; the last may be a part of one."""

    max_steps: int = 0
    """End after so many steps, 0: no such limit."""

    global_batch: int = 128
    """Rows a step, over all processes; it does not change with the number of machines."""

    micro_batch: int = 1
    """Rows a process computes at once."""

    learning_rate: float = 2e-5
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_fraction: float = 0.04
    """Share of the steps over which the learning rate rises from 0."""

    weight_decay: float = 0.0
    clip_norm: float = 1.0
    precision: Literal["bf16", "fp32"] = "bf16"
    """What is computed in; weights, reductions and the optimizer stay in fp32."""

    activation_checkpointing: bool = True
    cpu_offload: bool = False
    liger: bool = False
    """On a GPU: liger-kernel's fused norm, rotary positions and feed-forward; it must be installed."""

    compile: bool = False
    """On a GPU: each layer through torch.compile."""

    seed: int = 0

    ask: str = ""
    """A question put to the exported model at the end, on the machine that trained it; empty: none."""

    def __post_init__(self) -> None:
        above_zero(self, "epochs")
        above_zero(self, "learning_rate")
        above_zero(self, "clip_norm")
        at_least(self, "max_steps", 0)
        at_least(self, "global_batch", 1)
        at_least(self, "micro_batch", 1)
        at_least(self, "weight_decay", 0.0)
        if not 0 <= self.warmup_fraction < 1:
            raise ValueError(f"warmup_fraction is {self.warmup_fraction:g}; it must be from 0 to under 1")


class LoraConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[lora]` section. With it low-rank adapters are trained and the base stays as it is: a checkpoint carries the
    adapters alone, the export has them merged into the base."""

    rank: int = 16
    alpha: float = 32.0
    """An adapter counts alpha / rank times."""

    dropout: float = 0.0
    target_modules: list[str] = []
    """Names of the layers that get an adapter, as in `["q_proj", "v_proj"]`; empty: every linear layer but the
    output."""

    def __post_init__(self) -> None:
        at_least(self, "rank", 1)
        above_zero(self, "alpha")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout:g}; it must be from 0 to under 1")


class TrainerRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """What the trainer reads of a recipe; sections of the launcher's are none of its business."""

    model: ModelConfig
    data: DataConfig
    train: TrainConfig = msgspec.field(default_factory=TrainConfig)
    lora: LoraConfig | None = None
    checkpoints: CheckpointConfig = msgspec.field(default_factory=CheckpointConfig)


def read_recipe(text: str) -> TrainerRecipe:
    """The trainer's part of a frozen recipe. Raises msgspec.ValidationError, which names section and key."""
    return msgspec.toml.decode(text.encode(), type=TrainerRecipe)


def at_least(config: object, key: str, low: float) -> None:
    """Raise a sentence where `config.key` is under `low`."""
    if getattr(config, key) < low:
        raise ValueError(f"{key} is {getattr(config, key):g}; it must be at least {low:g}")


def above_zero(config: object, key: str) -> None:
    """Raise a sentence where `config.key` is not above zero."""
    if not getattr(config, key) > 0:
        raise ValueError(f"{key} is {getattr(config, key):g}; it must be above 0")
