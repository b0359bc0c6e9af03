"""Bytes a GPU needs for one training step, by part, reckoned from a model's shape: light and without torch, because the
laptop's plan refuses what does not fit before a machine is paid for. `train.fake_step` measures the same on fake
tensors, and the tests hold the two together.

A step is fullest at one of a few moments, and which one depends on model, row length and number of GPUs. With N
parameters over W GPUs every GPU holds 4N/W bytes of weights and 8N/W of AdamW's state; each moment adds its own:

- `loss`: the logits of all tokens and their gradient.
- `tail`: norm and output layer go backward and their gradients are reduced; all layers' inputs are still held.
- `layer`: a layer is computed again and goes backward, while the next one's weights are gathered and the one's before
  are reduced. Early, most layers' inputs are held; late, most gradients are there.
- `embedding`: the last to be reduced.
- `optimizer`: all gradients, nothing else.
"""

import math
from collections.abc import Iterator

import msgspec

from train import lora_memory
from train.config import LoraConfig, ModelConfig, TrainConfig
from train.shapes import LOSS_CHUNK_TOKENS, SHAPES, Needs, Shape

GIB = 1 << 30
MARGIN_BYTES = 2 * GIB
"""For what no count of tensors sees: the CUDA context, NCCL's buffers, the kernels' workspaces."""
MARGIN_SHARE = 0.05
"""Of everything counted, for fragmentation. Both are estimates that no GPU has confirmed yet."""

ACCELERATOR_GB = {
    "A100": 40, "A100-80GB": 80, "A100-80GB-SXM": 80, "H100": 80, "H100-SXM": 80, "H200": 141, "B200": 180,
    "L40S": 48, "L40": 48, "A40": 48, "A6000": 48, "RTX6000-Ada": 48, "A10": 24, "A10G": 24, "L4": 24, "RTX4090": 24,
    "V100": 16, "V100-32GB": 32, "T4": 16, "P100": 16,
}  # fmt: skip
"""Memory by the makers' data sheets, in units of 2^30 bytes, by SkyPilot's names."""


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a recipe fits on a GPU."""

    fits: bool
    needs: Needs
    margin: float
    """Bytes left aside on top of `needs`."""
    accelerator_gb: float
    instead: list[str]
    """What would fit, as a person would type it; empty where it fits or nothing tried does."""
    assumption: str

    def sentence(self) -> str:
        """For a person: what it takes, and what to do where that is too much."""
        needs = self.needs
        parts = ", ".join(
            f"{part} {getattr(needs, part) / GIB:.1f}"
            for part in ("weights", "gradients", "optimizer", "activations", "buffers")
        )
        said = (
            f"A step needs {(needs.total + self.margin) / GIB:.1f} of {self.accelerator_gb:g} GB a GPU ({parts}, "
            f"margin {self.margin / GIB:.1f})"
        )
        if self.fits:
            return f"{said}."
        return f"{said}; it does not fit. " + (
            f"What would: {'; '.join(self.instead)}." if self.instead else "Nothing tried would; take a larger GPU."
        )


def shape_of(model: ModelConfig) -> tuple[Shape, str]:
    """The shape the model is reckoned with, the nearest by number of parameters, and the assumption in words: the
    laptop has not loaded the model and does not know it better."""
    size = model.parameters * 1e9
    nearest = min(SHAPES, key=lambda shape: abs(math.log(shape.parameters / size)))
    return nearest, f"memory is reckoned with the shape of {nearest.name} for {model.base}"


def fits(
    model: ModelConfig, train: TrainConfig, world_size: int, accelerator_gb: float, lora: LoraConfig | None = None
) -> Fit:
    """Whether a step of the recipe fits on each of `world_size` GPUs of `accelerator_gb` x 2^30 bytes.

    A plan calls this for every kind of machine it considers, with all GPUs of all nodes as `world_size` and
    ACCELERATOR_GB's figure, leaves out what does not fit, and shows `sentence()` where nothing is left.
    """
    shape, assumption = shape_of(model)
    needs, room = peak(shape, model, train, world_size, lora), accelerator_gb * GIB
    if _with_margin(needs) <= room:
        instead: list[str] = []
    else:
        instead = [
            f"{said} ({_with_margin(other) / GIB:.1f} GB)"
            for said, changed, gpus in _alternatives(train, world_size)
            if _with_margin(other := peak(shape, model, changed, gpus, lora)) <= room
        ][:3]
    return Fit(
        fits=_with_margin(needs) <= room, needs=needs, margin=_with_margin(needs) - needs.total,
        accelerator_gb=accelerator_gb, instead=instead, assumption=assumption,
    )  # fmt: skip


def _with_margin(needs: Needs) -> float:
    return needs.total * (1 + MARGIN_SHARE) + MARGIN_BYTES


def _alternatives(train: TrainConfig, world_size: int) -> Iterator[tuple[str, TrainConfig, int]]:
    """Changes that need less, the mildest first."""
    replace = msgspec.structs.replace
    gentle = replace(train, activation_checkpointing=True, micro_batch=1)
    if train.micro_batch > 1:
        yield "--set train.micro_batch=1", replace(train, micro_batch=1), world_size
    if not train.activation_checkpointing:
        yield "--set train.activation_checkpointing=true", replace(train, activation_checkpointing=True), world_size
        yield "activation checkpointing and micro_batch 1", gentle, world_size
    for times in (2, 4, 8):
        yield f"{world_size * times} GPUs", train, world_size * times
    if not train.cpu_offload:
        yield "--set train.cpu_offload=true", replace(train, cpu_offload=True), world_size
        yield "train.cpu_offload=true and train.micro_batch=1", replace(gentle, cpu_offload=True), world_size


def peak(
    shape: Shape, model: ModelConfig, train: TrainConfig, world_size: int, lora: LoraConfig | None = None
) -> Needs:
    """The fullest moment of a step."""
    if lora is not None:
        return max(lora_memory.moments(shape, model, train, lora, world_size), key=lambda needs: needs.total)
    return max(moments(shape, model, train, world_size), key=lambda needs: needs.total)


def moments(shape: Shape, model: ModelConfig, train: TrainConfig, world_size: int) -> Iterator[Needs]:
    """Every moment of full fine-tuning that can be the fullest. The factors are bytes a token, read off
    `train.fake_step`."""
    tokens = train.micro_batch * model.context_tokens
    low = train.precision == "bf16"
    size = 2 if low else 4
    hidden, middle, kv = shape.hidden, shape.intermediate, shape.kv_width
    tail = shape.embedding + hidden
    attention = tokens * ((22 * hidden + 4 * kv) if low else (32 * hidden + 8 * kv))
    inside = attention + tokens * 6 * size * middle
    """What a layer at work holds beside its input: attention's part, and with the feed-forward part."""
    if train.activation_checkpointing:
        held = size * tokens * hidden
    else:
        held = tokens * (4 * size * middle + 10 * size * hidden + 2 * size * kv)
    mask = 0 if model.attention != "torch" else (1 + size) * tokens**2
    kept_tail = size * tail if shape.tied else 0
    """The tied output layer's gradient waits for the embedding's."""

    def at(moment: str, *, reduced: float, activations: float, buffers: float) -> Needs:
        shards = 0 if train.cpu_offload else 1 / world_size
        return Needs(
            moment=moment, weights=4 * shape.parameters * shards, optimizer=8 * shape.parameters * shards,
            gradients=4 * reduced * shards, activations=activations + mask, buffers=buffers,
        )  # fmt: skip

    logits = 2 * size * tokens * shape.vocabulary + 12 * LOSS_CHUNK_TOKENS * shape.vocabulary
    everything = shape.layers * held + 8 * tokens * hidden
    yield at("loss", reduced=0, activations=everything + logits, buffers=size * tail)
    yield at("tail", reduced=tail, activations=everything, buffers=(2 * size + 4) * tail)
    if not train.activation_checkpointing:
        yield at(
            "tail", reduced=tail, activations=everything + 8 * tokens * hidden,
            buffers=(2 * size + 4) * tail + size * shape.layer,
        )  # fmt: skip
    for layer in {0, 1, shape.layers - 2, shape.layers - 1} & set(range(shape.layers)):
        reduced = (shape.layers - 1 - layer) * shape.layer + (0 if shape.tied else tail)
        before = shape.layer if layer < shape.layers - 1 else tail
        after = shape.layer if layer else shape.embedding
        moving = size * (shape.layer + after) + 4 * before + kept_tail
        inputs = (layer + 1) * held
        for more, whole in ((inside, hidden * middle), (attention, shape.layer)):
            working = more if train.activation_checkpointing else tokens * 16 * hidden
            yield at("layer", reduced=reduced, activations=inputs + working, buffers=moving + size * whole)
    rest = shape.parameters - shape.embedding
    yield at("embedding", reduced=rest, activations=8 * tokens * hidden, buffers=(size + 4) * shape.embedding)
    yield at("optimizer", reduced=shape.parameters, activations=0, buffers=0)
