"""Offers: a machine in a place at a price. Filter, order, and suspect what cannot be right. Pure."""

import difflib
import statistics
from collections.abc import Iterable, Sequence

import msgspec

from market.errors import MarketError

EQUAL_SHARE = 0.995
"""Spot at this share of on-demand or above is no spot price: a catalog that had none repeats the other."""
SPOT_FLOOR_SHARE = 0.15
"""Spot under this share of on-demand is a stale or broken row; the deepest real discounts are near 80%."""
SIBLING_SHARE = 0.6
"""A price under this share of the median of the same machine in the same cloud is suspected."""
SIBLINGS = 3
"""Fewer prices than this have no median to speak of."""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One machine in one place, spot or on demand."""

    cloud: str
    region: str
    zone: str | None
    """None where the cloud has no zones."""
    instance_type: str
    accelerator: str
    """SkyPilot's name; empty for a machine without."""
    accelerator_count: int
    usd_per_hour: float
    """Of the whole machine."""
    spot: bool
    price_source: str
    """In words for a person."""
    price_date: str
    """The day the price is of, or what is known of it."""
    warning: str = ""
    """Why the price is suspected; empty where it is not."""

    @property
    def place(self) -> str:
        """SkyPilot's form: `aws/us-east-1/use1-az1`."""
        return "/".join(part for part in (self.cloud, self.region, self.zone) if part)


def suspect(offers: Iterable[Offer]) -> list[Offer]:
    """The offers, those whose price cannot be trusted with a warning."""
    offers = list(offers)
    siblings: dict[tuple[str, str, str, int, bool], list[float]] = {}
    on_demand: dict[tuple[str, str], float] = {}
    for offer in offers:
        siblings.setdefault(_machine(offer), []).append(offer.usd_per_hour)
        if not offer.spot:
            on_demand[offer.place, offer.instance_type] = offer.usd_per_hour
    medians = {
        machine: statistics.median(prices) if len(prices) >= SIBLINGS else 0.0 for machine, prices in siblings.items()
    }
    return [
        msgspec.structs.replace(
            offer,
            warning=_warning(offer, medians[_machine(offer)], on_demand.get((offer.place, offer.instance_type))),
        )
        for offer in offers
    ]


def select(
    offers: Iterable[Offer],
    *,
    accelerators: Sequence[tuple[str, int]],
    spot: bool | None,
    infra: str | None,
    zones: Sequence[str] = (),
    max_usd_per_hour: float | None = None,
    suspicious: bool = False,
) -> list[Offer]:
    """Offers of any of `accelerators` (name, count), the cheapest first, ties by place.

    `infra` is a cloud, `cloud/region` or `cloud/region/zone`; suspected prices are left out unless asked for.
    Raises MarketError where nothing is left; its text names the nearest there is.
    """
    offers = list(offers)
    known = {offer.accelerator for offer in offers}
    for name, _ in accelerators:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.4)
            hint = f"Did you mean {near[0]}?" if near else f"Known are {', '.join(sorted(known))}."
            raise MarketError(f"No offer has an accelerator called '{name}'. {hint}")
    found = [
        offer
        for offer in offers
        if (offer.accelerator, offer.accelerator_count) in accelerators
        and (spot is None or offer.spot == spot)
        and (infra is None or f"{offer.place}/".startswith(f"{infra}/"))
        and (not zones or offer.zone in zones)
    ]
    trusted = [offer for offer in found if suspicious or not offer.warning]
    trusted.sort(key=lambda offer: (offer.usd_per_hour, offer.place, offer.instance_type))
    wanted = " or ".join(f"{name}:{count}" for name, count in accelerators)
    if not trusted:
        raise MarketError(_none_left(found, wanted, spot, infra, zones))
    if max_usd_per_hour is not None and trusted[0].usd_per_hour > max_usd_per_hour:
        best = trusted[0]
        raise MarketError(
            f"No offer of {wanted} is at or below ${max_usd_per_hour:.2f} an hour; the cheapest is "
            f"${best.usd_per_hour:.2f} in {best.place} ({best.price_source}, {best.price_date})."
        )
    return [offer for offer in trusted if max_usd_per_hour is None or offer.usd_per_hour <= max_usd_per_hour]


def _machine(offer: Offer) -> tuple[str, str, str, int, bool]:
    return offer.cloud, offer.instance_type, offer.accelerator, offer.accelerator_count, offer.spot


def _warning(offer: Offer, median: float, on_demand: float | None) -> str:
    if offer.spot and on_demand is not None and offer.usd_per_hour >= EQUAL_SHARE * on_demand:
        return "spot costs as much as on demand"
    if offer.spot and on_demand is not None and offer.usd_per_hour < SPOT_FLOOR_SHARE * on_demand:
        return f"spot is {offer.usd_per_hour / on_demand:.0%} of on demand, which is too little to be true"
    if offer.usd_per_hour < SIBLING_SHARE * median:
        return f"{offer.usd_per_hour / median:.0%} of what the same machine costs elsewhere in {offer.cloud}"
    return ""


def _none_left(found: Sequence[Offer], wanted: str, spot: bool | None, infra: str | None, zones: Sequence[str]) -> str:
    where = f" in {infra}" if infra else ""
    where += f", zone {', '.join(zones)}" if zones else ""
    if found:
        reasons = sorted({offer.warning for offer in found})
        return f"Every price of {wanted}{where} is suspected ({'; '.join(reasons)}), so none is chosen."
    kind = {True: " on spot", False: " on demand", None: ""}[spot]
    return f"There is no offer of {wanted}{kind}{where}; leave out --infra or --zone to see other places."
