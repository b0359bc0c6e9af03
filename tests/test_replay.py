"""The replay's rules, the exact optimum against brute force, and the promise that no deadline is missed."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.availability import Market, ZoneTrace
from market.errors import MarketError
from market.optimal import usd_optimal
from market.policies import BY_NAME, named
from market.policy import Decision, Observation
from market.replay import HOUR, Job, job, replay, summarise

TICK = 600


def market(*zones: str, usd: tuple[float, ...] = (1.0, 1.2), on_demand: float = 4.0) -> Market:
    """A zone a string: `#` is available, `.` is not."""
    return Market(
        name="m",
        tick_seconds=TICK,
        zones=[
            ZoneTrace(
                name=f"r{at}-a",
                available=[mark == "#" for mark in marks],
                usd_per_hour=[usd[at]] * len(marks),
                on_demand_usd_per_hour=on_demand,
            )
            for at, marks in enumerate(zones)
        ],
    )


def asked(work: int, deadline: int, restart: int = 360, checkpoint: int = 0) -> Job:
    return Job(work_seconds=work, deadline_seconds=deadline, restart_seconds=restart, checkpoint_seconds=checkpoint)


class Script:
    """Does what it is told, tick by tick, then holds on demand."""

    def __init__(self, steps: tuple[str, ...]) -> None:
        self.steps = list(steps)

    def decide(self, seen: Observation) -> Decision:
        step = self.steps.pop(0) if self.steps else "on_demand"
        held = seen.machine
        if held is not None and (step == held.zone if held.spot else step == "on_demand"):
            return Decision(action="hold")
        if step in ("wait", "on_demand"):
            return Decision(action=step)  # type: ignore[arg-type]
        return Decision(action="spot", zone=step)

    def memory(self) -> dict[str, Any]:
        return {}

    def remember(self, memory: dict[str, Any]) -> None:
        return


def run(steps: tuple[str, ...], where: Market, what: Job) -> Any:
    return replay("script", Script(steps), where, what)


def test_a_new_machine_first_spends_the_overhead_and_ticks_are_billed_whole() -> None:
    found = run(("r0-a", "r0-a", "r0-a"), market("####"), asked(900, 4 * TICK))
    # 4 minutes of work in the first tick, 10 in the second, and a minute into the third
    assert found.finished_hours == (2 * TICK + 60) / HOUR
    assert found.usd == pytest.approx(3 * TICK / HOUR * 1.0)
    assert (found.starts, found.preemptions, found.met_deadline) == (1, 0, True)


def test_a_spot_machine_ends_with_its_zone_and_work_since_the_commit_is_lost() -> None:
    kept = run(("r0-a",) * 3, market("##.#######"), asked(3600, 10 * TICK))
    lost = run(("r0-a",) * 3, market("##.#######"), asked(3600, 10 * TICK, checkpoint=500))
    assert (kept.preemptions, kept.hours_lost) == (1, 0.0)
    assert lost.hours_lost * HOUR == 340  # 240 + 600 seconds of work, the last commit at 500
    assert lost.finished_hours * HOUR == kept.finished_hours * HOUR + 340


def test_asking_for_spot_where_there_is_none_costs_nothing() -> None:
    found = run(("r0-a", "r0-a"), market("..######"), asked(600, 8 * TICK))
    assert found.hours_idle == 2 * TICK / HOUR
    assert found.starts == 1


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.text("#.", min_size=6, max_size=6), min_size=1, max_size=2),
    st.sampled_from([0, 180, 600, 720]),
    st.sampled_from([600, 1000, 1500]),
    st.sampled_from([0, 250]),
)
def test_the_optimum_is_what_brute_force_finds(zones: list[str], restart: int, work: int, cut: int) -> None:
    where = market(*zones)
    what = asked(work, 5 * TICK + cut, restart)
    steps = ["wait", "on_demand", *(zone.name for zone in where.zones)]
    costs = [found.usd for plan in itertools.product(steps, repeat=6) if (found := run(plan, where, what)).met_deadline]
    assert usd_optimal(where, what) == pytest.approx(min(costs, default=float("inf")))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("#.", min_size=40, max_size=40), min_size=1, max_size=3),
    st.sampled_from([0, 180, 720, 1500]),
    st.sampled_from([0, 600, 3000]),
    st.integers(0, 8 * TICK),
    st.sampled_from(sorted(BY_NAME)),
)
def test_no_deadline_that_could_be_met_on_demand_is_missed(
    zones: list[str], restart: int, checkpoint: int, spare: int, name: str
) -> None:
    where = market(*zones, usd=(1.0, 1.2, 0.9))
    work = 20 * TICK
    found = replay(name, named(name), where, asked(work, work + restart + spare, restart, checkpoint))
    assert found.met_deadline
    if not checkpoint:
        assert found.usd >= usd_optimal(where, asked(work, work + restart + spare, restart)) - 1e-9


def test_a_deadline_too_short_even_on_demand_is_refused_by_how_much() -> None:
    with pytest.raises(MarketError, match=r"is 0\.60 hours too short even on demand"):
        job(market("#" * 100), work_hours=2, deadline_hours=1.5, restart_minutes=6, checkpoint_minutes=0, start_hours=0)


def test_a_record_shorter_than_the_deadline_is_refused() -> None:
    with pytest.raises(MarketError, match=r"has 1\.0 hours after the start at 0, fewer than the deadline of 2"):
        job(market("#" * 6), work_hours=1, deadline_hours=2, restart_minutes=6, checkpoint_minutes=0, start_hours=0)


def test_a_summary_counts_late_runs_and_ratios() -> None:
    runs = [run(("r0-a",) * 9, market("#" * 12), asked(1200, 12 * TICK)) for _ in range(2)]
    runs[0].usd_optimal, runs[1].usd_optimal = runs[0].usd, runs[1].usd / 2
    runs[1].met_deadline = False
    (line,) = summarise(runs)
    assert (line.mean_ratio, line.worst_ratio, line.late) == (1.5, 2.0, 1)
