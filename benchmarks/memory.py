"""The memory of a training step as `train.memory` reckons it, beside one step of the trainer on fake tensors, for 7B
and 13B at every row length and number of GPUs: `python benchmarks/memory.py`. Takes about four minutes. With `--lora`
the corners of the same grid with adapters.
"""

import sys
import time

from transformers import LlamaConfig

from train import fake_step, memory
from train.config import LoraConfig, ModelConfig, TrainConfig
from train.shapes import SHAPES, Shape

MODELS = ("Llama 2 7B", "Llama 2 13B")
TOKENS = (2048, 4096, 8192, 16384)
GPUS = (4, 8, 16)
TOTAL_WITHIN = 0.05
REST_WITHIN = 0.10
"""What is neither weights, optimizer nor sharded gradients."""
LORA_WITHIN = 0.10
"""Of the total, with adapters."""


def compare(shape: Shape, tokens: int, gpus: int, micro_batch: int, lora: LoraConfig | None = None) -> bool:
    """Print one line; whether it is within the limits."""
    began = time.monotonic()
    train = TrainConfig(micro_batch=micro_batch)
    found = LlamaConfig(
        hidden_size=shape.hidden, intermediate_size=shape.intermediate, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied, max_position_embeddings=tokens, use_cache=False,
    )  # fmt: skip
    parts = fake_step.peak(found, train, context_tokens=tokens, world_size=gpus, lora=lora)
    model = ModelConfig(base=shape.name, parameters=1, native_context_tokens=tokens, context_tokens=tokens)
    needs = memory.peak(shape, model, train, gpus, lora)
    total = needs.total / sum(parts.values()) - 1
    rest = (needs.activations + needs.buffers) / parts["rest"] - 1
    print(
        f"{shape.name:12s} {tokens:6d} tokens x {micro_batch}, {gpus:2d} GPUs: {sum(parts.values()) / 1e9:6.2f} GB "
        f"measured, reckoned {needs.total / 1e9:6.2f} ({total:+.2%}); the rest {parts['rest'] / 1e9:5.2f} "
        f"({rest:+.2%}), fullest at {needs.moment}, {time.monotonic() - began:.0f} s",
        flush=True,
    )
    if lora is not None:
        return abs(total) <= LORA_WITHIN
    return abs(total) <= TOTAL_WITHIN and abs(rest) <= REST_WITHIN


def main() -> int:
    """Print the grid; 1 where a line is beyond the limits."""
    shapes = [shape for shape in SHAPES if shape.name in MODELS]
    if "--lora" in sys.argv:
        few = LoraConfig(target_modules=["q_proj", "v_proj"])
        within = [
            compare(shape, tokens, gpus, 1, lora)
            for shape in shapes
            for tokens in (TOKENS[0], TOKENS[-1])
            for gpus in (GPUS[0], GPUS[-1])
            for lora in (LoraConfig(), few, LoraConfig(dropout=0.05))
        ]
        print(f"{sum(within)} of {len(within)} with adapters within {LORA_WITHIN:.0%} of the total")
        return int(not all(within))
    grid = [(shape, tokens, gpus, 1) for shape in shapes for tokens in TOKENS for gpus in GPUS]
    grid += [(shape, 2048, 8, micro_batch) for shape in shapes for micro_batch in (2, 4)]
    within = [compare(*each) for each in grid]
    print(f"{sum(within)} of {len(within)} within {TOTAL_WITHIN:.0%} of the total and {REST_WITHIN:.0%} of the rest")
    return int(not all(within))


if __name__ == "__main__":
    sys.exit(main())
