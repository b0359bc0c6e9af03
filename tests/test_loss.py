"""The loss taken in pieces is the plain one, and so is its gradient."""

import pytest
import torch

from train import loss
from train.data import IGNORED


@pytest.mark.parametrize("chunk", [3, 7, 1000])
def test_loss_and_gradient_are_those_of_plain_cross_entropy(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK_TOKENS", chunk)
    torch.manual_seed(0)
    logits = torch.randn(2, 9, 50, requires_grad=True)
    labels = torch.randint(0, 50, (2, 9))
    labels[0, :4] = labels[1, -1] = IGNORED
    weighted, total = loss.weighted_loss(logits, labels, 0.25)
    weighted.backward()
    ours, logits.grad = logits.grad, None
    plain = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
    )
    (plain * 0.25).backward()
    assert total.item() == pytest.approx(plain.item(), rel=1e-6)
    assert weighted.item() == pytest.approx(plain.item() * 0.25, rel=1e-6)
    torch.testing.assert_close(ours, logits.grad)


def test_a_row_in_which_nothing_is_learned_has_no_loss_and_no_gradient() -> None:
    logits = torch.randn(1, 5, 10, requires_grad=True)
    weighted, total = loss.weighted_loss(logits, torch.full((1, 5), IGNORED), 0.5)
    weighted.backward()
    assert total.item() == weighted.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_logits_in_bf16_are_summed_in_fp32() -> None:
    logits = torch.zeros(1, 4001, 2, dtype=torch.bfloat16, requires_grad=True)
    _, total = loss.weighted_loss(logits, torch.zeros(1, 4001, dtype=torch.int64), 1.0)
    assert total.item() == pytest.approx(4000 * 0.6931, rel=1e-3)  # bf16 would stop counting at 256
