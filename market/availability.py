"""What is known of zones over time: recorded markets, tick by tick, and where a run would stand in one. Pure."""

from collections.abc import Sequence

import msgspec

from market.errors import MarketError

RARE = 0.02
"""Availability under this is more often a wrong polarity than a market."""
ALWAYS = 0.999
"""And over this."""


class ZoneTrace(msgspec.Struct, frozen=True, kw_only=True):
    """One zone, recorded."""

    name: str
    available: list[bool]
    """A tick each: whether a spot machine would start, and one that runs goes on."""
    usd_per_hour: list[float]
    """Spot, a tick each."""
    on_demand_usd_per_hour: float


class Market(msgspec.Struct, frozen=True, kw_only=True):
    """Zones recorded over the same ticks."""

    name: str
    """As the caller gave it."""
    tick_seconds: int
    zones: list[ZoneTrace]
    begins_utc_hour: float | None = None
    """Of the day, where the record says so."""
    notes: list[str] = []
    """What had to be mended when it was read, for a person."""

    @property
    def ticks(self) -> int:
        return len(self.zones[0].available)

    @property
    def on_demand_usd_per_hour(self) -> float:
        """The cheapest zone's: on demand is taken to be there whenever it is asked for."""
        return min(zone.on_demand_usd_per_hour for zone in self.zones)

    @property
    def cheapest_on_demand(self) -> str:
        """The zone of that price."""
        return min(self.zones, key=lambda zone: (zone.on_demand_usd_per_hour, zone.name)).name


def availability(zone: ZoneTrace) -> float:
    """Share of the ticks."""
    return sum(zone.available) / len(zone.available)


def doubtful(markets: Sequence[Market]) -> str:
    """Why the polarity of what was read may be wrong, all markets together; empty where it looks right.

    A single zone may well be never there or always; a whole collection hardly.
    """
    zones = [zone for market in markets for zone in market.zones]
    share = sum(sum(zone.available) for zone in zones) / sum(len(zone.available) for zone in zones)
    if RARE <= share <= ALWAYS:
        return ""
    return (
        f"Spot is available {share:.1%} of the time in what was read, which looks like --available-when the wrong way "
        "round"
    )


def region(zone: str) -> str:
    """Of a zone's name, in the two clouds' ways: `us-east-1a` is in us-east-1, `us-east4-b` in us-east4."""
    head, dash, tail = zone.rpartition("-")
    if dash and len(tail) == 1 and tail.isalpha():
        return head
    return zone[:-1] if zone[-1:].isalpha() and zone[-2:-1].isdigit() else zone


def subset(market: Market, names: Sequence[str]) -> Market:
    """The market with only these zones. Raises MarketError where one is not there."""
    by_name = {zone.name: zone for zone in market.zones}
    for name in names:
        if name not in by_name:
            raise MarketError(f"{market.name} has no zone '{name}'; it has {', '.join(by_name)}.")
    return msgspec.structs.replace(market, zones=[by_name[name] for name in names])
