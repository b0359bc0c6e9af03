"""Bytes a GPU needs for one training step with adapters, by part, as `train.memory` reckons it without them: light and
without torch.

With N parameters and A more of the adapters, over W GPUs every GPU holds the base's weights in the precision that is
computed in, 2N/W or 4N/W bytes, and 4A/W, 4A/W and 8A/W of the adapters' weights, gradients and AdamW's state. Nothing
of the base gets a gradient; its layers are still gathered whole, one after the other.

- `gather`: a layer is at work, and the next one is there twice, as it arrived and as it is used; early and late.
- `loss`: the logits of all tokens and their gradient.
- `layer`: a layer is computed again and goes backward, while the next one is gathered.
"""

from collections.abc import Iterator

from train.config import LoraConfig, ModelConfig, TrainConfig
from train.shapes import LOSS_CHUNK_TOKENS, Needs, Shape

ROTARY_WIDTH = 256
"""Cosines and sines of a token's place, for heads of 128."""


def widths(shape: Shape, lora: LoraConfig) -> dict[str, tuple[int, int]]:
    """What goes into and comes out of each layer that gets an adapter; all of them where a name is not known."""
    hidden, middle, kv = shape.hidden, shape.intermediate, shape.kv_width
    known = {
        "q_proj": (hidden, hidden), "k_proj": (hidden, kv), "v_proj": (hidden, kv), "o_proj": (hidden, hidden),
        "gate_proj": (hidden, middle), "up_proj": (hidden, middle), "down_proj": (middle, hidden),
    }  # fmt: skip
    wanted = set(lora.target_modules)
    return {name: known[name] for name in known if name in wanted} if wanted and wanted <= set(known) else known


def adapter(shape: Shape, lora: LoraConfig) -> int:
    """Parameters of one layer's adapters."""
    return sum(lora.rank * (into + out) for into, out in widths(shape, lora).values())


def moments(shape: Shape, model: ModelConfig, train: TrainConfig, lora: LoraConfig, world_size: int) -> Iterator[Needs]:
    """Every moment that can be the fullest. The factors are bytes a token and were read off `train.fake_step`; where
    few layers have an adapter they are up to 5% too high."""
    tokens = train.micro_batch * model.context_tokens
    low = train.precision == "bf16"
    size = 2 if low else 4
    hidden, middle, kv = shape.hidden, shape.intermediate, shape.kv_width
    inside = widths(shape, lora)
    added = adapter(shape, lora)
    layer, tail = size * (shape.layer + added), size * (shape.embedding + hidden)
    ranks = size * lora.rank * len(inside)
    dropped = 1.5 * size * sum(into for into, _ in inside.values()) if lora.dropout else 0
    rotary = size * ROTARY_WIDTH
    if train.activation_checkpointing:
        held: float = size * hidden
        attention = (10 * hidden + 4 * kv) if low else (16 * hidden + 8 * kv)
        working: float = attention + 6 * size * middle + ranks + dropped
    else:
        mlp = 4 if "down_proj" in inside else 3
        held = mlp * size * middle + 8 * size * hidden + 2 * size * kv + ranks + dropped
        working = 2 * size * middle
    mask = 0 if model.attention != "torch" else (1 + size) * tokens**2

    def at(moment: str, *, a_token: float, buffers: float) -> Needs:
        shards = 0 if train.cpu_offload else 1 / world_size
        trained = shape.layers * added
        return Needs(
            moment=moment, weights=(size * shape.parameters + 4 * trained) * shards, optimizer=8 * trained * shards,
            gradients=4 * trained * shards, activations=tokens * (a_token + rotary) + mask, buffers=buffers,
        )  # fmt: skip

    everything = shape.layers * held
    yield at("gather", a_token=everything, buffers=max(3 * layer, 2 * tail + layer))
    logits = 2 * size * shape.vocabulary
    chunk = 12 * LOSS_CHUNK_TOKENS * shape.vocabulary
    yield at("loss", a_token=everything + 2 * size * hidden + logits, buffers=tail + chunk)
    yield at("layer", a_token=everything + 8 * hidden + working, buffers=2 * layer)
