"""What a service in a cloud costs: SkyServe's replicas and SkyPilot's records, joined; both played here."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from launcher import served
from launcher.errors import SkyPilotError
from launcher.forecast import Budgets, forecast
from launcher.ledger import Record
from launcher.machines import RunFacts
from launcher.managed import Managed
from launcher.report import CostReport, RunCost, cost
from launcher.skypilot import Incarnation
from launcher.skyserve import ServedReplica

NOON = datetime.datetime(2026, 11, 25, 12, 0, tzinfo=datetime.UTC)
SERVICE = "chat-20261125-abcdef"


def incarnation(number: int, begin: float, end: float | None, usd: float = 2.0) -> Incarnation:
    """Hours from noon."""
    return Incarnation(
        cluster=f"{SERVICE}-{number}", place="aws/us-east-2/use2-az1", spot=True, accelerator="L4:1",
        begin=NOON.timestamp() + begin * 3600, end=None if end is None else NOON.timestamp() + end * 3600,
        usd_per_hour=usd,
    )  # fmt: skip


def replica(number: int, state: str = "ready", launched: float | None = 0.0) -> ServedReplica:
    return ServedReplica(
        number=number, cluster=f"{SERVICE}-{number}", state=state, version=1, place="aws/us-east-2/use2-az1", spot=True,
        accelerator="L4:1", launched_at=None if launched is None else NOON.timestamp() + launched * 3600,
        usd_per_hour=None if launched is None else 2.0,
    )  # fmt: skip


class Cloud:
    """SkyServe and SkyPilot's records; either may know nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.there: list[ServedReplica] | None = []
        self.paid: list[Incarnation] = []
        self.silent = False
        self.asked = 0

    def replicas(self, service: str) -> list[ServedReplica] | None:
        assert service == SERVICE
        return self.there

    def records(self, services: Sequence[str]) -> list[Incarnation]:
        assert services == [SERVICE]
        self.asked += 1
        if self.silent:
            raise SkyPilotError("SkyPilot's API server does not answer")
        return self.paid

    def look(self, hours: float, *, over: bool = False) -> Managed:
        now = NOON.timestamp() + hours * 3600
        return served.look(
            SERVICE, [SERVICE], self.folder, over=over, replicas=self.replicas, paid=self.records, clock=lambda: now
        )

    def report(self, hours: float, *, over: bool = False) -> CostReport:
        found = self.look(hours, over=over)
        facts = {"service": True, "recipe": "vicuna-7b", "infra": "aws", "on_demand_usd_per_hour": 5.0}
        ended = [record("ended", state="stopped", why="")] if over else []
        run = RunFacts(
            run_id=SERVICE, records=[record("run", **facts), *found.machines, *ended], events=[], metrics=[],
            alive=not over, state=found.state, skypilot_unread=found.unread,
        )  # fmt: skip
        return cost([run], NOON + datetime.timedelta(hours=hours))

    def cost(self, hours: float, *, over: bool = False) -> RunCost:
        return self.report(hours, over=over).runs[0]


def record(kind: Any, **facts: Any) -> Record:
    return Record(kind=kind, at=NOON.isoformat(), run_id=SERVICE, facts=facts)


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path / "service")


def test_replicas_that_run_side_by_side_are_counted_up_to_now_and_those_that_ended_to_their_end(cloud: Cloud) -> None:
    cloud.there = [replica(2), replica(3)]
    cloud.paid = [incarnation(1, 0, 1.5), incarnation(2, 0, None), incarnation(3, 1.5, None)]
    run = cloud.cost(3)
    assert [attempt.usd for attempt in run.attempts] == [3.0, 6.0, 3.0]
    assert [attempt.ended_at is None for attempt in run.attempts] == [False, True, True]
    assert run.usd_spent == 12.0
    assert run.attempts[0].price_source == "SkyPilot's records, 2026-11-25"
    assert (run.kind, run.state, run.simulated) == ("service", "running", False)


def test_where_skyserves_controller_keeps_its_records_to_itself_replicas_count_from_launch_until_they_are_missed(
    cloud: Cloud,
) -> None:
    cloud.there = [replica(1, launched=0.0), replica(2, state="provisioning", launched=None)]
    assert cloud.cost(1).usd_spent == 2.0
    cloud.there = [replica(2, launched=1.0)]
    run = cloud.cost(2)
    assert [attempt.usd for attempt in run.attempts] == [4.0, 2.0]
    assert cloud.cost(4).usd_spent == 4.0 + 6.0
    assert run.attempts[0].price_source == "SkyServe's status, 2026-11-25"


def test_a_replica_that_skypilots_records_have_is_not_counted_twice(cloud: Cloud) -> None:
    cloud.there = [replica(1)]
    assert cloud.cost(1).usd_spent == 2.0
    cloud.paid = [incarnation(1, 0, None)]
    assert cloud.cost(2).usd_spent == 4.0


def test_a_server_that_does_not_answer_leaves_what_was_seen_and_is_said(cloud: Cloud) -> None:
    cloud.there, cloud.paid = [replica(1)], [incarnation(1, 0, None)]
    cloud.look(1)
    cloud.silent = True
    run = cloud.cost(2)
    assert run.usd_spent == 4.0
    assert run.state == "running, by its last sign"
    assert "does not answer" in run.notes[0]


def test_a_service_that_is_down_and_was_looked_at_is_not_asked_for_again(cloud: Cloud) -> None:
    cloud.there, cloud.paid = None, [incarnation(1, 0, 2)]
    first = cloud.cost(3, over=True)
    assert (first.state, first.usd_spent) == ("stopped", 4.0)
    assert cloud.cost(30, over=True).usd_spent == 4.0
    assert cloud.asked == 1


def test_a_month_s_end_is_reckoned_from_what_runs_now_and_from_all_of_it_on_demand(cloud: Cloud) -> None:
    cloud.there, cloud.paid = [replica(1), replica(2)], [incarnation(1, 0, None), incarnation(2, 0, None)]
    whole = forecast(cloud.report(12), Budgets())
    hours = 5 * 24  # from the midnight after 25 November to the month's end
    assert whole.runs[0].usd_at_month_end == (48 + hours * 4, 48 + hours * 10)
    assert whole.usd_month_end == (48 + hours * 4, 48 + hours * 10)
    assert whole.runs[0].usd_at_end is None
