"""Spec and offers to a plan of serving: which places, in what order, for how many dollars. Pure.

Tokens a second are an estimate and are shown as a range. To generate one token for each of B streams an
accelerator reads the weights once and every stream's keys and values once, so a step lasts
(weights + B x context x bytes a token) / (share of the memory's bandwidth), and B is what fits beside the weights.
"""

from collections.abc import Sequence

import msgspec

from launcher.errors import OfferError
from launcher.serve_spec import ReplicasConfig, ServedModel
from market.offers import Offer

MEMORY_GB = {
    "A100": 40.0, "A100-80GB": 80.0, "A100-80GB-SXM": 80.0, "H100": 80.0, "H100-SXM": 80.0, "H200": 141.0,
    "L40S": 48.0, "A10G": 24.0, "L4": 24.0, "V100": 16.0,
}  # fmt: skip
GB_PER_SECOND = {
    "A100": 1555.0, "A100-80GB": 1935.0, "A100-80GB-SXM": 2039.0, "H100": 2000.0, "H100-SXM": 3350.0, "H200": 4800.0,
    "L40S": 864.0, "A10G": 600.0, "L4": 300.0, "V100": 900.0,
}  # fmt: skip
"""Memory and its bandwidth, an accelerator, by the makers' data sheets (of an H100 the slower, PCIe)."""
USABLE = 0.9
"""Share of the memory an engine takes."""
RESERVED_GB = 1.0
"""Of that, for activations and kernels."""
BANDWIDTH_SHARE = (0.4, 0.8)
"""Low and high share of the bandwidth that generation reaches; the estimate's main assumption."""
STREAMS = 64
"""More at once than this are not counted on."""
CONTEXT_TOKENS = 1000
"""Mean context of a stream while it is answered."""
HOURS_PER_MONTH = 730.0


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """Dollars of all replicas of a model."""

    usd_per_hour: float

    @property
    def usd_per_month(self) -> float:
        return self.usd_per_hour * HOURS_PER_MONTH


class ServePlan(msgspec.Struct, frozen=True, kw_only=True):
    """Where the replicas of one model may run, and for how much."""

    model: str
    offers: list[Offer]
    """Candidates for a replica, the cheapest first."""
    on_demand: Offer | None
    """The cheapest on-demand offer of the same accelerators."""
    expected: Rate | None
    """`min` replicas in the first place; None where the price of one that is on demand is not known."""
    on_demand_rate: Rate | None
    """The same number, all on demand."""
    worst: Rate | None
    """`max` replicas in the dearest candidate place, on demand where replicas may be."""
    tokens_per_second: tuple[float, float] | None
    """Of one replica in the first place at full load, low and high; None where the spec does not say enough."""
    usd_per_million_tokens: tuple[float, float] | None
    on_demand_usd_per_million_tokens: tuple[float, float] | None
    assumptions: list[str]


def choose(
    model: ServedModel, replicas: ReplicasConfig, offers: Sequence[Offer], on_demand: Sequence[Offer], *, most: int = 12
) -> ServePlan:
    """The plan over `offers`, in price order already. Raises OfferError where the model fits none of them."""
    roomy = [offer for offer in offers if fits(model, offer)]
    if not roomy:
        names = ", ".join(sorted({f"{offer.accelerator}:{offer.accelerator_count}" for offer in offers}))
        raise OfferError(
            f"{model.name} needs {_needed_gb(model):.0f} GB of accelerator memory, more than {names} has; "
            "name larger ones in [machine] accelerators."
        )
    kept = _mixed(roomy, most)
    roomy_beside = [offer for offer in on_demand if fits(model, offer)]
    same = [offer for offer in roomy_beside if offer.accelerator == kept[0].accelerator]
    beside = next(iter(same or roomy_beside), None)
    tokens = throughput(model, kept[0])
    return ServePlan(
        model=model.name,
        offers=kept,
        on_demand=beside,
        expected=_expected(replicas, kept[0], beside),
        on_demand_rate=Rate(usd_per_hour=replicas.min * beside.usd_per_hour) if beside else None,
        worst=_worst(replicas, kept, roomy_beside),
        tokens_per_second=tokens,
        usd_per_million_tokens=_per_million(kept[0], tokens),
        on_demand_usd_per_million_tokens=_per_million(beside, throughput(model, beside)) if beside else None,
        assumptions=_assumptions(model, replicas, kept, beside, tokens),
    )


def fits(model: ServedModel, offer: Offer) -> bool:
    """Whether weights and one whole context fit; a size that is not known is not an objection."""
    memory = MEMORY_GB.get(offer.accelerator)
    return memory is None or model.parameters is None or _needed_gb(model) <= memory * offer.accelerator_count * USABLE


def throughput(model: ServedModel, offer: Offer) -> tuple[float, float] | None:
    """Tokens a second that one replica generates at full load: the spec's own measurement, or the estimate."""
    if model.tokens_per_second is not None:
        return model.tokens_per_second, model.tokens_per_second
    bandwidth = GB_PER_SECOND.get(offer.accelerator)
    if bandwidth is None or model.parameters is None or model.kv_bytes_per_token is None:
        return None
    stream_gb = CONTEXT_TOKENS * model.kv_bytes_per_token / 1e9
    streams = streams_at_once(model, offer)
    step_gb = _weights_gb(model) + streams * stream_gb
    slow, fast = (share * bandwidth * offer.accelerator_count / step_gb * streams for share in BANDWIDTH_SHARE)
    return slow, fast


def streams_at_once(model: ServedModel, offer: Offer) -> int:
    """How many streams of a mean context fit beside the weights, at least one."""
    assert model.kv_bytes_per_token is not None
    room_gb = MEMORY_GB[offer.accelerator] * offer.accelerator_count * USABLE - RESERVED_GB - _weights_gb(model)
    return max(1, min(STREAMS, int(room_gb * 1e9 / (CONTEXT_TOKENS * model.kv_bytes_per_token))))


def _weights_gb(model: ServedModel) -> float:
    """In 16 bits."""
    return 2 * (model.parameters or 0.0)


def _needed_gb(model: ServedModel) -> float:
    context = (model.context_tokens or CONTEXT_TOKENS) * (model.kv_bytes_per_token or 0) / 1e9
    return _weights_gb(model) + context + RESERVED_GB


def _mixed(offers: Sequence[Offer], most: int) -> list[Offer]:
    """The cheapest `most`, but two places of every accelerator: when one kind is sold out, it is so everywhere."""
    kinds: dict[str, list[Offer]] = {}
    for offer in offers:
        kinds.setdefault(offer.accelerator, []).append(offer)
    sure = [offer for kind in kinds.values() for offer in kind[:2]]
    rest = [offer for offer in offers if offer not in sure]
    kept = sure[:most] + rest[: max(0, most - len(sure))]
    return sorted(kept, key=offers.index)


def _expected(replicas: ReplicasConfig, first: Offer, beside: Offer | None) -> Rate | None:
    if replicas.on_demand_base and beside is None:
        return None
    staying = replicas.on_demand_base * (beside.usd_per_hour if beside else 0.0)
    return Rate(usd_per_hour=staying + (replicas.min - replicas.on_demand_base) * first.usd_per_hour)


def _worst(replicas: ReplicasConfig, offers: Sequence[Offer], on_demand: Sequence[Offer]) -> Rate | None:
    dearest = max(offer.usd_per_hour for offer in offers)
    if replicas.on_demand_fallback or replicas.on_demand_base:
        machines = {(offer.place, offer.accelerator) for offer in offers}
        prices = [offer.usd_per_hour for offer in on_demand if (offer.place, offer.accelerator) in machines]
        prices = prices or [offer.usd_per_hour for offer in on_demand]
        if not prices:
            return None
        dearest = max(dearest, *prices)
    return Rate(usd_per_hour=replicas.max * dearest)


def _per_million(offer: Offer, tokens: tuple[float, float] | None) -> tuple[float, float] | None:
    if tokens is None:
        return None
    return offer.usd_per_hour / (tokens[1] * 3600) * 1e6, offer.usd_per_hour / (tokens[0] * 3600) * 1e6


def _assumptions(
    model: ServedModel,
    replicas: ReplicasConfig,
    offers: Sequence[Offer],
    beside: Offer | None,
    tokens: tuple[float, float] | None,
) -> list[str]:
    first = offers[0]
    shown = [*offers, *([beside] if beside else [])]
    said = [f"prices: {each}" for each in sorted({f"{o.price_source}, {o.price_date}" for o in shown})]
    said.append(
        f"expected is {replicas.min} replicas in {first.place}"
        + (f", {replicas.on_demand_base} of them on demand" if replicas.on_demand_base else "")
        + f"; worst is {replicas.max}"
        + (" on demand" if replicas.on_demand_fallback or replicas.on_demand_base else "")
        + " in the dearest place"
        + "; a month is 730 hours; the gateway's own machine and traffic are not in it"
    )
    if model.tokens_per_second is not None:
        said.append(f"{model.tokens_per_second:g} tokens a second a replica, as the spec says it was measured")
    elif tokens is not None:
        said.append(
            f"{streams_at_once(model, first)} streams of {CONTEXT_TOKENS} tokens at once at "
            f"{BANDWIDTH_SHARE[0]:.0%} to {BANDWIDTH_SHARE[1]:.0%} of "
            f"{GB_PER_SECOND[first.accelerator]:.0f} GB/s of a {first.accelerator}; "
            "dollars a token are at full load, all day"
        )
    else:
        said.append(
            "dollars a token are not shown: the spec lacks parameters and kv_bytes_per_token, or tokens_per_second "
            f"as measured, or nothing is known of {first.accelerator or 'this machine'}"
        )
    return said
