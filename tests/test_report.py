"""Figures worked out by hand: two machines, the first taken with two steps uncommitted."""

import datetime
from typing import Any

import pytest

from launcher.ledger import Record
from launcher.machines import RunFacts
from launcher.report import run_cost

T = datetime.datetime(2026, 11, 23, 12, 0, tzinfo=datetime.UTC)


def at(minutes: float) -> str:
    return (T + datetime.timedelta(minutes=minutes)).isoformat()


def record(kind: Any, minutes: float, **facts: Any) -> Record:
    return Record(kind=kind, at=at(minutes), run_id="r", facts=facts)


def event(kind: str, minutes: float, **facts: Any) -> dict[str, Any]:
    return {"event": kind, "at": at(minutes), **facts}


def step(number: int, minutes: float) -> dict[str, Any]:
    return {"step": number, "at": at(minutes), "loss": 1.0 / number, "seconds_left": 60.0}


RUN = record("run", 0, recipe="tiny", simulated=True, on_demand_usd_per_hour=30.0, price_source="a test")
FIRST = record("machine_started", 0, machine=1, place="aws/a", usd_per_hour=6.0, price_source="a test")
SECOND = record("machine_started", 30, machine=2, place="aws/b", usd_per_hour=12.0, price_source="a test")
TAKEN = record("machine_ended", 20, machine=1, reason="preempted (no notice)", preempted=True)
DONE = record("machine_ended", 50, machine=2, reason="finished", preempted=False)

EVENTS = [
    event("training_started", 2, step=0, steps=10),
    event("save_started", 14, step=4),
    event("save_committed", 15, step=4),
    event("save_started", 18, step=5),  # never committed
    event("training_started", 33, step=4, steps=10),
    event("save_started", 45, step=10),
    event("save_committed", 46, step=10),
    event("finished", 50, step=10),
]
STEPS = [step(4, 14), step(5, 17), step(6, 19), step(5, 36), step(10, 45)]


def facts(**changes: Any) -> RunFacts:
    whole: dict[str, Any] = {
        "run_id": "r",
        "records": [RUN, FIRST, TAKEN, SECOND, DONE, record("ended", 50, state="finished")],
        "events": EVENTS,
        "metrics": STEPS,
        "alive": False,
    }
    return RunFacts(**(whole | changes))


def test_a_run_of_two_machines_costs_what_it_cost() -> None:
    found = run_cost(facts(), T + datetime.timedelta(hours=5))
    assert [attempt.usd for attempt in found.attempts] == [pytest.approx(2.0), pytest.approx(4.0)]
    assert [(attempt.steps_kept, attempt.steps_lost) for attempt in found.attempts] == [(4, 2), (6, 0)]
    assert found.usd_spent == pytest.approx(6.0)
    assert found.usd_on_demand == pytest.approx(40 / 60 * 30)
    # Lost: six minutes after the last committed state on the first machine, three of starting up on the second.
    assert [attempt.hours_lost for attempt in found.attempts] == [pytest.approx(6 / 60), pytest.approx(3 / 60)]
    assert found.usd_lost_to_preemption == pytest.approx(0.6 + 0.6)
    assert found.usd_uninterrupted_on_demand == pytest.approx(31 / 60 * 30)
    assert found.usd_saved == pytest.approx(31 / 60 * 30 - 6.0)
    assert (found.state, found.preemptions, found.step, found.steps) == ("finished", 1, 10, 10)


def test_the_time_between_machines_is_not_paid() -> None:
    assert run_cost(facts(), T).hours == pytest.approx(40 / 60)


def test_a_machine_that_still_runs_is_counted_up_to_now_and_has_lost_nothing_yet() -> None:
    running = facts(records=[RUN, FIRST], events=EVENTS[:3], metrics=STEPS[:2], alive=True)
    found = run_cost(running, T + datetime.timedelta(minutes=18))
    assert (found.state, found.attempts[0].end_reason, found.attempts[0].ended_at) == ("running", "running", None)
    assert found.usd_spent == pytest.approx(1.8)
    assert found.attempts[0].steps_lost == 0
    assert found.usd_lost_to_preemption == 0


def test_a_machine_whose_launcher_died_ends_at_its_last_sign_of_life() -> None:
    found = run_cost(facts(records=[RUN, FIRST], events=EVENTS[:4], metrics=STEPS[:3]), T + datetime.timedelta(days=3))
    assert found.state == "launcher died"
    assert found.attempts[0].end_reason == "launcher died"
    assert found.usd_spent == pytest.approx(19 / 60 * 6)


def test_an_unknown_price_makes_the_total_unknown_and_never_zero() -> None:
    unknown = record("machine_started", 30, machine=2, place="x", usd_per_hour=None, price_source="unknown")
    found = run_cost(facts(records=[RUN, FIRST, TAKEN, unknown, DONE]), T)
    assert found.attempts[1].usd is None
    assert found.usd_spent is None
    assert found.usd_saved is None
    assert found.usd_lost_to_preemption is None


def test_a_machine_taken_before_its_first_step_lost_everything_it_cost() -> None:
    found = run_cost(facts(records=[RUN, FIRST, TAKEN], events=[], metrics=[]), T)
    assert found.usd_lost_to_preemption == found.usd_spent == pytest.approx(2.0)
