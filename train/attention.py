"""Which kernel computes attention over packed rows, and what it must be told of them. Conversations in a row never see
each other: a variable-length kernel gets their borders and computes nothing across them; without one they are taken
one at a time. Only where a recipe asks for it torch gets a mask, of the square of the tokens at once.
"""

import importlib.util
import itertools
from typing import Any

import torch

from train.data import Batch
from train.errors import TrainError

FLASH = "flash_attention_2"
VARLEN = "vlaunch_varlen"
EACH = "vlaunch_each"
MASKED = "sdpa"
_OLDEST = (8, 0)
"""The compute capability that torch's and flash-attn's kernels need: that of an A100."""


def choose(wanted: str, precision: str) -> tuple[str, str]:
    """transformers' name of the kernel on this machine, and a sentence for the log.

    Raises TrainError where what the recipe wants cannot be had.
    """
    obstacle = _obstacle(precision)
    installed = importlib.util.find_spec("flash_attn") is not None
    if wanted in ("flash", "varlen") and obstacle:
        raise TrainError(f"model.attention is '{wanted}', but {obstacle}; set it to 'auto' or 'torch'.")
    if wanted == "flash" and not installed:
        raise TrainError("model.attention is 'flash', but flash-attn is not installed; set it to 'auto' or 'varlen'.")
    if wanted == "torch":
        return MASKED, "attention: torch's scaled_dot_product_attention with a mask (as the recipe says)"
    register()
    if wanted == "auto" and obstacle:
        return EACH, f"attention: torch's scaled_dot_product_attention, one conversation at a time ({obstacle})"
    if wanted == "flash" or (wanted == "auto" and installed):
        return FLASH, "attention: flash-attn, variable length"
    return VARLEN, "attention: torch's flash kernel, variable length"


def _obstacle(precision: str) -> str:
    """Why no variable-length kernel runs here; empty where one does."""
    if not torch.cuda.is_available():
        return "there is no GPU"
    if precision != "bf16":
        return f"the kernel computes in bf16 and train.precision is '{precision}'"
    capability = torch.cuda.get_device_capability()
    if capability < _OLDEST:
        return f"{torch.cuda.get_device_name()} is older than the kernel needs"
    return ""


def register(kernel: Any = None) -> None:
    """Make VARLEN and EACH known to transformers; `kernel` stands in for torch's, which needs a GPU."""
    from torch.nn.attention.varlen import varlen_attn
    from transformers import AttentionInterface

    AttentionInterface.register(VARLEN, Varlen(kernel or varlen_attn))
    AttentionInterface.register(EACH, each_alone)


def borders(name: str, batch: Batch, device: torch.device) -> dict[str, Any]:
    """What the kernel called `name` must be told of a batch, as arguments of the model's forward."""
    if name == MASKED:
        return {}
    if name == EACH:
        return {"borders": batch.starts.tolist()}  # numbers: a GPU's would have to be waited for in every layer
    starts = torch.from_numpy(batch.starts).to(device)
    longest = int((batch.starts[1:] - batch.starts[:-1]).max())
    return {"cu_seq_lens_q": starts, "cu_seq_lens_k": starts, "max_length_q": longest, "max_length_k": longest}


class Varlen:
    """A variable-length kernel in the form in which transformers calls attention."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __call__(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: None,
        *,
        scaling: float,
        cu_seq_lens_q: torch.Tensor,
        max_length_q: int,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        """Each of query, key and value is rows x heads x tokens x width; the answer rows x tokens x heads x width."""
        rows = query.shape[0]
        flat = [each.transpose(1, 2).flatten(0, 1) for each in (query, key, value)]
        out = self.kernel(
            *flat, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q,
            scale=scaling, window_size=(-1, 0), enable_gqa=query.shape[1] != key.shape[1],
        )  # fmt: skip
        return out.unflatten(0, (rows, -1)), None


def each_alone(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: None,
    *,
    scaling: float,
    borders: list[int],
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention by torch over one conversation after another, in the form in which transformers calls it: query, key
    and value are 1 x heads x tokens x width, the answer 1 x tokens x heads x width."""
    repeat = query.shape[1] // key.shape[1]
    if repeat > 1:  # torch's kernel for CPUs wants as many heads of keys as of queries
        key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    # That kernel takes three times as long on the way back in bf16 as in fp32, where conversations are short.
    precision = torch.float32 if query.device.type == "cpu" else query.dtype
    lengths = [end - start for start, end in itertools.pairwise(borders)]
    said = []
    for part in zip(*(torch.split(each, lengths, 2) for each in (query, key, value)), strict=True):
        asked, keys, values = (each.to(precision) for each in part)
        whole = torch.nn.functional.scaled_dot_product_attention(asked, keys, values, is_causal=True, scale=scaling)
        said.append(whole.to(query.dtype))
    return torch.cat(said, 2).transpose(1, 2), None
