"""Our policy: deterministic, remembered, learning, and within its promises."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.availability import Market, ZoneTrace
from market.chain import Belief, steps
from market.deadline import can_spot, can_wait
from market.least_cost import LeastCost
from market.modelled import modelled
from market.optimal import usd_optimal
from market.policy import Costs, Machine, Observation, Zone
from market.replay import HOUR, Job, replay
from market.spells import OPEN_ENDS, SHUT_ENDS, Spells, mean_lives
from market.waiting import AGES

RESTART = Costs(restart_hours=0.1, sure_hours=1 / 6)


def seen(**changes: Any) -> Observation:
    """Ten hours of work, two hours to spare, one open zone and nothing held."""
    facts: dict[str, Any] = {
        "now_hours": 0.0, "next_hours": 1 / 6, "work_left_hours": 10.0, "deadline_hours": 12.1, "costs": RESTART,
        "zones": (Zone(name="a", spot_usd_per_hour=1.0, on_demand_usd_per_hour=4.0, available=True),),
    }  # fmt: skip
    return Observation(**(facts | changes))


def shut(*names: str) -> tuple[Zone, ...]:
    return tuple(Zone(name=name, spot_usd_per_hour=1.0, on_demand_usd_per_hour=4.0, available=False) for name in names)


def test_it_takes_spot_where_there_is_and_says_why() -> None:
    decision = LeastCost().decide(seen())
    assert (decision.action, decision.zone) == ("spot", "a")
    assert decision.reason


def test_it_waits_at_first_and_goes_on_demand_when_a_gap_grows_long() -> None:
    policy = LeastCost()
    actions = []
    for tick in range(60):
        decision = policy.decide(seen(now_hours=tick / 6, zones=shut("a"), deadline_hours=13.0))
        actions.append(decision.action)
        if decision.action == "on_demand":
            break
    assert actions[0] == "wait"
    assert actions[-1] == "on_demand"


def test_nothing_to_spare_is_spent_on_demand() -> None:
    assert LeastCost().decide(seen(deadline_hours=10.1)).action == "on_demand"
    late = seen(deadline_hours=10.2, zones=shut("a"))
    assert not can_wait(late)
    assert LeastCost().decide(late).action == "on_demand"


def test_work_that_would_be_lost_and_late_detection_are_in_the_reckoning() -> None:
    held = Machine(zone="a", spot=True, age_hours=3.0)
    real = Costs(restart_hours=0.1, commit_every_hours=1.0, detection_hours=0.2)
    left = seen(machine=held, costs=real, uncommitted_hours=0.5, deadline_hours=10.0 + 1 / 6 + 0.1 + 0.2 + 0.5)
    assert can_spot(left, fresh=False)
    assert not can_spot(msgspec.structs.replace(left, uncommitted_hours=0.6), fresh=False)


def test_a_zone_that_costs_nearly_as_much_as_on_demand_is_left_for_a_cheap_one() -> None:
    dear = Zone(name="dear", spot_usd_per_hour=3.5, on_demand_usd_per_hour=4.0, available=True)
    cheap = Zone(name="cheap", spot_usd_per_hour=1.0, on_demand_usd_per_hour=4.0, available=True)
    decision = LeastCost().decide(seen(zones=(dear, cheap), machine=Machine(zone="dear", spot=True, age_hours=1.0)))
    assert (decision.action, decision.zone) == ("spot", "cheap")


def test_without_a_deadline_it_has_patience_and_still_ends() -> None:
    policy = LeastCost()
    assert policy.decide(seen(deadline_hours=None, zones=shut("a"))).action == "wait"
    actions = {
        policy.decide(seen(deadline_hours=None, zones=shut("a"), now_hours=tick / 6)).action for tick in range(1, 90)
    }
    assert "on_demand" in actions


def test_a_spell_that_lasts_is_expected_to_last() -> None:
    young, old = Spells(), Spells()
    for tick in range(100):
        old.look(tick / 6, True)
    young.look(0.0, True)
    assert old.life_hours() > 2 * young.life_hours()


def test_a_dear_zone_that_lasts_takes_the_place_of_on_demand() -> None:
    policy = LeastCost()
    dear = Zone(name="dear", spot_usd_per_hour=3.0, on_demand_usd_per_hour=4.0, available=True)
    for tick in range(-100, 0):
        policy.notice(tick / 6, (dear, *shut("a")))
    decision = policy.decide(seen(deadline_hours=10.5, zones=(dear, *shut("a"))))
    assert (decision.action, decision.zone) == ("spot", "dear")


@pytest.mark.parametrize("ages", AGES.values())
def test_spells_last_as_long_by_the_chain_as_they_are_believed_to(ages: tuple[int, ...]) -> None:
    zone = Belief(usd_per_hour=0.2, open_ends=OPEN_ENDS[2], shut_ends=SHUT_ENDS[1])
    chances = steps(zone, ages)
    assert chances.sum(axis=1) == pytest.approx(1.0)
    state = [1.0] + [0.0] * (2 * len(ages) - 1)
    hours = 0.0
    for _ in range(2000):
        state = [*(state @ chances)[: len(ages)], *[0.0] * len(ages)]
        hours += sum(state) / 6
    assert hours == pytest.approx(mean_lives(zone.open_ends)[0], rel=0.25)


def test_without_a_deadline_the_budget_is_not_passed_on_demand() -> None:
    policy = LeastCost()
    ticks = (seen(now_hours=tick / 6, deadline_hours=None, zones=shut("a")) for tick in range(90))
    paid = next(each for each in ticks if policy.decide(each).action == "on_demand")
    rich, poor = (msgspec.structs.replace(paid, budget_usd=usd) for usd in (100.0, 20.0))
    assert policy.decide(rich).action == "on_demand"
    decision = policy.decide(poor)
    assert decision.action == "wait"
    assert "budget of $20.00" in decision.reason
    on_demand = Machine(zone="a", spot=False, age_hours=1.0)
    assert policy.decide(msgspec.structs.replace(poor, machine=on_demand)).action == "wait"


def test_a_deadline_is_met_over_the_budget_and_the_reason_says_so() -> None:
    decision = LeastCost().decide(seen(zones=shut("a"), deadline_hours=10.2, budget_usd=20.0))
    assert decision.action == "on_demand"
    assert "budget of $20.00" in decision.reason


def test_reading_the_checkpoint_from_another_region_is_part_of_the_price() -> None:
    zones = tuple(
        Zone(name=f"{region}a", region=region, spot_usd_per_hour=usd, on_demand_usd_per_hour=4.0, available=True)
        for region, usd in (("here", 1.1), ("there", 1.0))
    )
    costs = msgspec.structs.replace(RESTART, move_usd=5.0)
    assert LeastCost().decide(seen(zones=zones, data_region="here")).zone == "therea"
    assert LeastCost().decide(seen(zones=zones, data_region="here", costs=costs)).zone == "herea"


def test_what_it_remembers_survives_as_json_and_decides_the_same() -> None:
    market = modelled([("a", 1.0), ("b", 1.1)], on_demand_usd_per_hour=4.0, hours=30, seed=3)
    first = LeastCost()
    observations = [
        seen(
            now_hours=tick / 6, deadline_hours=14.0,
            zones=tuple(
                Zone(name=zone.name, spot_usd_per_hour=zone.usd_per_hour[tick], on_demand_usd_per_hour=4.0,
                     available=zone.available[tick])
                for zone in market.zones
            ),
        )
        for tick in range(20)
    ]  # fmt: skip
    for each in observations[:10]:
        first.decide(each)
    second = LeastCost()
    second.remember(msgspec.json.decode(msgspec.json.encode(first.memory())))
    assert [first.decide(each) for each in observations[10:]] == [second.decide(each) for each in observations[10:]]


def test_what_another_version_remembered_is_forgotten_and_the_run_goes_on() -> None:
    older = {"zones": {"a": {"open": True, "since": 0.0}}, "market": {}, "total_hours": 10.0}
    policy = LeastCost()
    policy.remember(older)
    late = seen(now_hours=30.0, deadline_hours=None, zones=shut("a"))
    assert policy.decide(late) == LeastCost().decide(late)
    assert policy.decide(late).action == "wait"


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 3),
    st.sampled_from([180, 720, 1500]),
    st.sampled_from([0, 600, 3000]),
    st.integers(0, 12),
)
def test_it_is_never_late_in_markets_that_turn_against_it(
    seed: int, zones: int, restart: int, checkpoint: int, spare_ticks: int
) -> None:
    market = modelled(
        [(f"z{at}-a", 1.0 + at / 10) for at in range(zones)], on_demand_usd_per_hour=4.0, hours=12, seed=seed
    )
    work = 6 * HOUR
    job = Job(
        work_seconds=work, deadline_seconds=work + restart + 600 * spare_ticks, restart_seconds=restart,
        checkpoint_seconds=checkpoint,
    )  # fmt: skip
    hostile = Hostile(market)
    assert replay("vlaunch", LeastCost(), market, job).met_deadline
    assert replay("vlaunch", hostile, hostile.hurt, job).met_deadline


class Hostile(LeastCost):
    """The market shuts a zone in the tick after the policy started there."""

    def __init__(self, market: Market) -> None:
        super().__init__()
        self.hurt = msgspec.structs.replace(
            market, zones=[msgspec.structs.replace(zone, available=list(zone.available)) for zone in market.zones]
        )

    def decide(self, seen: Observation) -> Any:
        decision = super().decide(seen)
        if decision.action == "spot":
            tick = round(seen.now_hours * HOUR / self.hurt.tick_seconds) + 1
            zone: ZoneTrace = next(zone for zone in self.hurt.zones if zone.name == decision.zone)
            zone.available[tick : tick + 1] = [False]
        return decision


def test_it_costs_less_than_on_demand_and_no_less_than_the_optimum() -> None:
    market = modelled([("a", 1.0)], on_demand_usd_per_hour=4.0, hours=60, seed=1)
    job = Job(work_seconds=24 * HOUR, deadline_seconds=36 * HOUR, restart_seconds=360)
    found = replay("vlaunch", LeastCost(), market, job)
    assert usd_optimal(market, job) <= found.usd < 24.1 * 4.0


def test_history_before_the_start_is_learnt_from() -> None:
    policy = LeastCost()
    for tick in range(-200, 0):
        policy.notice(tick / 6, shut("a") if tick % 2 else seen().zones)
    flutters = policy.zones["a"].weights(True)
    assert flutters[2] == max(flutters) == pytest.approx(1.0, abs=0.1)
