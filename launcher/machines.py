"""The machines a run had, by its records: where, from when to when, at which price. Pure.

The ledger has `machine_started` and `machine_ended` of each, and `machine_price` where the price changed while it ran.
What else is known of a run (its events, its metrics, whether a launcher is at work) is in RunFacts.
"""

import datetime
from typing import Any

import msgspec

from launcher.ledger import Record

Facts = dict[str, Any]


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of a run."""

    run_id: str
    records: list[Record]
    """Of the ledger, oldest first."""
    events: list[Facts]
    """Of the run's own store, in order."""
    metrics: list[Facts]
    """Lines of steps in the order they were done; of each attempt at least the last."""
    alive: bool
    """Whether a launcher is at work on it."""
    store_unread: str = ""
    """Why the run's store could not be read; its events are then not known."""
    state: str = ""
    """By SkyPilot, of a run that it runs."""
    why: str = ""
    """Why it ended, in SkyPilot's words or our strategy's."""
    decisions: list[Record] = []
    """Of our strategy in SkyPilot's controller."""
    skypilot_unread: str = ""
    """Why SkyPilot could not be asked; machines and state are then by the run's own records."""


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine cost from a moment on."""

    since: datetime.datetime
    usd_per_hour: float | None
    source: str


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """One machine of a run. Nothing is paid before `begin` or after `until`."""

    number: int
    place: str
    accelerator: str
    """`A100-80GB:8`; empty where the machine has none."""
    prices: list[Price]
    """At least one; in order of time."""
    begin: datetime.datetime
    until: datetime.datetime
    lost_at: datetime.datetime
    """When it was really gone; billed until `until`, because its end was noticed late."""
    running: bool
    reason: str
    preempted: bool
    clock_went_back: bool
    """It ended before it began, by the clock of this machine; it is counted as nothing."""

    def usd(self, begin: datetime.datetime, until: datetime.datetime) -> float | None:
        """Dollars from one moment to another, None where a price in between is not known."""
        if len(self.prices) == 1:
            usd_per_hour = self.prices[0].usd_per_hour
            return None if usd_per_hour is None else (until - begin).total_seconds() / 3600 * usd_per_hour
        total = 0.0
        ends = [price.since for price in self.prices[1:]] + [max(until, self.until)]
        for price, end in zip(self.prices, ends, strict=True):
            hours = (min(until, end) - max(begin, price.since)).total_seconds() / 3600
            if hours <= 0:
                continue
            if price.usd_per_hour is None:
                return None
            total += hours * price.usd_per_hour
        return total


def machines(run: RunFacts, now: datetime.datetime) -> list[Machine]:
    """Every machine the run had, oldest first; one that still runs is counted up to `now`."""
    starts = [record for record in run.records if record.kind == "machine_started"]
    # A training run has one machine at a time; a service has as many as it has replicas.
    together = is_service(run)
    ends = {record.facts["machine"]: record for record in run.records if record.kind == "machine_ended"}
    found = []
    for index, start in enumerate(starts):
        end = ends.get(start.facts["machine"])
        running = end is None and run.alive and (together or index == len(starts) - 1)
        later = now if together or index + 1 == len(starts) else time_of(starts[index + 1].at)
        found.append(_machine(run, start, end, later, running=running, now=now))
    return found


def is_service(run: RunFacts) -> bool:
    """Whether it serves rather than trains."""
    return any(record.kind == "run" and record.facts.get("service") for record in run.records)


def _machine(
    run: RunFacts,
    start: Record,
    end: Record | None,
    later: datetime.datetime,
    *,
    running: bool,
    now: datetime.datetime,
) -> Machine:
    """`later` is when it was gone at the latest, where nobody saw its end."""
    number = start.facts["machine"]
    begin = time_of(start.at)
    until = time_of(end.at) if end else now if running else _last_sign(run, begin, later)
    lost = end.facts.get("lost_at") if end else None
    changed = [r for r in run.records if r.kind == "machine_price" and r.facts["machine"] == number]
    return Machine(
        number=number,
        place=start.facts["place"],
        accelerator=start.facts.get("accelerator", ""),
        prices=[_price(begin, start.facts), *(_price(time_of(record.at), record.facts) for record in changed)],
        begin=begin,
        until=max(begin, until),
        lost_at=max(begin, min(time_of(lost), until)) if lost else max(begin, until),
        running=running,
        reason="running" if running else end.facts["reason"] if end else "launcher died",
        preempted=bool(end and end.facts.get("preempted")),
        clock_went_back=until < begin,
    )


def _price(since: datetime.datetime, facts: Facts) -> Price:
    return Price(since=since, usd_per_hour=facts["usd_per_hour"], source=facts["price_source"])


def _last_sign(run: RunFacts, begin: datetime.datetime, later: datetime.datetime) -> datetime.datetime:
    """The last sign of life of a machine whose end nobody saw."""
    signs = [time_of(each["at"]) for each in [*run.events, *run.metrics]]
    return max((sign for sign in signs if begin <= sign <= later), default=begin)


def time_of(text: str) -> datetime.datetime:
    """A moment from ISO 8601."""
    return datetime.datetime.fromisoformat(text)
