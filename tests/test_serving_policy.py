"""How many replicas where: ready as long as wanted, for less than the peers."""

import pytest

from market.availability import Market, ZoneTrace
from market.modelled import modelled
from market.serving import ON_DEMAND, SERVING, Fleet, LeastCostFleet, OnDemandFleet, Place, serve


def fleet(*open_zones: str, now: float = 0.0, ready: dict[str, int] | None = None) -> Fleet:
    places = tuple(Place(name=name, usd_per_hour=1.0, available=name in open_zones) for name in "abcdef")
    return Fleet(
        now_hours=now, places=places, on_demand_usd_per_hour=4.0, ready=ready or {}, starting={}, replicas=4,
        cold_start_hours=1 / 30,
    )  # fmt: skip


def test_with_every_zone_shut_all_are_on_demand() -> None:
    assert LeastCostFleet().hold(fleet()) == {ON_DEMAND: 4}


def test_replicas_that_are_ready_stay_until_the_new_ones_are() -> None:
    policy = LeastCostFleet()
    policy.hold(fleet())
    held = policy.hold(fleet("a", "b", "c", "d", "e", now=1 / 6, ready={ON_DEMAND: 4}))
    assert held[ON_DEMAND] == 4
    assert sum(held.values()) > 4


def test_time_with_too_few_ready_is_counted_to_the_second() -> None:
    zone = ZoneTrace(name="a", available=[True] * 10, usd_per_hour=[1.0] * 10, on_demand_usd_per_hour=4.0)
    market = Market(name="m", tick_seconds=600, zones=[zone])
    found = serve("on-demand", OnDemandFleet(), market, replicas=2, cold_start_seconds=120, availability=0.995)
    assert found.availability == pytest.approx(1 - 120 / 6000)
    assert found.usd == found.usd_on_demand == pytest.approx(2 * 4.0 * 6000 / 3600)


def test_it_is_ready_as_wanted_for_less_than_on_demand() -> None:
    zones = [(f"z{at}-a", 1.0) for at in range(5)]
    market = modelled(zones, on_demand_usd_per_hour=4.0, hours=24 * 14, seed=5)
    found = {
        name: serve(name, SERVING[name](), market, replicas=4, cold_start_seconds=120, availability=0.995)
        for name in ("vlaunch", "spothedge")
    }
    assert found["vlaunch"].availability >= 0.995
    assert found["vlaunch"].usd < found["spothedge"].usd < found["vlaunch"].usd_on_demand
