"""The loss of a batch, in fp32 whatever the model computes in. The logits of a long row are the largest tensor of a
training step, so nothing is made here that is as large as they are but their gradient.
"""

from typing import Any

import torch

CHUNK_TOKENS = 256
"""Tokens whose logits are in fp32 at once."""


class _CrossEntropy(torch.autograd.Function):
    """The sum of losses, with its gradient taken on the way forward, a few tokens at a time. The plain form holds two
    copies of all logits in fp32 at once: their logarithms and the gradient."""

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, targets: torch.Tensor, weight: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        total = torch.zeros((), dtype=torch.float32, device=logits.device)
        gradient = torch.empty_like(logits)
        for first in range(0, len(targets), CHUNK_TOKENS):
            part = slice(first, first + CHUNK_TOKENS)
            index = targets[part].unsqueeze(1)
            shares = torch.log_softmax(logits[part].float(), dim=1)
            total -= shares.gather(1, index).sum()
            shares.exp_().scatter_add_(1, index, torch.full_like(index, -1, dtype=torch.float32))
            gradient[part] = shares.mul_(weight)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(total)
        return total * weight, total

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(upstream), None, None


def weighted_loss(logits: torch.Tensor, targets: torch.Tensor, weight: float) -> tuple[torch.Tensor, torch.Tensor]:
    """`weight` times the sum of the losses of predicting `targets`, to call `backward` on, and the sum itself.

    `logits` are tokens x vocabulary, those of the tokens before the targets alone.
    """
    loss, total = _CrossEntropy.apply(logits, targets, weight)  # type: ignore[no-untyped-call]
    return loss, total
