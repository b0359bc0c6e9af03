"""Recipe and offers to a plan: which places, in what order, for how much. Pure.

Hours are an estimate (launcher/speed.py) and are shown as a range; launcher/ways.py simulates them.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from launcher.errors import OfferError
from launcher.recipe import LocalConfig, PlaceConfig, Recipe, parse_accelerator
from launcher.speed import speed
from market.offers import Offer

SPOT_OVERHEAD = (1.0, 1.5)
"""Paid hours over useful hours on spot, low and high: restarts and work done again."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a run costs in one place, each as (low, high)."""

    hours: tuple[float, float]
    usd: tuple[float, float]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run may go."""

    offers: list[Offer]
    """Candidates, the cheapest first."""
    on_demand: Offer | None
    """The cheapest on-demand offer of the same machines, to compare with."""
    fallbacks: list[Offer] = []
    """On demand, where the run may go when its deadline needs it; the cheapest first."""
    estimate: Estimate | None
    """On the first offer, with its overhead; None where the recipe does not say how many tokens there are or the
    accelerator's speed is not known."""
    on_demand_estimate: Estimate | None
    machine_life_seconds: float | None = None
    """How long a machine is expected to last, None where it is not known: of a cloud's places no lives are on record
    here, and the run learns its own."""
    assumptions: list[str]
    """In words, for a person."""


def choose(
    recipe: Recipe,
    offers: Sequence[Offer],
    on_demand: Sequence[Offer],
    *,
    fallbacks: Sequence[Offer] = (),
    most: int = 12,
) -> Plan:
    """The plan over `offers`, filtered and in price order already, and the on-demand offers beside them.

    Raises OfferError where there is none.
    """
    if not offers:
        raise OfferError("No offer satisfies the recipe; `vlaunch market offers` lists what there is.")
    kept = list(offers[:most])
    beside = on_demand[0] if on_demand else None
    overhead = SPOT_OVERHEAD if kept[0].spot else (1.0, 1.0)
    return Plan(
        offers=kept,
        on_demand=beside,
        fallbacks=list(fallbacks[:most]),
        estimate=estimate(recipe, kept[0], overhead),
        on_demand_estimate=estimate(recipe, beside, (1.0, 1.0)) if beside else None,
        machine_life_seconds=recipe.local.mean_life_seconds if kept[0].cloud == "local" and kept[0].spot else None,
        assumptions=_assumptions(recipe, kept, on_demand[:1], overhead),
    )


def estimate(recipe: Recipe, offer: Offer, overhead: tuple[float, float]) -> Estimate | None:
    """Hours and dollars of the recipe on an offer, None where something needed is not known."""
    pace = speed(recipe, offer, {})
    if pace is None:
        return None
    hours = (pace.hours[0] * overhead[0], pace.hours[2] * overhead[1])
    usd = offer.usd_per_hour * recipe.machine.nodes
    return Estimate(hours=hours, usd=(hours[0] * usd, hours[1] * usd))


def accelerators(recipe: Recipe) -> list[tuple[str, int]]:
    """The acceptable accelerators as name and count; no accelerator is ("", 0)."""
    return [parse_accelerator(each) for each in recipe.machine.accelerators] or [("", 0)]


def own_offers(recipe: Recipe) -> list[Offer]:
    """The places whose prices the recipe gives."""
    return offers_at(recipe.machine.places, accelerators(recipe))


def offers_at(places: Sequence[PlaceConfig], kinds: Sequence[tuple[str, int]]) -> list[Offer]:
    """Places with prices of a person's own, for each of these accelerators (name, count)."""
    found = []
    for place in places:
        cloud, region, zone, *_ = (*place.infra.split("/", 2), "", "")
        for name, count in kinds:
            found.append(
                Offer(
                    cloud=cloud, region=region, zone=zone or None, instance_type="", accelerator=name,
                    accelerator_count=count, usd_per_hour=place.usd_per_hour, spot=place.spot,
                    price_source="[[machine.places]]", price_date="as given there",
                )
            )  # fmt: skip
    return found


def local_offers(local: LocalConfig, *, spot: bool = True) -> list[Offer]:
    """The simulated zones of `--infra local`, cheapest first, or its simulated on-demand offer."""
    about: dict[str, Any] = {
        "cloud": "local",
        "region": "here",
        "instance_type": "this machine",
        "accelerator": "",
        "accelerator_count": 0,
        "spot": spot,
        "price_source": "simulated",
        "price_date": "made up in the recipe",
    }
    if not spot:
        return [Offer(zone=None, usd_per_hour=local.on_demand_usd_per_hour, **about)]
    if not local.zones:
        raise OfferError(
            "There are no [[local.zones]], so this cannot run with --infra local. "
            "Take smollm2-135m or tiny, or give it two zones with simulated prices."
        )
    zones = sorted(local.zones, key=lambda zone: (zone.usd_per_hour, zone.name))
    return [Offer(zone=zone.name, usd_per_hour=zone.usd_per_hour, **about) for zone in zones]


def _assumptions(
    recipe: Recipe, offers: Sequence[Offer], beside: Sequence[Offer], overhead: tuple[float, float]
) -> list[str]:
    offer = offers[0]
    sources = sorted({f"{each.price_source}, {each.price_date}" for each in (*offers, *beside)})
    said = [f"prices: {source}" for source in sources]
    pace = speed(recipe, offer, {})
    if pace is not None:
        said.append(pace.said)
    if overhead[1] > 1:
        said.append(f"spot adds {overhead[0] - 1:.0%} to {overhead[1] - 1:.0%} of restarts and work done again")
    return said
