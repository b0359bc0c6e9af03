"""How many replicas where: ready as long as wanted, for less than the peers."""

import itertools
import random

import pytest

from market.arrangements import Odds
from market.availability import Market, ZoneTrace
from market.fleet import ON_DEMAND, Fleet, OnDemandFleet, Place, ServingPolicy
from market.least_cost_fleet import WEEK_HOURS, LeastCostFleet
from market.modelled import modelled
from market.serving import SERVING, serve


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


@pytest.mark.parametrize(("seed", "replicas", "cold"), [(5, 4, 120), (6, 1, 60), (7, 8, 120), (8, 2, 300)])
def test_it_is_ready_as_wanted_for_less_than_spothedge_where_that_is_too(seed: int, replicas: int, cold: float) -> None:
    zones = [(f"z{at}-a", 1.0 + 0.1 * at) for at in range(6)]
    market = modelled(zones, on_demand_usd_per_hour=4.0, hours=24 * 14, seed=seed)
    found = {
        name: serve(name, SERVING[name](), market, replicas=replicas, cold_start_seconds=cold, availability=0.995)
        for name in ("vlaunch", "spothedge")
    }
    ours, peer = found["vlaunch"], found["spothedge"]
    assert ours.availability >= 0.995
    assert ours.usd < ours.usd_on_demand
    assert ours.usd < peer.usd or peer.availability < 0.995


class Adversary:
    """Shuts every zone as soon as the policy holds something in it; all others are open."""

    def __init__(self, policy: ServingPolicy, market: Market, mercy: float, seed: int) -> None:
        self.policy, self.market, self.mercy = policy, market, mercy
        self.dice = random.Random(seed)
        self.at = 0

    def hold(self, fleet: Fleet) -> dict[str, int]:
        held = self.policy.hold(fleet)
        self.at += 1
        for zone in self.market.zones:
            if self.at < self.market.ticks:
                zone.available[self.at] = zone.name not in held or self.dice.random() < self.mercy
        return held


@pytest.mark.parametrize("mercy", [0.0, 0.7, 0.97])
@pytest.mark.parametrize(("tick", "cold"), [(600, 120), (195, 600), (600, 600)])
def test_whatever_the_market_does_it_is_ready_as_wanted(mercy: float, tick: int, cold: float) -> None:
    ticks = int(WEEK_HOURS * 3600 / tick) + 1
    zones = [
        ZoneTrace(name=f"z{at}", available=[True] * ticks, usd_per_hour=[1.0] * ticks, on_demand_usd_per_hour=9.0)
        for at in range(4)
    ]
    market = Market(name="against", tick_seconds=tick, zones=zones)
    against = Adversary(LeastCostFleet(), market, mercy, seed=tick)
    found = serve("vlaunch", against, market, replicas=4, cold_start_seconds=cold, availability=0.995)
    assert found.preemptions > 0
    assert found.availability >= 0.995


def test_a_market_that_stays_open_costs_no_more_than_the_replicas() -> None:
    zones = [
        ZoneTrace(name=name, available=[True] * 2000, usd_per_hour=[usd] * 2000, on_demand_usd_per_hour=4.0)
        for name, usd in (("dear", 2.0), ("cheap", 1.0))
    ]
    market = Market(name="calm", tick_seconds=600, zones=zones)
    found = serve("vlaunch", LeastCostFleet(), market, replicas=4, cold_start_seconds=120, availability=0.995)
    assert found.usd == pytest.approx(4 * 1.0 * 2000 / 6, rel=0.01)


def test_without_a_cold_start_nothing_is_short() -> None:
    market = modelled([("a", 1.0), ("b", 1.0)], on_demand_usd_per_hour=4.0, hours=48, seed=1)
    found = serve("vlaunch", LeastCostFleet(), market, replicas=3, cold_start_seconds=0, availability=0.995)
    assert found.preemptions > 0
    assert found.availability == 1


def odds(**ends_per_hour: float) -> Odds:
    usd = {ON_DEMAND: 4.0} | dict.fromkeys(ends_per_hour, 1.0)
    return Odds(
        usd_per_hour=usd, ends_per_hour=ends_per_hour, joint_hours=0.2, replicas=4, cold_start_hours=1 / 30,
    )  # fmt: skip


def test_without_a_spare_every_end_is_a_cold_start() -> None:
    assert odds(a=0.3).weigh({"a": 4}).short_share == pytest.approx(0.3 / 30)
    assert odds(a=0.3, b=0.6).weigh({"a": 2, "b": 2}).short_share == pytest.approx(0.9 / 30)


def test_spares_leave_the_ends_of_two_or_three_together() -> None:
    three = odds(a=0.3, b=0.6, c=0.1)
    pair = three.weigh({"a": 4, "b": 4}).short_share
    assert pair == pytest.approx(2 * 0.3 * 0.6 * 0.2 / 30)
    all_pairs = 2 * 0.2 * (0.3 * 0.6 + 0.3 * 0.1 + 0.6 * 0.1)
    assert three.weigh({"a": 2, "b": 2, "c": 2}).short_share == pytest.approx(all_pairs / 30)
    assert three.weigh({"a": 4, "b": 4, "c": 4}).short_share < pair


def test_zones_that_end_together_are_feared_to_do_so_again() -> None:
    apart, joint = LeastCostFleet(), LeastCostFleet()
    for step in range(40):
        open_zones = "abcdef" if step % 2 else ""
        for policy, zones in ((joint, open_zones), (apart, "abcdef".replace("abcdef"[step % 6], ""))):
            policy.hold(fleet(*zones, now=step / 6))
    assert joint.joint_ends > joint.by_chance
    assert apart.joint_ends == 0 < apart.by_chance


def test_what_costs_more_is_less_often_short() -> None:
    options = odds(a=0.3, b=0.6, c=0.1, d=1.5, e=1.5).options(3200.0)
    assert options[0].held == {"c": 4}
    assert options[-1] == odds().weigh({ON_DEMAND: 4})
    for one, next_one in itertools.pairwise(options):
        assert one.usd_per_hour < next_one.usd_per_hour
        assert one.short_share > next_one.short_share
