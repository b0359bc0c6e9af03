"""Low-rank adapters by peft: what is trained beside a frozen base, and how the two become ordinary weights again."""

from typing import Any

import torch

from train.config import LoraConfig
from train.errors import TrainError

_DOWN = ".lora_A.default.weight"
_UP = ".lora_B.default.weight"


def adapted(network: Any, config: LoraConfig, *, seed: int, low: bool) -> Any:
    """`network` with adapters, the only thing in it that is trained. With `low` the frozen weights are in bf16: they
    are computed in it anyway, and nothing is ever added to them.

    Raises TrainError where no layer has one of the names in `target_modules`.
    """
    import peft

    if low:
        network = network.to(torch.bfloat16)
    torch.manual_seed(seed)
    adapters: Any = peft.LoraConfig  # it takes an alpha that is no whole number, whatever its types say
    wanted = adapters(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=config.target_modules or "all-linear",
    )
    try:
        network = peft.inject_adapter_in_model(wanted, network)
    except ValueError as failure:
        raise TrainError(f"[lora] cannot be applied: {str(failure).splitlines()[0]}") from failure
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return network


def merged(name: str, base: torch.Tensor, adapters: dict[str, torch.Tensor], config: LoraConfig) -> torch.Tensor:
    """The weight `name` of the base with its adapter added, in fp32; the base's own where it has none."""
    layer = name.removesuffix(".weight")
    down, up = adapters.get(layer + _DOWN), adapters.get(layer + _UP)
    if down is None or up is None:
        return base.float()
    return base.float() + (config.alpha / config.rank) * (up.float() @ down.float())


def layers(adapters: dict[str, torch.Tensor]) -> set[str]:
    """The names of the base's weights that have an adapter. Raises TrainError for a tensor that is no adapter's."""
    found = {name.removesuffix(_DOWN) + ".weight" for name in adapters if name.endswith(_DOWN)}
    strange = [name for name in adapters if not name.endswith((_DOWN, _UP))]
    if strange:
        raise TrainError(f"The checkpoint holds {strange[0]}, which is no adapter's weight.")
    return found
