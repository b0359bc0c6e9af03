"""Records and events to what a run cost. Pure: the time is an argument.

spent                      hours of every machine at the price that held when it began (or from when it changed), and
                           what keeping and carrying its checkpoints is reckoned to cost
the same hours on demand   those hours at the on-demand price
uninterrupted on demand    those hours less what preemption cost, at the on-demand price: what a run that
                           nobody interrupts would have cost
saved                      uninterrupted on demand less spent
lost to preemption         dollars of steps that had to be done again, of starting up again, and of machines that
                           were gone before anyone noticed

Every dollar shown is a whole number of cents, and every total is the sum of the cents it stands over.
"""

import datetime
import itertools
from collections.abc import Sequence
from typing import Literal

import msgspec

from launcher import upkeep
from launcher.ledger import Record
from launcher.lines import CostLine, cents, split, total
from launcher.machines import Facts, Machine, RunFacts, is_service, machines, time_of


class AttemptCost(msgspec.Struct, kw_only=True):
    """One machine of a run. `usd` is the sum of its four parts."""

    number: int
    zone: str
    accelerator: str
    started_at: str
    ended_at: str | None
    """None while it runs."""
    end_reason: str
    hours: float
    usd_per_hour: float | None
    """When it began."""
    price_source: str
    usd: float | None
    usd_starting_up: float | None
    usd_done_again: float | None
    """Work after the last committed state."""
    usd_late_detection: float | None
    """From the machine's loss to when it was noticed."""
    steps_kept: int
    steps_lost: int
    """Done on this machine and not committed when it ended."""
    hours_lost: float | None
    """Of this machine: uncommitted work, starting up where another machine was taken before, and late detection;
    None where the run's store could not be read."""
    usd_lost: float | None


class Decided(msgspec.Struct, kw_only=True):
    """What our strategy decided, and why."""

    at: str
    action: str
    """`spot`, `on_demand`, `wait`; `deadline lost` where it cannot be met any more, `store unreachable` where
    SkyPilot's own strategy decided."""
    place: str
    reason: str


class RunCost(msgspec.Struct, kw_only=True):
    """One run. Dollars are None where a price is not known."""

    run_id: str
    kind: Literal["run", "service"]
    """A run trains, a service serves; a service loses no steps to preemption."""
    recipe: str
    owner: str
    state: str
    simulated: bool
    attempts: list[AttemptCost]
    step: int
    steps: int | None
    last_loss: float | None
    preemptions: int
    hours: float
    usd_machines: float | None
    upkeep: list[CostLine]
    """Storage and egress of its checkpoints, estimated."""
    usd_spent: float | None
    """Machines and upkeep."""
    usd_on_demand: float | None
    usd_uninterrupted_on_demand: float | None
    usd_saved: float | None
    usd_lost_to_preemption: float | None
    on_demand_usd_per_hour: float | None
    price_source: str
    goodput: float | None
    """Hours of kept work over hours paid."""
    hours_left: float | None
    """By the trainer's last word; None where it has not said or nothing runs."""
    decision: str
    """The policy's last word and its reason, where a policy is at work."""
    notes: list[str]
    """What a reader must know before believing the figures."""
    why: str
    """Why a managed job ended, where SkyPilot or our strategy says so."""
    decisions: list[Decided]
    """Of our strategy in SkyPilot's controller, oldest first."""


class CostReport(msgspec.Struct, kw_only=True):
    """What `vlaunch cost report --json` prints."""

    generated_at: str
    runs: list[RunCost]
    lines: list[CostLine]
    """Every dollar of the report once; their sum is `usd_spent`."""
    usd_judging: float | None
    """Of `usd_spent`, what judges of evaluations were paid."""
    usd_spent: float | None
    usd_on_demand: float | None
    usd_saved: float | None
    usd_lost_to_preemption: float | None


def cost(
    runs: Sequence[RunFacts],
    now: datetime.datetime,
    evaluations: Sequence[Record] = (),
    controllers: Sequence[CostLine] = (),
) -> CostReport:
    """The report over `runs`, the ledger's records of `evaluations`, and the lines of `controllers` and gateways, no
    run's own; `now` is when a machine that still runs is counted up to."""
    found = [run_cost(run, now) for run in runs]
    lines = [line for run in found for line in (*compute_lines(run), *run.upkeep)]
    lines += [_judging(record) for record in evaluations]
    lines += controllers
    return CostReport(
        generated_at=iso(now),
        runs=found,
        lines=lines,
        usd_judging=total(line.usd for line in lines if line.what == "judge"),
        usd_spent=total(line.usd for line in lines),
        usd_on_demand=total(run.usd_on_demand for run in found),
        usd_saved=total(run.usd_saved for run in found),
        usd_lost_to_preemption=total(run.usd_lost_to_preemption for run in found),
    )


def run_cost(run: RunFacts, now: datetime.datetime) -> RunCost:
    """What one run cost up to `now`."""
    about = next((record.facts for record in run.records if record.kind == "run"), {})
    had = machines(run, now)
    attempts = [_attempt(run, machine, first=index == 0) for index, machine in enumerate(had)]
    hours = sum(attempt.hours for attempt in attempts)
    lost_hours = None if run.store_unread else sum(attempt.hours_lost or 0.0 for attempt in attempts)
    on_demand = about.get("on_demand_usd_per_hour")
    paid = total(attempt.usd for attempt in attempts)
    kept = upkeep.upkeep(run, had, now)
    spent = total([paid, *(line.usd for line in kept)])
    uninterrupted = None if on_demand is None or lost_hours is None else cents((hours - lost_hours) * on_demand)
    started = [event for event in run.events if event["event"] == "training_started"]
    return RunCost(
        run_id=run.run_id,
        kind="service" if is_service(run) else "run",
        recipe=about.get("recipe", "unknown"),
        owner=about.get("owner", ""),
        state=state(run),
        simulated=bool(about.get("simulated", False)),
        attempts=attempts,
        step=_last_committed(run.events, None),
        steps=started[-1]["steps"] if started else None,
        last_loss=run.metrics[-1]["loss"] if run.metrics else None,
        preemptions=sum(machine.preempted for machine in had),
        hours=hours,
        usd_machines=paid,
        upkeep=kept,
        usd_spent=spent,
        usd_on_demand=None if on_demand is None else cents(hours * on_demand),
        usd_uninterrupted_on_demand=uninterrupted,
        usd_saved=None if spent is None or uninterrupted is None else cents(uninterrupted - spent),
        usd_lost_to_preemption=total(attempt.usd_lost for attempt in attempts),
        on_demand_usd_per_hour=on_demand,
        price_source=about.get("price_source", ""),
        goodput=(hours - lost_hours) / hours if hours and lost_hours is not None else None,
        hours_left=run.metrics[-1]["seconds_left"] / 3600 if run.metrics and run.alive else None,
        decision=_decision(run.decisions[-1]).reason if run.decisions else "",
        notes=[*_notes(run, had), *upkeep.notes(run, had)],
        why=run.why,
        decisions=[_decision(record) for record in run.decisions],
    )


def compute_lines(run: RunCost) -> list[CostLine]:
    """The dollars of a run's machines, each once."""
    found = []
    for attempt in run.attempts:
        parts = {
            "starting up": attempt.usd_starting_up,
            "done again": attempt.usd_done_again,
            "late detection": attempt.usd_late_detection,
        }
        rest = None if attempt.usd is None else cents(attempt.usd - sum(usd or 0.0 for usd in parts.values()))
        line = CostLine(
            subject=run.run_id, what="machine", part="work", attempt=attempt.number, owner=run.owner,
            zone=attempt.zone, accelerator=attempt.accelerator, started_at=attempt.started_at,
            ended_at=attempt.ended_at, usd=rest, price_source=attempt.price_source, simulated=run.simulated,
        )  # fmt: skip
        found.append(line)
        found += [msgspec.structs.replace(line, part=part, usd=usd) for part, usd in parts.items() if usd]
    return found


def _judging(record: Record) -> CostLine:
    """What the judge of one file of reviews was paid so far."""
    facts = record.facts
    return CostLine(
        subject=record.run_id,
        what="judge",
        part=f"{facts['reviews']} reviews of {facts['candidate']} against {facts['baseline']} by {facts['judge']}",
        started_at=record.at,
        ended_at=record.at,
        usd=None if facts["usd"] is None else cents(facts["usd"]),
        price_source=facts["price_source"],
    )


def _decision(record: Record) -> Decided:
    facts = record.facts
    if record.kind in ("deadline_lost", "store_unreachable"):
        return Decided(at=record.at, action=record.kind.replace("_", " "), place="", reason=facts["why"])
    return Decided(at=record.at, action=facts["action"], place=facts["zone"], reason=facts["reason"])


def state(run: RunFacts) -> str:
    """`running`, `finished`, `stopped`, `failed`, or `launcher died`; of a managed job also `queued`, `starting`,
    `recovering`, `cancelling`, `cancelled`."""
    if run.state:
        return run.state
    if run.alive:
        return "running"
    last = next((record for record in reversed(run.records) if record.kind in ("ended", "machine_started")), None)
    if last is None or last.kind == "machine_started":
        return "launcher died" if last else "launched"
    return str(last.facts["state"])


def iso(time: datetime.datetime) -> str:
    """UTC, ISO 8601 with milliseconds."""
    return time.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _attempt(run: RunFacts, machine: Machine, *, first: bool) -> AttemptCost:
    begin, until = machine.begin, machine.until
    events = [event for event in run.events if begin <= time_of(event["at"]) <= until]
    lines = [line for line in run.metrics if begin <= time_of(line["at"]) <= until]
    from_step = next((event["step"] for event in events if event["event"] == "training_started"), None)
    committed = _last_committed(events, from_step)
    reached = lines[-1]["step"] if lines else committed
    moments = _served(machine) if is_service(run) else _moments(machine, events)
    # Starting up is the price of a run's first machine, and a loss on every later one; a machine that never came
    # to a step was lost whole.
    free_start = first and (machine.running or from_step is not None)
    hours = [_hours(a, b) for a, b in itertools.pairwise(moments)]
    exact = [machine.usd(a, b) for a, b in itertools.pairwise(moments)]
    usd = cents(sum(part or 0.0 for part in exact)) if None not in exact else None
    known = usd is not None and not run.store_unread
    starting, _, again, late = split(usd, [part or 0.0 for part in exact]) if usd is not None else [0.0] * 4
    return AttemptCost(
        number=machine.number,
        zone=machine.place,
        accelerator=machine.accelerator,
        started_at=iso(begin),
        ended_at=None if machine.running else iso(until),
        end_reason=machine.reason,
        hours=_hours(begin, until),
        usd_per_hour=machine.prices[0].usd_per_hour,
        price_source=machine.prices[0].source,
        usd=usd,
        usd_starting_up=starting if known else None,
        usd_done_again=again if known else None,
        usd_late_detection=late if known else None,
        usd_lost=cents(again + late + (0.0 if free_start else starting)) if known else None,
        steps_kept=0 if from_step is None else committed - from_step,
        steps_lost=0 if machine.running else max(0, reached - committed),
        hours_lost=None if run.store_unread else hours[2] + hours[3] + (0.0 if free_start else hours[0]),
    )


def _served(machine: Machine) -> list[datetime.datetime]:
    """A replica's hours are all work, but for what it was billed after it was gone."""
    return [machine.begin, machine.begin, machine.lost_at, machine.lost_at, machine.until]


def _moments(machine: Machine, events: list[Facts]) -> list[datetime.datetime]:
    """Begin, first step, last state that was committed, loss, end: what lies between is starting up, work kept, work
    done again, and late detection."""
    lost = machine.lost_at
    training = next((time_of(event["at"]) for event in events if event["event"] == "training_started"), lost)
    finished = any(event["event"] == "finished" for event in events)
    safe = lost
    if not machine.running and not finished:
        kept = {event["step"] for event in events if event["event"] == "save_committed"}
        # A checkpoint holds the state at the moment its save began, not when it was committed.
        begun = [time_of(e["at"]) for e in events if e["event"] == "save_started" and e["step"] in kept]
        safe = max(begun, default=training)
    training = min(training, lost)
    return [machine.begin, training, min(max(safe, training), lost), lost, machine.until]


def _hours(begin: datetime.datetime, until: datetime.datetime) -> float:
    return (until - begin).total_seconds() / 3600


def _last_committed(events: list[Facts], otherwise: int | None) -> int:
    steps = [event["step"] for event in events if event["event"] == "save_committed"]
    return max(steps, default=otherwise or 0)


def _notes(run: RunFacts, had: list[Machine]) -> list[str]:
    notes = []
    if run.store_unread:
        notes.append(f"what was lost to preemption is not known: {run.store_unread}")
    if run.skypilot_unread:
        notes.append(f"by the run's own records, without SkyPilot's: {run.skypilot_unread}")
    notes += [
        f"machine {machine.number} ended before it began by this machine's clock, and is counted as nothing"
        for machine in had
        if machine.clock_went_back
    ]
    return notes
