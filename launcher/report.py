"""Records and events to what a run cost. Pure: the time is an argument.

spent                      hours of every machine at the price that held when it began
the same hours on demand   those hours at the on-demand price
uninterrupted on demand    those hours less what preemption cost, at the on-demand price: what a run that
                           nobody interrupts would have cost
saved                      uninterrupted on demand less spent
lost to preemption         dollars of steps that had to be done again and of starting up again
"""

import datetime
from collections.abc import Sequence
from typing import Any

import msgspec

from launcher.ledger import Record

Facts = dict[str, Any]


class AttemptCost(msgspec.Struct, kw_only=True):
    """One machine of a run."""

    number: int
    zone: str
    started_at: str
    ended_at: str | None
    """None while it runs."""
    end_reason: str
    hours: float
    usd_per_hour: float | None
    price_source: str
    usd: float | None
    steps_kept: int
    steps_lost: int
    """Done on this machine and not committed when it ended."""
    hours_lost: float
    """Of this machine: uncommitted work, and starting up where another machine was taken before."""


class RunCost(msgspec.Struct, kw_only=True):
    """One run. Dollars are None where a price is not known."""

    run_id: str
    recipe: str
    state: str
    simulated: bool
    attempts: list[AttemptCost]
    step: int
    steps: int | None
    last_loss: float | None
    preemptions: int
    hours: float
    usd_spent: float | None
    usd_on_demand: float | None
    usd_uninterrupted_on_demand: float | None
    usd_saved: float | None
    usd_lost_to_preemption: float | None
    on_demand_usd_per_hour: float | None
    price_source: str


class CostReport(msgspec.Struct, kw_only=True):
    """What `vlaunch cost report --json` prints."""

    generated_at: str
    runs: list[RunCost]


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of a run."""

    run_id: str
    records: list[Record]
    """Of the ledger, oldest first."""
    events: list[Facts]
    """Of the run's own store, in order."""
    metrics: list[Facts]
    """A line a step, in the order they were done."""
    alive: bool
    """Whether a launcher is at work on it."""


def cost(runs: Sequence[RunFacts], now: datetime.datetime) -> CostReport:
    """The report over `runs`; `now` is when a machine that still runs is counted up to."""
    return CostReport(generated_at=_iso(now), runs=[run_cost(run, now) for run in runs])


def run_cost(run: RunFacts, now: datetime.datetime) -> RunCost:
    """What one run cost up to `now`."""
    about = next((record.facts for record in run.records if record.kind == "run"), {})
    attempts = _attempts(run, now)
    hours = sum(attempt.hours for attempt in attempts)
    lost_hours = sum(attempt.hours_lost for attempt in attempts)
    on_demand = about.get("on_demand_usd_per_hour")
    spent = _sum([attempt.usd for attempt in attempts])
    uninterrupted = None if on_demand is None else (hours - lost_hours) * on_demand
    started = [event for event in run.events if event["event"] == "training_started"]
    return RunCost(
        run_id=run.run_id,
        recipe=about.get("recipe", "unknown"),
        state=state(run),
        simulated=bool(about.get("simulated", False)),
        attempts=attempts,
        step=_last_committed(run.events, None),
        steps=started[-1]["steps"] if started else None,
        last_loss=run.metrics[-1]["loss"] if run.metrics else None,
        preemptions=sum(bool(record.facts.get("preempted")) for record in run.records),
        hours=hours,
        usd_spent=spent,
        usd_on_demand=None if on_demand is None else hours * on_demand,
        usd_uninterrupted_on_demand=uninterrupted,
        usd_saved=None if spent is None or uninterrupted is None else uninterrupted - spent,
        usd_lost_to_preemption=_sum(
            [None if a.usd_per_hour is None else a.hours_lost * a.usd_per_hour for a in attempts]
        ),
        on_demand_usd_per_hour=on_demand,
        price_source=about.get("price_source", ""),
    )


def state(run: RunFacts) -> str:
    """`running`, `finished`, `stopped`, `failed`, or `launcher died`."""
    if run.alive:
        return "running"
    last = next((record for record in reversed(run.records) if record.kind in ("ended", "machine_started")), None)
    if last is None or last.kind == "machine_started":
        return "launcher died" if last else "launched"
    return str(last.facts["state"])


def _attempts(run: RunFacts, now: datetime.datetime) -> list[AttemptCost]:
    ends = {record.facts["machine"]: record for record in run.records if record.kind == "machine_ended"}
    starts = [record for record in run.records if record.kind == "machine_started"]
    found = []
    for index, start in enumerate(starts):
        end = ends.get(start.facts["machine"])
        begin = _time(start.at)
        until = _until(run, starts, index, end, now)
        events = [event for event in run.events if begin <= _time(event["at"]) <= until]
        lines = [line for line in run.metrics if begin <= _time(line["at"]) <= until]
        hours = (until - begin).total_seconds() / 3600
        usd_per_hour = start.facts["usd_per_hour"]
        from_step = next((event["step"] for event in events if event["event"] == "training_started"), None)
        committed = _last_committed(events, from_step)
        reached = lines[-1]["step"] if lines else committed
        running = end is None and run.alive and index == len(starts) - 1
        found.append(
            AttemptCost(
                number=start.facts["machine"],
                zone=start.facts["place"],
                started_at=start.at,
                ended_at=None if running else _iso(until),
                end_reason="running" if running else end.facts["reason"] if end else "launcher died",
                hours=hours,
                usd_per_hour=usd_per_hour,
                price_source=start.facts["price_source"],
                usd=None if usd_per_hour is None else hours * usd_per_hour,
                steps_kept=0 if from_step is None else committed - from_step,
                steps_lost=0 if running else max(0, reached - committed),
                hours_lost=_hours_lost(begin, until, events, first=index == 0, running=running),
            )
        )
    return found


def _until(
    run: RunFacts, starts: list[Record], index: int, end: Record | None, now: datetime.datetime
) -> datetime.datetime:
    """When a machine ended, as far as anyone saw."""
    if end is not None:
        return _time(end.at)
    later = _time(starts[index + 1].at) if index + 1 < len(starts) else now
    if run.alive and index == len(starts) - 1:
        return now
    begin = _time(starts[index].at)
    signs = [_time(each["at"]) for each in [*run.events, *run.metrics]]
    return max((sign for sign in signs if begin <= sign <= later), default=begin)


def _hours_lost(
    begin: datetime.datetime, until: datetime.datetime, events: list[Facts], *, first: bool, running: bool
) -> float:
    """Starting up, but for the first machine; and what came after the last state that was committed."""
    training = next((event for event in events if event["event"] == "training_started"), None)
    if training is None:  # it never got as far as a step
        return 0.0 if first and running else (until - begin).total_seconds() / 3600
    started = _time(training["at"])
    lost = datetime.timedelta(0) if first else started - begin
    finished = any(event["event"] == "finished" for event in events)
    if not running and not finished:
        kept = {event["step"] for event in events if event["event"] == "save_committed"}
        # A checkpoint holds the state at the moment its save began, not when it was committed.
        safe = [_time(e["at"]) for e in events if e["event"] == "save_started" and e["step"] in kept]
        lost += until - max(safe, default=started)
    return lost.total_seconds() / 3600


def _last_committed(events: list[Facts], otherwise: int | None) -> int:
    steps = [event["step"] for event in events if event["event"] == "save_committed"]
    return max(steps, default=otherwise or 0)


def _sum(parts: list[float | None]) -> float | None:
    """None where one part is not known: a total that leaves something out would lie."""
    return None if any(part is None for part in parts) else sum(part for part in parts if part is not None)


def _time(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def _iso(time: datetime.datetime) -> str:
    return time.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
