"""Replicas on spot and on demand: what a serving policy sees, and the policies vlaunch's is held against. Pure."""

from typing import Protocol

import msgspec

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
