"""SkyPilot's record of what was paid, joined with what a run's controller has written."""

from typing import Any

from launcher import managed
from launcher.ledger import Record
from launcher.skypilot import Incarnation

BEGAN = 1_800_000_000.0


def at(seconds: float) -> str:
    return managed._iso(BEGAN + seconds)


def wrote(kind: Any, seconds: float, **facts: Any) -> Record:
    return Record(kind=kind, at=at(seconds), run_id="run", facts=facts)


def paid(place: str, begin: float, end: float | None) -> Incarnation:
    return Incarnation(
        place=place, spot=True, accelerator="A100:8", begin=BEGAN + begin, end=None if end is None else BEGAN + end,
        usd_per_hour=10.0,
    )  # fmt: skip


def test_a_cluster_that_was_refused_costs_nothing_and_the_one_just_before_it_does() -> None:
    records = [
        wrote("decision", 0.4, action="spot"),
        wrote("machine_started", 0.5, machine=1, place="a"),
        wrote("machine_ended", 110, machine=1, reason="taken away", preempted=True),
        wrote("decision", 111, action="spot"),
        wrote("refused", 135, place="a"),
        wrote("decision", 135.1, action="spot"),
        wrote("machine_started", 135.2, machine=2, place="b"),
    ]
    spans = [paid("a", 0, 109), paid("a", 112, 134), paid("b", 135, None)]
    found = managed.machines_of("run", spans, records, [], over=False)
    assert [(record.kind, record.at) for record in found] == [
        ("machine_started", at(0)), ("machine_ended", at(109)), ("machine_started", at(135)),
    ]  # fmt: skip
    assert found[1].facts["reason"] == "taken away"


def test_a_job_that_is_over_is_paid_for_until_its_machine_is_down() -> None:
    for end, paying in ((None, True), (60, False)):
        machines = managed.machines_of("run", [paid("a", 0, end)], [], [], over=True)
        assert managed.Managed(state="finished", machines=machines).paying is paying
