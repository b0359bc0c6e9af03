"""How many replicas to keep on spot and on demand, in which zones, so that N are ready; and the replay of such a policy
against a recorded market. Pure.

A tick: replicas in a zone that is unavailable have ended; the policy sees the tick and says what to hold; a new replica
is ready after the cold start; whatever is held is billed for the whole tick. Time with at least N ready is counted to
the second within a tick.

An example. Four replicas are wanted ready 99.5% of the time. A zone has been open for two days: spells that old end
about once a day, a cold start is two minutes, so all four can stand in it without a spare. It shuts: other zones are
young and end often, so five stand in five of them, each covered by the spare. When the first zone has been open long
enough again, four start there, and only when they are ready do the five go.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from market.availability import Market
from market.replay import HOUR
from market.spells import Spells

ON_DEMAND = ""
"""The key of replicas on demand, beside zones' names."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A zone as a serving policy sees it."""

    name: str
    usd_per_hour: float
    available: bool


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision depends on."""

    now_hours: float
    places: tuple[Place, ...]
    on_demand_usd_per_hour: float
    ready: dict[str, int]
    """By zone, `ON_DEMAND` among them."""
    starting: dict[str, int]
    replicas: int
    """Wanted ready."""
    cold_start_hours: float
    short_hours: float = 0.0
    """With fewer ready, up to now."""
    wanted_availability: float = 0.995


class ServingPolicy(Protocol):
    """Says how many replicas to hold where until the next decision."""

    def hold(self, fleet: Fleet) -> dict[str, int]:
        """By zone, `ON_DEMAND` among them."""


class OnDemandFleet:
    """N on demand."""

    def hold(self, fleet: Fleet) -> dict[str, int]:
        return {ON_DEMAND: fleet.replicas}


class SpotHedgeFleet:
    """SpotHedge (SkyServe): N and one extra on spot, each in a zone without a recent preemption and, as far as there
    are such, without another replica; on demand as many as are missing from N and one, at most N."""

    extra = 1

    def __init__(self) -> None:
        self.demoted: set[str] = set()
        self.held: dict[str, int] = {}

    def hold(self, fleet: Fleet) -> dict[str, int]:
        open_now = {place.name: place for place in fleet.places if place.available}
        self.demoted |= {zone for zone in self.held if zone not in open_now}
        if len(self.demoted) >= len(fleet.places):
            self.demoted = {zone for zone in self.demoted if zone not in open_now}
        wanted = fleet.replicas + self.extra
        self.held = {zone: count for zone, count in self.held.items() if zone in open_now}
        for _ in range(wanted - sum(self.held.values())):
            if not open_now:
                break
            zone = min(open_now, key=lambda name: (
                name in self.demoted, self.held.get(name, 0), open_now[name].usd_per_hour, name
            ))  # fmt: skip
            self.held[zone] = self.held.get(zone, 0) + 1
            self.demoted.discard(zone)
        ready = sum(count for zone, count in fleet.ready.items() if zone != ON_DEMAND)
        return {**self.held, ON_DEMAND: max(0, min(fleet.replicas, wanted - ready))}


class LeastCostFleet:
    """vlaunch's: the cheapest arrangement whose expected time with too few ready stays within what is allowed."""

    margin = 0.6
    """Of the time allowed, what is planned to be used: failures come together."""

    def __init__(self) -> None:
        self.zones: dict[str, Spells] = {}
        self.arrangement: dict[str, int] = {}

    def hold(self, fleet: Fleet) -> dict[str, int]:
        for place in fleet.places:
            self.zones.setdefault(place.name, Spells()).look(fleet.now_hours, place.available)
        open_now = [place for place in fleet.places if place.available]
        best = self._cheapest(fleet, open_now)
        kept = {place.name for place in open_now if self.arrangement.get(place.name)}
        lost = any(zone not in kept for zone in self.arrangement if zone != ON_DEMAND)
        if self._usd(best, fleet) < 0.97 * self._usd(self.arrangement, fleet) or lost or not self._enough(fleet):
            self.arrangement = best
        return self._until_ready(fleet)

    def _enough(self, fleet: Fleet) -> bool:
        if sum(self.arrangement.values()) < fleet.replicas:
            return False
        return self._short_share(self.arrangement, fleet) <= 1.5 * self._allowed(fleet)

    def _allowed(self, fleet: Fleet) -> float:
        """Share of the time that may be short from now on: what is wanted, corrected over the next day by what was."""
        share = 1 - fleet.wanted_availability
        saved = share * fleet.now_hours - fleet.short_hours
        return max(0.1 * share, min(2 * share, self.margin * share + saved / 24))

    def _cheapest(self, fleet: Fleet, open_now: Sequence[Place]) -> dict[str, int]:
        """Over all in one zone, one more than needed in as many zones, two more in pairs, and on demand."""
        wanted = fleet.replicas
        found = [{ON_DEMAND: wanted}]
        found += [{place.name: wanted} for place in open_now]
        ranked = sorted(open_now, key=lambda place: (place.usd_per_hour, place.name))
        for group in range(1, wanted + 1):
            zones = math.ceil((wanted + group) / group)
            for choice in _choices(ranked, zones, self.zones):
                found.append({place.name: group for place in choice})
        allowed = self._allowed(fleet)
        fitting = [each for each in found if self._short_share(each, fleet) <= allowed]
        return min(fitting, key=lambda each: (self._usd(each, fleet), sorted(each)))

    def _short_share(self, arrangement: dict[str, int], fleet: Fleet) -> float:
        """Expected share of time with too few ready: a zone that shuts takes its replicas, and they start elsewhere."""
        total = sum(arrangement.values())
        rates = {zone: 1 / max(self.zones[zone].life_hours(), 1e-3) for zone in arrangement if zone != ON_DEMAND}
        alone = sum(rate for zone, rate in rates.items() if total - arrangement[zone] < fleet.replicas)
        both = 0.0
        if not alone and rates:
            # Zones shut together more often than chance has it: a tenth of a zone's ends take another with them.
            everything = sum(rates.values())
            both = everything * (0.1 * everything / len(rates) + everything * fleet.cold_start_hours)
        return (alone + both) * fleet.cold_start_hours

    def _usd(self, arrangement: dict[str, int], fleet: Fleet) -> float:
        usd = {place.name: place.usd_per_hour for place in fleet.places} | {ON_DEMAND: fleet.on_demand_usd_per_hour}
        return sum(usd[zone] * count for zone, count in arrangement.items()) or math.inf

    def _until_ready(self, fleet: Fleet) -> dict[str, int]:
        """The arrangement, and what must be held until enough of it is ready."""
        held = dict(self.arrangement)
        ready = sum(min(count, fleet.ready.get(zone, 0)) for zone, count in held.items())
        for zone, count in sorted(fleet.ready.items()):
            keep = min(count - min(count, held.get(zone, 0)), fleet.replicas - ready)
            if keep > 0:
                held[zone] = held.get(zone, 0) + keep
                ready += keep
        return held


def _choices(ranked: Sequence[Place], zones: int, spells: dict[str, Spells]) -> list[Sequence[Place]]:
    """Sets of so many zones: the cheapest, and the cheapest without the shortest-lived."""
    if len(ranked) < zones:
        return []
    lasting = sorted(ranked, key=lambda place: -spells[place.name].life_hours())
    return [
        sorted(lasting[:size], key=lambda place: (place.usd_per_hour, place.name))[:zones]
        for size in range(zones, len(ranked) + 1)
    ]


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
