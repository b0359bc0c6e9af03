"""Which kernel is chosen, and that a variable-length one computes what a mask computes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from train import attention
from train.data import Batch, Rows, Tokens
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


def packed() -> Batch:
    """Three rows of conversations, padded at their ends."""
    sizes = [30, 11, 25, 40, 9]
    ids = np.random.default_rng(0).integers(1, 90, sum(sizes)).astype(np.int32)
    tokens = Tokens(ids, np.ones(len(ids), bool), np.cumsum([0, *sizes]).astype(np.int64))
    rows = Rows(tokens, 64, seed=0, pad_id=0)
    return rows.batch(range(len(rows.rows)))


def logits(name: str, kv_heads: int, batch: Batch) -> torch.Tensor:
    """Of all rows as one, by a model of fixed weights."""
    config = LlamaConfig(
        vocab_size=100, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=kv_heads, use_cache=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation=name)
    found: torch.Tensor = model(
        input_ids=torch.from_numpy(batch.ids.reshape(1, -1)),
        position_ids=torch.from_numpy(batch.positions.reshape(1, -1)),
        **attention.borders(name, batch, torch.device("cpu")),
    ).logits
    return found


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("name", [attention.VARLEN, attention.EACH])
def test_a_kernel_that_is_told_the_borders_agrees_with_the_mask(name: str, kv_heads: int) -> None:
    batch = packed()
    assert batch.starts[0] == 0
    assert batch.starts[-1] == batch.ids.size
    attention.register(reference)
    torch.testing.assert_close(logits(attention.MASKED, kv_heads, batch), logits(name, kv_heads, batch))


def test_no_conversation_sees_another_of_its_row() -> None:
    attention.register()
    batch = packed()
    first = slice(0, int(batch.starts[1]))
    other = replace(batch, ids=np.where(np.arange(64) < first.stop, batch.ids, batch.ids[:, ::-1]))
    assert (other.ids != batch.ids).any()
    before, after = (logits(attention.EACH, 4, each)[0, first] for each in (batch, other))
    assert torch.equal(before, after)


def test_without_a_gpu_the_log_says_what_is_taken_and_why() -> None:
    assert attention.choose("auto", "bf16") == (
        attention.EACH,
        "attention: torch's scaled_dot_product_attention, one conversation at a time (there is no GPU)",
    )
    assert attention.choose("torch", "bf16")[0] == attention.MASKED
    for wanted in ("flash", "varlen"):
        with pytest.raises(TrainError, match=f"model.attention is '{wanted}', but there is no GPU"):
            attention.choose(wanted, "bf16")
