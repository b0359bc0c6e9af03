"""The memory a recipe needs, as the laptop reckons it, against one step of the trainer on fake tensors."""

from typing import Any

import msgspec
import pytest
from transformers import LlamaConfig

from train import fake_step, memory
from train.config import LoraConfig, ModelConfig, TrainConfig
from train.memory import GIB
from train.shapes import SHAPES, Needs, Shape

LLAMA_7B, LLAMA_13B = (next(s for s in SHAPES if s.name == f"Llama 2 {size}") for size in ("7B", "13B"))
TINY = Shape(name="tiny", hidden=512, intermediate=1376, layers=3, heads=8, kv_heads=8, vocabulary=4000)


def configuration(shape: Shape) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=shape.hidden, intermediate_size=shape.intermediate, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied, max_position_embeddings=16384, use_cache=False,
    )  # fmt: skip


def model(tokens: int, parameters: float = 6.74, **more: Any) -> ModelConfig:
    return ModelConfig(
        base="meta/llama", parameters=parameters, native_context_tokens=tokens, context_tokens=tokens, **more
    )


def measured(
    shape: Shape,
    train: TrainConfig,
    tokens: int,
    gpus: int,
    *,
    masked: bool = False,
    lora: LoraConfig | None = None,
) -> tuple[Needs, int, int]:
    """What is reckoned, what is measured in all, and what of that is neither weights, optimizer nor their gradients."""
    parts = fake_step.peak(
        configuration(shape), train, context_tokens=tokens, world_size=gpus, masked=masked, lora=lora
    )
    reckoned = memory.peak(shape, model(tokens, attention="torch" if masked else "auto"), train, gpus, lora)
    return reckoned, sum(parts.values()), parts["rest"]


# The whole grid of models, row lengths and numbers of GPUs is benchmarks/memory.py. Here one of it, and the other
# corner with fewer layers, which is quicker.
@pytest.mark.parametrize(
    ("shape", "tokens", "gpus"),
    [(LLAMA_7B, 2048, 8), (msgspec.structs.replace(LLAMA_13B, layers=10), 16384, 16)],
    ids=["7B, 2K, 8 GPUs", "10 layers of 13B, 16K, 16 GPUs"],
)
def test_a_step_of_a_real_size_is_reckoned_within_five_and_ten_percent(shape: Shape, tokens: int, gpus: int) -> None:
    reckoned, total, rest = measured(shape, TrainConfig(), tokens, gpus)
    assert reckoned.total == pytest.approx(total, rel=0.05)
    assert reckoned.activations + reckoned.buffers == pytest.approx(rest, rel=0.10)


@pytest.mark.parametrize(
    ("changes", "train", "masked"),
    [
        ({}, {}, False),
        ({}, {}, True),
        ({"vocabulary": 100_000}, {}, False),
        ({"kv_heads": 2, "intermediate": 2048}, {}, False),
        ({"tied": True}, {}, False),
        ({}, {"micro_batch": 4}, False),
        ({}, {"precision": "fp32"}, False),
        ({}, {"activation_checkpointing": False}, False),
    ],
    ids=["plain", "masked", "large vocabulary", "grouped heads", "tied", "micro-batch 4", "fp32", "no checkpointing"],
)
def test_each_feature_of_a_recipe_is_reckoned_too(changes: dict[str, Any], train: dict[str, Any], masked: bool) -> None:
    shape = msgspec.structs.replace(TINY, **changes)
    reckoned, total, rest = measured(shape, TrainConfig(**train), 2048, 4, masked=masked)
    assert reckoned.total == pytest.approx(total, rel=0.05)
    assert reckoned.activations + reckoned.buffers == pytest.approx(rest, rel=0.10)


LORA = LoraConfig()


@pytest.mark.parametrize(
    ("changes", "train", "lora", "tokens"),
    [
        ({}, {}, LORA, 256),
        ({}, {}, LORA, 8192),
        ({"vocabulary": 32000}, {}, LORA, 2048),
        ({"kv_heads": 2, "intermediate": 2048}, {}, LORA, 4096),
        ({"layers": 6}, {"micro_batch": 4}, LORA, 2048),
        ({}, {}, LoraConfig(rank=64, target_modules=["q_proj", "v_proj"]), 4096),
        ({}, {}, LoraConfig(dropout=0.05), 4096),
        ({}, {"precision": "fp32"}, LORA, 4096),
        ({}, {"activation_checkpointing": False}, LORA, 4096),
        ({}, {"activation_checkpointing": False}, LoraConfig(target_modules=["q_proj", "v_proj"]), 4096),
    ],
    ids=[
        "short", "long", "large vocabulary", "grouped heads", "micro-batch 4", "two modules", "dropout", "fp32",
        "no checkpointing", "two modules, no checkpointing",
    ],
)  # fmt: skip
def test_a_step_with_adapters_is_reckoned_within_ten_percent(
    changes: dict[str, Any], train: dict[str, Any], lora: LoraConfig, tokens: int
) -> None:
    shape = msgspec.structs.replace(TINY, **{"vocabulary": 1000, **changes})
    reckoned, total, _ = measured(shape, TrainConfig(**train), tokens, 4, lora=lora)
    assert reckoned.total == pytest.approx(total, rel=0.10)


@pytest.mark.parametrize("targets", [[], ["q_proj", "v_proj"], ["down_proj"]])
def test_adapters_have_as_many_parameters_as_peft_gives_them(targets: list[str]) -> None:
    from transformers import LlamaForCausalLM

    from train import lora, lora_memory

    config = LoraConfig(rank=4, target_modules=targets)
    shape = msgspec.structs.replace(TINY, hidden=64, intermediate=96, kv_heads=2, vocabulary=50)
    network = lora.adapted(LlamaForCausalLM(configuration(shape)), config, seed=0, low=False)
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert trained == shape.layers * lora_memory.adapter(shape, config)


def test_adapters_fit_where_full_fine_tuning_does_not() -> None:
    recipe = model(2048, parameters=13.0), TrainConfig(micro_batch=1), 2, 24
    assert not memory.fits(*recipe).fits
    assert memory.fits(*recipe, LORA).fits
    assert not memory.fits(model(2048, parameters=70), TrainConfig(micro_batch=1), 2, 24, LORA).fits


@pytest.mark.parametrize("shape", [s for s in SHAPES if "Qwen" not in s.name], ids=lambda shape: shape.name)
def test_the_table_of_shapes_has_as_many_parameters_as_its_models(shape: Shape) -> None:
    import torch
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        built = LlamaForCausalLM(configuration(shape))
    assert sum(parameter.numel() for parameter in built.parameters()) == shape.parameters


def test_what_fits_says_so_and_what_does_not_says_what_would() -> None:
    train = TrainConfig(micro_batch=16)
    good = memory.fits(model(2048), train, 8, 80)
    assert (good.fits, good.instead) == (True, [])
    assert good.sentence().startswith("A step needs ")
    bad = memory.fits(model(2048), train, 8, 24)
    assert not bad.fits
    assert bad.instead[0].startswith("--set train.micro_batch=1 (")
    assert "it does not fit. What would: --set train.micro_batch=1" in bad.sentence()
    assert memory.fits(model(2048), TrainConfig(micro_batch=1), 8, 24).fits  # the advice is true
    hopeless = memory.fits(model(4096, parameters=70), TrainConfig(), 1, 16)
    assert hopeless.sentence().endswith("Nothing tried would; take a larger GPU.")


def test_more_gpus_or_the_hosts_memory_hold_what_one_gpu_cannot() -> None:
    fit = memory.fits(model(2048, parameters=13.0), TrainConfig(), 2, 40)
    assert fit.instead[0].startswith("8 GPUs (")
    assert any(each.startswith("--set train.cpu_offload=true") for each in fit.instead)
    offloaded = memory.peak(LLAMA_13B, model(2048), TrainConfig(cpu_offload=True), 2)
    assert offloaded.weights == offloaded.optimizer == offloaded.gradients == 0
    assert offloaded.total < 6 * GIB


def test_a_model_nobody_knows_is_reckoned_with_the_nearest_shape_and_says_so() -> None:
    fit = memory.fits(model(2048, parameters=7.6), TrainConfig(), 8, 80)
    assert fit.assumption == "memory is reckoned with the shape of Llama 3 8B for meta/llama"
