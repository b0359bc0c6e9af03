"""Storage and egress of checkpoints, worked out by hand; 12 GB is a size that makes the figures round."""

import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from checkpoints.stores import open_store
from launcher import managed, skypilot
from launcher.ledger import Record
from launcher.machines import RunFacts
from launcher.report import cost, run_cost
from launcher.upkeep import Bucket
from market.storage import GIGABYTE, Rates, rates

T = datetime.datetime(2026, 11, 23, 12, 0, tzinfo=datetime.UTC)
RATES = {
    "aws": Rates(usd_per_gb_month=0.0365, usd_per_gb_region=0.02, usd_per_gb_out=0.09, source="a list", read="today"),
    "gcp": Rates(usd_per_gb_month=0.02, usd_per_gb_region=0.02, usd_per_gb_out=0.12, source="a list", read="today"),
}
SIZE = 1200 * GIGABYTE


def at(hours: float) -> str:
    return (T + datetime.timedelta(hours=hours)).isoformat()


def record(kind: Any, hours: float, **facts: Any) -> Record:
    return Record(kind=kind, at=at(hours), run_id="r", facts=facts)


def facts(*places: str, bucket: str = "aws/us-east-1", alive: bool = False) -> RunFacts:
    """A machine a place, ten hours each, each saving 1,200 GB after five; each but the first reads the one before."""
    kept = msgspec.to_builtins(Bucket(place=bucket, keep=2, rates=RATES)) if bucket else None
    records = [record("run", 0, recipe="big", price_source="a test", on_demand_usd_per_hour=30.0, bucket=kept)]
    events: list[dict[str, Any]] = []
    for number, place in enumerate(places):
        begin = 10.0 * number
        records.append(
            record("machine_started", begin, machine=number, place=place, usd_per_hour=1.0, price_source="x")
        )
        events += [
            {"event": "training_started", "at": at(begin + 1), "step": number, "steps": 9},
            {"event": "save_committed", "at": at(begin + 5), "step": number + 1, "bytes": SIZE},
        ]
        if not (alive and number == len(places) - 1):
            records.append(record("machine_ended", begin + 10, machine=number, reason="taken away", preempted=True))
    if not alive:
        records.append(record("ended", 10.0 * len(places), state="finished"))
    return RunFacts(run_id="r", records=records, events=events, metrics=[], alive=alive)


def test_a_checkpoint_is_paid_for_until_newer_ones_have_replaced_it() -> None:
    same = "aws/us-east-1/us-east-1a"
    found = run_cost(facts(same, same, same), T + datetime.timedelta(days=400))
    # Of three saves at hours 5, 15 and 25, two are kept: 20 + 15 + 5 hours up to the end, of 1,200 GB each.
    assert [(line.what, line.usd) for line in found.upkeep] == [("storage", round(1200 * 40 / 730 * 0.0365, 2))]
    assert found.upkeep[0].usd == 2.40
    assert (found.usd_machines, found.usd_spent) == (30.0, 32.4)
    assert found.upkeep[0].estimated
    assert any("$87.60 a month until they are deleted" in note for note in found.notes)


def test_of_a_run_that_goes_on_storage_counts_up_to_now() -> None:
    found = run_cost(facts("aws/us-east-1/us-east-1a", alive=True), T + datetime.timedelta(hours=15))
    assert [(line.usd, line.ended_at) for line in found.upkeep] == [(0.6, None)]
    assert not any("a month" in note for note in found.notes)


@pytest.mark.parametrize(
    ("place", "read", "written"),
    [
        ("aws/us-east-1/us-east-1b", 0.0, 0.0),
        ("aws/us-east-2/us-east-2a", 0.02, 0.02),
        ("gcp/us-central1/us-central1-a", 0.09, 0.12),  # whoever sends pays
        ("slurm/lab/gpus", 0.09, 0.0),
    ],
)
def test_bytes_that_leave_a_place_are_charged_by_its_cloud(place: str, read: float, written: float) -> None:
    found = run_cost(facts("aws/us-east-1/us-east-1a", place), T)
    carried = [line for line in found.upkeep if line.what == "egress"]
    expected = round(1200 * read + 1200 * written, 2)
    assert [line.usd for line in carried] == ([expected] if expected else [])
    assert [line.zone for line in carried] == ([place] if expected else [])


def test_traffic_without_a_known_price_is_said_and_not_guessed() -> None:
    found = run_cost(facts("lambda/us-east-1", "lambda/us-east-1"), T)
    assert [line.what for line in found.upkeep] == ["storage"]
    assert any("lambda/us-east-1 and aws/us-east-1 has no known price" in note for note in found.notes)
    regionless = run_cost(facts("aws/us-east-1/us-east-1a", bucket="aws"), T)
    assert any("no known price" in note for note in regionless.notes)


def test_a_store_that_no_cloud_bills_costs_nothing() -> None:
    assert run_cost(facts("aws/us-east-1", bucket=""), T).upkeep == []
    assert open_store("/tmp").place() == ""


def test_the_totals_hold_every_line() -> None:
    found = cost([facts("aws/us-east-1/us-east-1a", "gcp/us-central1/a")], T)
    assert found.usd_spent == found.runs[0].usd_spent == round(sum(line.usd or 0 for line in found.lines), 2)


def test_every_rate_says_where_and_when_it_was_read() -> None:
    assert {"aws", "gcp"} <= set(rates())
    for cloud, each in rates().items():
        assert each.source, cloud
        assert datetime.date.fromisoformat(each.read) >= datetime.date(2026, 1, 1)


PAID = skypilot.Incarnation(
    place="aws/us-east-1/a", spot=False, accelerator="", begin=T.timestamp(), end=T.timestamp() + 7200, usd_per_hour=0.2
)


def test_controllers_are_asked_for_until_they_can_change_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def controllers() -> list[skypilot.Incarnation]:
        asked.append(1)
        return [PAID]

    monkeypatch.setattr(skypilot, "missing", str)
    monkeypatch.setattr(skypilot, "silent", str)
    monkeypatch.setattr(skypilot, "controllers", controllers)
    for live, asks in ((True, 1), (True, 2), (False, 3), (False, 3)):
        lines = managed.controllers(tmp_path, T, launched=T, live=live)
        assert [(line.what, line.usd) for line in lines] == [("controller", 0.4)]
        assert len(asked) == asks
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    managed.controllers(tmp_path, T, launched=later, live=False)
    assert len(asked) == 4
    report = cost([], T, (), managed.controllers(tmp_path, T, launched=T, live=False))
    assert report.usd_spent == 0.4
