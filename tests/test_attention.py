"""Which kernel is chosen, and that a variable-length one computes what a mask computes."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from train import attention
from train.data import Rows, Tokens
from train.errors import TrainError


def reference(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, starts: torch.Tensor, starts_k: torch.Tensor,
    longest: int, longest_k: int, *, scale: float, window_size: tuple[int, int], enable_gqa: bool,
) -> torch.Tensor:  # fmt: skip
    """torch's varlen_attn by its documented contract, one conversation at a time; the kernel itself needs a GPU."""
    assert window_size == (-1, 0)  # causal
    assert starts.dtype == torch.int32
    assert longest == longest_k == (starts[1:] - starts[:-1]).max()
    out = torch.empty_like(query)
    for start, end in zip(starts.tolist(), starts_k.tolist()[1:], strict=False):
        part = [each[start:end].transpose(0, 1) for each in (query, key, value)]
        said = torch.nn.functional.scaled_dot_product_attention(
            *part, is_causal=True, scale=scale, enable_gqa=enable_gqa
        )
        out[start:end] = said.transpose(0, 1)
    return out


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_a_variable_length_kernel_is_told_the_borders_and_agrees_with_the_mask(kv_heads: int) -> None:
    sizes = [30, 11, 25, 40, 9]
    ids = np.random.default_rng(0).integers(1, 90, sum(sizes)).astype(np.int32)
    tokens = Tokens(ids, np.ones(len(ids), bool), np.cumsum([0, *sizes]).astype(np.int64))
    rows = Rows(tokens, 64, seed=0, pad_id=0)
    batch = rows.batch(range(len(rows.rows)))
    assert batch.starts[0] == 0
    assert batch.starts[-1] == batch.ids.size
    attention.register(reference)
    config = LlamaConfig(
        vocab_size=100, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=kv_heads, use_cache=False,
    )  # fmt: skip
    logits = []
    for name in (attention.MASKED, attention.VARLEN):
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(config, attn_implementation=name)
        logits.append(
            model(
                input_ids=torch.from_numpy(batch.ids), position_ids=torch.from_numpy(batch.positions),
                **attention.borders(name, batch, torch.device("cpu")),
            ).logits
        )  # fmt: skip
    torch.testing.assert_close(logits[0], logits[1])


def test_without_a_gpu_the_log_says_what_is_taken_and_why() -> None:
    assert attention.choose("auto", "bf16") == (
        attention.MASKED, "attention: torch's scaled_dot_product_attention with a mask (there is no GPU)"
    )  # fmt: skip
    for wanted in ("flash", "varlen"):
        with pytest.raises(TrainError, match=f"model.attention is '{wanted}', but there is no GPU"):
            attention.choose(wanted, "bf16")
