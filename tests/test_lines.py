"""Dollars that add up to the cent, whatever they are grouped by."""

import datetime
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.ledger import Record
from launcher.lines import CostLine, Group, cents, grouped, split, total
from launcher.machines import RunFacts
from launcher.report import CostReport, cost

T = datetime.datetime(2026, 11, 23, 22, 0, tzinfo=datetime.UTC)


def at(minutes: float) -> str:
    return (T + datetime.timedelta(minutes=minutes)).isoformat()


def record(run: str, kind: Any, minutes: float, **facts: Any) -> Record:
    return Record(kind=kind, at=at(minutes), run_id=run, facts=facts)


@given(st.integers(0, 10**9), st.lists(st.floats(0, 1e6), min_size=1, max_size=8))
def test_parts_add_up_to_the_cent_and_none_is_a_cent_from_its_share(amount: int, weights: list[float]) -> None:
    usd = amount / 100
    parts = split(usd, weights)
    assert cents(sum(parts)) == usd
    whole = sum(weights)
    if whole > 0:
        assert all(abs(part - usd * (weight / whole)) < 0.0101 for part, weight in zip(parts, weights, strict=True))


@st.composite
def runs(draw: st.DrawFn) -> list[RunFacts]:
    """Runs of machines one after another, some with events, some with a price that changes or is not known."""
    minutes = st.floats(0, 3000)
    price = st.one_of(st.floats(0.01, 99), st.floats(0.01, 99), st.none())
    found = []
    for number in range(draw(st.integers(1, 4))):
        run, clock = f"run-{number}", draw(minutes)
        records = [record(run, "run", clock, recipe="r", owner=draw(st.sampled_from("ab")), on_demand_usd_per_hour=9.0)]
        events = []
        for machine in range(1, draw(st.integers(1, 4)) + 1):
            facts = {"machine": machine, "usd_per_hour": draw(price), "price_source": "s"}
            place = draw(st.sampled_from(["aws/x", "gcp/y"]))
            records.append(record(run, "machine_started", clock, place=place, **facts))
            if draw(st.booleans()):
                changed = facts | {"usd_per_hour": draw(price)}
                records.append(record(run, "machine_price", clock + draw(minutes), **changed))
            moments = sorted(draw(st.lists(minutes, min_size=5, max_size=5)))
            events += [
                {"event": "training_started", "at": at(clock + moments[0]), "step": 0, "steps": 9},
                {"event": "save_started", "at": at(clock + moments[1]), "step": machine},
                {"event": "save_committed", "at": at(clock + moments[2]), "step": machine},
            ]
            ended = {"machine": machine, "reason": "x", "preempted": True, "lost_at": at(clock + moments[3])}
            clock += moments[4]
            records.append(record(run, "machine_ended", clock, **ended))
        found.append(RunFacts(run_id=run, records=records, events=events, metrics=[], alive=False))
    return found


def check_sums(report: CostReport) -> None:
    assert total(line.usd for line in report.lines) == report.usd_spent
    assert total(run.usd_spent for run in report.runs) == report.usd_spent
    for run in report.runs:
        assert total(attempt.usd for attempt in run.attempts) == run.usd_spent
        for attempt in run.attempts:
            mine = [line for line in report.lines if (line.subject, line.attempt) == (run.run_id, attempt.number)]
            assert total(line.usd for line in mine) == attempt.usd
    for by in get_args(Group):
        assert total(each.usd for each in grouped(report.lines, by, T)) == report.usd_spent


@given(runs())
def test_totals_are_the_sum_of_what_is_shown_for_every_grouping(found: list[RunFacts]) -> None:
    check_sums(cost(found, T + datetime.timedelta(days=90)))


def test_three_attempts_in_two_clouds_with_a_price_change_cost_what_a_person_reckons() -> None:
    """By hand: 90 min at $12.64 = 18.96; 40 min at $13.10 and 20 min at $14.20 = 8.7333 + 4.7333 = 13.47 (13.4667);
    30 min at $9.99 = 4.995, which is $5.00 (4.995 is just above in binary)."""
    run = [
        record("r", "run", 0, recipe="r", owner="o", on_demand_usd_per_hour=40.24, price_source="s"),
        record("r", "machine_started", 0, machine=1, place="gcp/a", usd_per_hour=12.64, price_source="gcp's list"),
        record("r", "machine_ended", 90, machine=1, reason="preempted (no notice)", preempted=True, lost_at=at(85)),
        record("r", "machine_started", 100, machine=2, place="aws/b", usd_per_hour=13.10, price_source="aws's list"),
        record("r", "machine_price", 140, machine=2, usd_per_hour=14.20, price_source="aws's list, later"),
        record("r", "machine_ended", 160, machine=2, reason="preempted (notice)", preempted=True),
        record("r", "machine_started", 170, machine=3, place="gcp/a", usd_per_hour=9.99, price_source="gcp's list"),
        record("r", "machine_ended", 200, machine=3, reason="finished", preempted=False),
        record("r", "ended", 200, state="finished", why=""),
    ]
    events = [
        {"event": "training_started", "at": at(6), "step": 0, "steps": 100},
        {"event": "save_started", "at": at(75), "step": 40},
        {"event": "save_committed", "at": at(76), "step": 40},
        {"event": "training_started", "at": at(103), "step": 40, "steps": 100},
        {"event": "save_started", "at": at(159), "step": 70},
        {"event": "save_committed", "at": at(160), "step": 70},
        {"event": "training_started", "at": at(174), "step": 70, "steps": 100},
        {"event": "save_started", "at": at(199), "step": 100},
        {"event": "save_committed", "at": at(200), "step": 100},
        {"event": "finished", "at": at(200), "step": 100},
    ]
    report = cost([RunFacts(run_id="r", records=run, events=events, metrics=[], alive=False)], T)
    check_sums(report)
    first, second, third = report.runs[0].attempts
    assert [first.usd, second.usd, third.usd] == [18.96, 13.47, 5.00]
    assert report.usd_spent == 37.43
    # The first machine: 10 minutes done again (2.11), 5 gone before it was noticed (1.05).
    assert (first.usd_done_again, first.usd_late_detection, first.usd_lost) == (2.11, 1.05, 3.16)
    # The second: 3 minutes of starting up (0.655), 1 minute after its last state (0.2367).
    assert second.usd_lost == pytest.approx(0.655 + 0.2367, abs=0.011)
    assert report.usd_on_demand == 120.72
    by_zone = {each.key: each.usd for each in grouped(report.lines, "zone", T)}
    assert by_zone == {"gcp/a": 23.96, "aws/b": 13.47}
    # Midnight is 120 minutes after T: 20 of the second machine's 60 minutes lie before it.
    by_day = {each.key: each.usd for each in grouped(report.lines, "day", T)}
    assert by_day == {
        "2026-11-23": pytest.approx(18.96 + 13.47 / 3, abs=0.03),
        "2026-11-24": pytest.approx(13.98, abs=0.03),
    }


def test_an_unknown_price_makes_its_group_unknown_and_no_other() -> None:
    line = CostLine(
        subject="a", what="machine", part="work", zone="x", started_at=at(0), ended_at=at(9), usd=None, price_source=""
    )
    known = msgspec.structs.replace(line, zone="y", usd=1.0)
    assert {each.key: each.usd for each in grouped([line, known], "zone", T)} == {"x": None, "y": 1.0}


def test_a_clock_that_went_back_counts_nothing_and_is_said() -> None:
    run = [
        record("r", "run", 0, recipe="r", on_demand_usd_per_hour=1.0),
        record("r", "machine_started", 50, machine=1, place="a", usd_per_hour=60.0, price_source="s"),
        record("r", "machine_ended", 20, machine=1, reason="finished", preempted=False),
    ]
    found = cost([RunFacts(run_id="r", records=run, events=[], metrics=[], alive=False)], T).runs[0]
    assert found.usd_spent == 0
    assert found.notes == ["machine 1 ended before it began by this machine's clock, and is counted as nothing"]


def test_what_was_lost_is_unknown_where_the_store_cannot_be_read_and_what_was_spent_is_not() -> None:
    run = [
        record("r", "run", 0, recipe="r", on_demand_usd_per_hour=9.0),
        record("r", "machine_started", 0, machine=1, place="a", usd_per_hour=6.0, price_source="s"),
        record("r", "machine_ended", 60, machine=1, reason="finished", preempted=False),
    ]
    facts = RunFacts(run_id="r", records=run, events=[], metrics=[], alive=False, store_unread="no such bucket")
    found = cost([facts], T).runs[0]
    assert (found.usd_spent, found.usd_on_demand) == (6.0, 9.0)
    assert (found.usd_lost_to_preemption, found.usd_saved) == (None, None)
    assert found.notes == ["what was lost to preemption is not known: no such bucket"]
