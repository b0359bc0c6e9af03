"""How fast a machine works through a recipe's tokens: as runs in the ledger did, or by stated assumptions. Pure."""

import statistics
from collections.abc import Iterable

import msgspec

from launcher.machines import RunFacts
from launcher.recipe import Recipe
from market.offers import Offer

PEAK_TFLOPS = {
    "A100": 312.0,
    "A100-80GB": 312.0,
    "A100-80GB-SXM": 312.0,
    "H100": 989.0,
    "H100-SXM": 989.0,
    "H200": 989.0,
    "L40S": 362.0,
    "A10G": 125.0,
    "L4": 121.0,
    "V100": 125.0,
}
"""Dense bf16 (fp16 on V100) peak by the makers' data sheets."""
UTILISATION = (0.25, 0.31, 0.40)
"""Low, likely and high share of the peak that training reaches. The published runs of 2023 come out at 29% to 33%
(11.1 h for 7B, 23.7 h for 13B on eight A100s, about 600 million tokens), with activations computed again."""
MEASURED_SPREAD = 0.1
"""Around the speed of earlier runs."""


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Useful hours of a whole recipe on one kind of machine."""

    hours: tuple[float, float, float]
    """Fast, likely, slow."""
    said: str
    """Where it comes from, for a person."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What earlier runs reached."""

    tokens_per_second: float
    runs: int


Kind = tuple[str, str, int]
"""Base model, accelerator, accelerators in all."""


def measured(runs: Iterable[RunFacts]) -> dict[Kind, Measured]:
    """Median speed by model and machines, over the runs that have metrics. Simulated ones have no accelerator."""
    found: dict[Kind, list[float]] = {}
    for run in runs:
        about = next((record.facts for record in run.records if record.kind == "run"), {})
        speeds = [line["tokens_per_second"] for line in run.metrics if line.get("tokens_per_second")]
        offers = about.get("offers") or []
        kinds = {(offer["accelerator"], offer["accelerator_count"]) for offer in offers}
        if len(kinds) != 1 or not speeds or not about.get("base"):
            continue  # which machine it was is not known
        ((accelerator, count),) = kinds
        if accelerator:
            kind = (about["base"], accelerator, count * about.get("nodes", 1))
            found.setdefault(kind, []).append(statistics.median(speeds))
    return {kind: Measured(tokens_per_second=statistics.median(v), runs=len(v)) for kind, v in found.items()}


def speed(recipe: Recipe, offer: Offer, known: dict[Kind, Measured]) -> Speed | None:
    """Of the recipe on so many machines like the offer's; None where neither tokens nor accelerator are known."""
    tokens = recipe.data.tokens_per_epoch * recipe.train.epochs
    count = offer.accelerator_count * recipe.machine.nodes
    earlier = known.get((recipe.model.base, offer.accelerator, count))
    if not tokens:
        return None
    if earlier is not None:
        hours = tokens / earlier.tokens_per_second / 3600
        return Speed(
            hours=(hours * (1 - MEASURED_SPREAD), hours, hours * (1 + MEASURED_SPREAD)),
            said=f"{earlier.tokens_per_second:,.0f} tokens/s, as {earlier.runs} earlier run(s) on "
            f"{offer.accelerator}:{count}",
        )
    peak = PEAK_TFLOPS.get(offer.accelerator)
    if peak is None:
        return None
    a_token = 8 if recipe.train.activation_checkpointing else 6
    hours = a_token * recipe.model.parameters * 1e9 * tokens / (peak * 1e12 * count * 3600)
    low, likely, high = UTILISATION
    return Speed(
        hours=(hours / high, hours / likely, hours / low),
        said=f"{tokens / 1e6:,.0f} million tokens, {a_token} operations a parameter and token, {low:.0%} to {high:.0%} "
        f"(likely {likely:.0%}) of {peak:.0f} TFLOPS a {offer.accelerator}",
    )
