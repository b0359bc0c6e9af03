"""What a managed job does next, with a real store, the real policy and a clock of the test's own."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from checkpoints import layout
from checkpoints.stores import StoreError, open_store
from checkpoints.stores.folder import FolderStore
from launcher.steering import Candidate, Rules, Steering, Stop, default_policy

A = Candidate(place="slurm/sim/spot-a", spot=True, usd_per_hour=10.0)
B = Candidate(place="slurm/sim/spot-b", spot=True, usd_per_hour=12.0)
DEMAND = Candidate(place="slurm/sim/ondemand", spot=False, usd_per_hour=30.0)


class Run:
    """A run in a folder, with a clock that moves when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.store = open_store(str(folder)).inside("run")
        self.hours = 0.0
        self._events = 0

    def now(self) -> float:
        return 1_800_000_000.0 + self.hours * 3600

    def controller(self, candidates: tuple[Candidate, ...] = (A, B, DEMAND), **rules: Any) -> Steering:
        """A controller that takes the run up, as after a restart."""
        said = {"work_hours": 2.0, "restart_minutes": 6.0, "retry_minutes": 15.0, **rules}
        steering = Steering(
            "run", self.store, rules=Rules(**said), candidates=candidates, policy=default_policy(),
            save_every_seconds=60, now=self.now,
        )  # fmt: skip
        steering.resume()
        return steering

    def train(self, steering: Steering, *, step: int, steps: int, hours_left: float, attempt: int = 1) -> None:
        """The trainer has come so far, and committed it."""
        self._events += 1
        at = steering.journal.time()
        self.store.create(layout.attempt_name(attempt), b"{}")
        name = layout.event_name(attempt, self._events)
        self.store.create(
            name,
            msgspec.json.encode({"event": "save_committed", "at": at, "attempt": attempt, "step": step, "seconds": 9}),
        )
        line = {"at": at, "attempt": attempt, "step": step, "steps": steps, "seconds_left": hours_left * 3600}
        self.store.write(layout.metrics_name(attempt, self._events), [msgspec.json.encode(line) + b"\n"])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def kinds(steering: Steering) -> list[str]:
    return [record.kind for record in steering.journal.records]


def test_it_begins_on_the_cheapest_spot_and_goes_elsewhere_when_it_is_taken(run: Run) -> None:
    steering = run.controller()
    assert steering.next_move()[1] == A
    steering.started(A, run.now())
    run.hours = 0.5
    steering.ended("taken away", preempted=True)
    assert steering.next_move()[1] == B


def test_a_zone_that_refuses_is_left_alone_for_a_while_that_doubles(run: Run) -> None:
    steering = run.controller()
    for asked_at in (0.0, 0.25, 0.75):  # after 15 minutes, and then after 30
        run.hours = asked_at
        assert steering.next_move()[1] == A
        steering.refused(A)
        assert steering.next_move()[1] == B
        steering.refused(B)
        run.hours += 0.2
        assert steering.next_move()[0].action == "wait"


def test_it_does_not_wait_for_an_opening_to_last_that_nobody_looks_at(run: Run) -> None:
    """A start so long that the policy would first see the zone stay open."""
    steering = run.controller(deadline_hours=40.0, on_demand=True, work_hours=20.0, restart_minutes=30.0)
    assert steering.next_move()[1] == A
    for spot in (A, B):
        steering.refused(spot)
    run.hours = 0.24
    assert steering.next_move()[0].action == "wait"
    run.hours = 0.26
    assert steering.next_move()[1] == A


def test_with_no_spot_it_waits_while_there_is_slack_and_goes_on_demand_when_there_is_none(run: Run) -> None:
    steering = run.controller(deadline_hours=4.0, on_demand=True)
    for spot in (A, B):
        assert steering.next_move()[1] == spot
        steering.refused(spot)
    assert steering.next_move()[0].action == "wait"
    run.hours = 1.8
    for spot in (A, B):
        steering.refused(spot)
    assert steering.next_move()[1] == DEMAND


def test_it_goes_back_to_spot_by_asking_the_trainer_to_leave(run: Run) -> None:
    steering = run.controller(deadline_hours=4.0, on_demand=True)
    run.hours = 1.8
    for spot in (A, B):
        steering.refused(spot)
    assert steering.next_move()[1] == DEMAND
    steering.started(DEMAND, run.now())
    assert steering.tick().action == "hold"
    run.train(steering, step=90, steps=100, hours_left=0.2)
    run.hours = 2.3
    decision = steering.tick()
    assert decision.action == "spot"
    steering.ask_to_leave(decision.reason)
    assert layout.leave_name(1) in {entry.name for entry in run.store.list("attempts/")}
    steering.ended("moved", preempted=False)
    assert steering.next_move()[1] == A


def test_a_new_controller_goes_on_where_the_last_one_stopped(run: Run) -> None:
    first = run.controller(budget_usd=100.0)
    first.next_move()
    first.started(A, run.now())
    run.hours = 1.0
    second = run.controller(budget_usd=100.0)
    assert kinds(second) == kinds(first)
    machine = second.observe().machine
    assert machine is not None
    assert (machine.zone, machine.spot, second.observe().spent_usd) == (A.place, True, pytest.approx(10.0))


def test_the_budget_ends_the_run_and_says_how_to_go_on(run: Run) -> None:
    steering = run.controller(budget_usd=10.0)
    steering.next_move()
    steering.started(A, run.now())
    assert not steering.over_budget()
    run.hours = 0.93
    assert not steering.over_budget()
    run.hours = 0.95  # two looks and the machine's end are still to be paid, 3.5 minutes
    assert steering.over_budget()
    steering.ended("budget", preempted=False)
    with pytest.raises(Stop, match=r"budget of \$10\.00 .* vlaunch train --resume run --budget"):
        steering.next_move()
    again = run.controller(budget_usd=30.0)  # a person goes on with more
    assert again.next_move()[1] == A


def test_a_deadline_that_cannot_be_met_is_said_once_with_what_is_left_to_do(run: Run) -> None:
    steering = run.controller(deadline_hours=1.0, on_demand=True)
    steering.next_move()
    steering.next_move()
    lost = [record for record in steering.journal.records if record.kind == "deadline_lost"]
    assert len(lost) == 1
    assert "1.1 h late" in lost[0].facts["why"]
    assert [way["place"] for way in lost[0].facts["ways"]] == [DEMAND.place, A.place, B.place]


def test_on_demand_is_never_taken_where_it_is_not_allowed(run: Run) -> None:
    steering = run.controller(work_hours=None)  # nor is anything known of the work
    for hours in range(100):
        run.hours = float(hours)
        decision, chosen = steering.next_move()
        assert decision.action in ("spot", "wait")
        if chosen is not None:
            steering.refused(chosen)


def test_a_task_of_machines_on_demand_only_takes_the_cheapest_that_does_not_refuse(run: Run) -> None:
    other = Candidate(place="slurm/sim/dear", spot=False, usd_per_hour=40.0)
    steering = run.controller((other, DEMAND), on_demand=True)
    assert steering.next_move()[1] == DEMAND
    steering.refused(DEMAND)
    assert steering.next_move()[1] == other
    steering.started(other, run.now())
    assert steering.tick().action == "hold"


def test_no_machine_within_the_price_is_said_at_once(run: Run) -> None:
    with pytest.raises(Stop, match="max_usd_per_hour"):
        run.controller(max_usd_per_hour=1.0)


class Unreachable(FolderStore):
    """A store that can be cut off."""

    cut = False

    def create(self, name: str, data: bytes) -> bool:
        if self.cut:
            raise StoreError("the network is gone")
        return super().create(name, data)


def test_what_happens_while_the_store_is_away_is_written_when_it_is_back(run: Run, tmp_path: Path) -> None:
    store = Unreachable(tmp_path / "run")
    run.store = store
    steering = run.controller()
    store.cut = True
    with pytest.raises(StoreError):
        steering.started(A, run.now())
    store.cut = False
    run.hours = 0.1
    steering.ended("taken away", preempted=True)
    assert kinds(run.controller()) == ["launched", "machine_started", "machine_ended"]


def test_that_the_store_was_away_is_said_once_when_it_is_back(run: Run, tmp_path: Path) -> None:
    run.store = store = Unreachable(tmp_path / "run")
    steering = run.controller()
    steering.started(A, run.now())
    for _ in range(2):
        steering.journal.unreachable("the network is gone")
    store.cut = True
    with pytest.raises(StoreError):
        steering.tick()
    store.cut = False
    assert steering.tick().action == "hold"
    assert kinds(run.controller()) == ["launched", "machine_started", "store_unreachable"]


class Counting(FolderStore):
    """A store that keeps count of what is read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reads: list[str] = []

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self.reads.append(name)
        return super().read(name, offset, length)


def test_what_the_trainer_has_written_is_read_once_however_often_one_looks(run: Run, tmp_path: Path) -> None:
    run.store = store = Counting(tmp_path / "run")
    steering = run.controller()
    for step in (10, 20):
        run.train(steering, step=step, steps=100, hours_left=1.0)
        steering.observe()
        steering.observe()
    written = [name for name in store.reads if not name.startswith(layout.JOURNAL)]
    assert len(written) == len(set(written)) == 4
    assert steering.journal.progress()[1][-1]["step"] == 20


def test_a_machine_has_trained_once_the_trainer_has_begun_on_it_and_not_on_the_one_before(run: Run) -> None:
    steering = run.controller()
    steering.started(A, run.now())
    assert not steering.trained()
    run.hours = 0.1
    event = {"event": "training_started", "at": steering.journal.time(), "attempt": 1, "step": 0}
    run.store.create(layout.event_name(1, 1), msgspec.json.encode(event))
    assert steering.trained()
    run.hours = 0.2
    steering.ended("taken away", preempted=True)
    steering.started(B, run.now())
    assert not steering.trained()


def test_a_record_of_its_own_that_is_damaged_is_named_and_not_gone_by(run: Run) -> None:
    run.controller().next_move()
    name = layout.journal_name(1)
    run.store.write(name, [b'{"kind": "launched"'])
    with pytest.raises(StoreError, match=f"{name} is damaged"):
        run.controller()
