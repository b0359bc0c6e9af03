"""The bound on what serving can cost, held against every way there is in small markets."""

import itertools
import random

import pytest

from market.availability import Market, ZoneTrace
from market.fleet import ON_DEMAND, Fleet, OnDemandFleet
from market.least_serving import usd_least
from market.serving import serve


class Scripted:
    """Holds what it was told, tick by tick."""

    def __init__(self, holds: tuple[dict[str, int], ...]) -> None:
        self.holds = iter(holds)

    def hold(self, fleet: Fleet) -> dict[str, int]:
        return next(self.holds)


def market(seed: int, zones: int, ticks: int) -> Market:
    dice = random.Random(seed)
    return Market(
        name="small",
        tick_seconds=600,
        zones=[
            ZoneTrace(
                name=f"z{at}",
                available=[dice.random() < 0.6 for _ in range(ticks)],
                usd_per_hour=[1 + dice.random() for _ in range(ticks)],
                on_demand_usd_per_hour=5.0,
            )
            for at in range(zones)
        ],
    )


@pytest.mark.parametrize(
    ("seed", "zones", "ticks", "cold"), [(1, 2, 4, 200), (2, 2, 4, 200), (3, 1, 6, 900), (4, 1, 6, 900), (5, 1, 6, 200)]
)
def test_with_one_replica_it_is_the_best_mix_of_all_ways(seed: int, zones: int, ticks: int, cold: int) -> None:
    small = market(seed, zones, ticks)
    places = [*(zone.name for zone in small.zones), ON_DEMAND]
    choices = [dict(zip(places, counts, strict=True)) for counts in itertools.product((0, 1), repeat=len(places))]
    ways = []
    for holds in itertools.product(choices, repeat=ticks):
        found = serve("scripted", Scripted(holds), small, replicas=1, cold_start_seconds=cold, availability=0.5)
        ways.append((1 - found.availability, found.usd))
    for wanted in (0.4, 0.6, 0.7):
        bound = usd_least(small, replicas=1, cold_start_seconds=cold, availability=wanted)
        assert bound == pytest.approx(best_mix(ways, 1 - wanted), rel=1e-3)


def best_mix(ways: list[tuple[float, float]], allowed: float) -> float:
    """The least mean dollars of two ways, mixed so that what is missed is allowed."""
    least: dict[float, float] = {}
    for missed, usd in ways:
        least[round(missed, 9)] = min(usd, least.get(round(missed, 9), usd))
    best = min(usd for missed, usd in least.items() if missed <= allowed)
    for (less, dear), (more, cheap) in itertools.product(least.items(), repeat=2):
        if less <= allowed < more:
            best = min(best, dear + (cheap - dear) * (allowed - less) / (more - less))
    return best


def test_no_policy_is_under_it() -> None:
    small = market(6, 3, 200)
    found = serve("on-demand", OnDemandFleet(), small, replicas=4, cold_start_seconds=120, availability=0.995)
    bound = usd_least(small, replicas=4, cold_start_seconds=120, availability=found.availability)
    assert 0 < bound < found.usd
