"""The replay of a serving policy against a recorded market. Pure.

A tick: replicas in a zone that is unavailable have ended; the policy sees the tick and says what to hold; a new replica
is ready after the cold start; whatever is held is billed for the whole tick. Time with at least N ready is counted to
the second within a tick.
"""

from collections.abc import Callable

import msgspec

from market.availability import Market
from market.fleet import ON_DEMAND, Fleet, OnDemandFleet, Place, ServingPolicy, SpotHedgeFleet
from market.least_cost_fleet import LeastCostFleet
from market.replay import HOUR

SERVING: dict[str, Callable[[], ServingPolicy]] = {
    "vlaunch": LeastCostFleet,
    "spothedge": SpotHedgeFleet,
    "on-demand": OnDemandFleet,
}


class ServingRun(msgspec.Struct, kw_only=True):
    """How a policy served."""

    market: str
    policy: str
    replicas: int
    hours: float
    usd: float
    usd_on_demand: float
    """N on demand throughout."""
    availability: float
    """Share of the time with at least N ready."""
    preemptions: int
    hours_spot: float
    hours_on_demand: float
    """Of replicas, billed."""


def serve(
    name: str, policy: ServingPolicy, market: Market, *, replicas: int, cold_start_seconds: float, availability: float
) -> ServingRun:
    """The policy through the whole market."""
    tick = market.tick_seconds
    ages: dict[str, list[float]] = {}
    """Seconds since the start of every replica, by zone."""
    usd, short, preemptions = 0.0, 0.0, 0
    held_ticks = {True: 0, False: 0}
    for at in range(market.ticks):
        for zone in market.zones:
            if not zone.available[at]:
                preemptions += len(ages.pop(zone.name, []))
        fleet = Fleet(
            now_hours=at * tick / HOUR,
            places=tuple(
                Place(name=zone.name, usd_per_hour=zone.usd_per_hour[at], available=zone.available[at])
                for zone in market.zones
            ),
            on_demand_usd_per_hour=market.on_demand_usd_per_hour,
            ready={zone: sum(age >= cold_start_seconds for age in found) for zone, found in ages.items()},
            starting={zone: sum(age < cold_start_seconds for age in found) for zone, found in ages.items()},
            replicas=replicas, cold_start_hours=cold_start_seconds / HOUR, short_hours=short / HOUR,
            wanted_availability=availability,
        )  # fmt: skip
        prices = {place.name: place.usd_per_hour for place in fleet.places if place.available}
        prices[ON_DEMAND] = market.on_demand_usd_per_hour
        wanted = {where: count for where, count in policy.hold(fleet).items() if where in prices and count > 0}
        ages = {where: _resize(ages.get(where, []), count) for where, count in wanted.items()}
        for where, found in ages.items():
            held_ticks[where != ON_DEMAND] += len(found)
            usd += len(found) * prices[where] * tick / HOUR
        short += _short_seconds(ages, replicas, cold_start_seconds, tick)
        ages = {zone: [age + tick for age in found] for zone, found in ages.items()}
    hours = market.ticks * tick / HOUR
    return ServingRun(
        market=market.name, policy=name, replicas=replicas, hours=hours, usd=usd,
        usd_on_demand=replicas * market.on_demand_usd_per_hour * hours, availability=1 - short / HOUR / hours,
        preemptions=preemptions, hours_spot=held_ticks[True] * tick / HOUR,
        hours_on_demand=held_ticks[False] * tick / HOUR,
    )  # fmt: skip


def _resize(ages: list[float], count: int) -> list[float]:
    """The oldest are kept; new ones begin at 0."""
    return sorted(ages, reverse=True)[:count] + [0.0] * (count - len(ages))


def _short_seconds(ages: dict[str, list[float]], replicas: int, cold_start: float, tick: int) -> float:
    """Of a tick, with fewer than so many ready."""
    waits = sorted(max(0.0, cold_start - age) for found in ages.values() for age in found)
    return min(float(tick), waits[replicas - 1]) if len(waits) >= replicas else float(tick)
