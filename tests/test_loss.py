"""The loss taken in pieces is the plain one, and so is its gradient."""

import pytest
import torch

from train import loss


@pytest.mark.parametrize("chunk", [3, 7, 1000])
def test_loss_and_gradient_are_those_of_plain_cross_entropy(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK_TOKENS", chunk)
    torch.manual_seed(0)
    logits = torch.randn(16, 50, requires_grad=True)
    targets = torch.randint(0, 50, (16,))
    weighted, total = loss.weighted_loss(logits, targets, 0.25)
    weighted.backward()
    ours, logits.grad = logits.grad, None
    plain = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    (plain * 0.25).backward()
    assert total.item() == pytest.approx(plain.item(), rel=1e-6)
    assert weighted.item() == pytest.approx(plain.item() * 0.25, rel=1e-6)
    torch.testing.assert_close(ours, logits.grad)


def test_where_nothing_is_learned_there_is_no_loss_and_the_model_still_goes_backward() -> None:
    hidden = torch.randn(5, 4, requires_grad=True)
    output = torch.nn.Linear(4, 10, bias=False)
    nothing = torch.zeros(0, dtype=torch.int64)
    weighted, total = loss.weighted_loss(output(hidden[nothing]), nothing, 0.5)
    weighted.backward()
    assert total.item() == weighted.item() == 0
    for tensor in (hidden, output.weight):
        assert tensor.grad is not None  # FSDP waits for every parameter's
        assert not tensor.grad.any()


def test_logits_in_bf16_are_summed_in_fp32() -> None:
    logits = torch.zeros(4000, 2, dtype=torch.bfloat16, requires_grad=True)
    _, total = loss.weighted_loss(logits, torch.zeros(4000, dtype=torch.int64), 1.0)
    assert total.item() == pytest.approx(4000 * 0.6931, rel=1e-3)  # bf16 would stop counting at 256
