"""A policy against a recorded market, tick by tick: what it would have cost. Pure.

What a tick is (docs/market.md says the same to users):
1. A spot machine whose zone is unavailable in this tick has ended; work since the last commit is lost.
2. The policy sees availability and prices of this tick and decides.
3. Whatever machine is held now is billed for the whole tick. A new machine first spends the restart overhead, then
   works. Asking for spot where there is none gets nothing and costs nothing.
4. The run ends at the moment its work is done; the tick in which that happens is billed whole.
Time, work and overhead are whole seconds, so sums are exact.
"""

import statistics
from collections.abc import Sequence

import msgspec

from market import policy as policies
from market.availability import Market, region
from market.errors import MarketError

HOUR = 3600


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done in a market."""

    work_seconds: int
    deadline_seconds: int
    restart_seconds: int
    checkpoint_seconds: int = 0
    """Work between two commits; 0: none is ever lost."""
    start_tick: int = 0
    history_ticks: int = 0
    """Before the start, that the policy may look at first."""
    move_usd: float = 0.0
    """For starting in another region than the last machine's: its checkpoint is read from there."""


class Run(msgspec.Struct, kw_only=True):
    """How it went; `finished_hours` is None where the record ended first."""

    market: str
    policy: str
    start_hours: float
    usd: float
    finished_hours: float | None
    met_deadline: bool
    usd_optimal: float | None = None
    starts: int
    preemptions: int
    hours_spot: float
    hours_on_demand: float
    hours_idle: float
    hours_lost: float
    """Work done again."""


class Summary(msgspec.Struct, kw_only=True):
    """Of one policy over its runs; ratios are of dollars to the optimum's."""

    policy: str
    runs: int
    mean_ratio: float
    p95_ratio: float
    worst_ratio: float
    late: int


def job(
    market: Market, *, work_hours: float, deadline_hours: float, restart_minutes: float, checkpoint_minutes: float,
    start_hours: float, history_hours: float = 0.0,
) -> Job:  # fmt: skip
    """In seconds, checked. Raises MarketError where not even on demand is in time, or the record is short."""
    tick = market.tick_seconds
    found = Job(
        work_seconds=round(work_hours * HOUR),
        deadline_seconds=round(deadline_hours * HOUR),
        restart_seconds=round(restart_minutes * 60),
        checkpoint_seconds=round(checkpoint_minutes * 60),
        start_tick=round(start_hours * HOUR / tick),
        history_ticks=round(history_hours * HOUR / tick),
    )
    lacking = found.work_seconds + found.restart_seconds - found.deadline_seconds
    if lacking > 0:
        raise MarketError(
            f"The deadline of {deadline_hours:g} hours is {lacking / HOUR:.2f} hours too short even on demand: "
            f"{work_hours:g} hours of work and {restart_minutes:g} minutes to start."
        )
    have = (market.ticks - found.start_tick) * tick
    if found.deadline_seconds > have:
        raise MarketError(
            f"{market.name} has {max(have, 0) / HOUR:.1f} hours after the start at {start_hours:g}, fewer than the "
            f"deadline of {deadline_hours:g}; start earlier or shorten the job."
        )
    return found


def replay(name: str, policy: policies.Policy, market: Market, job: Job) -> Run:
    """Run the policy through the market."""
    return _Replay(name, policy, market, job).run()


def summarise(runs: Sequence[Run]) -> list[Summary]:
    """A line a policy, in the order they first appear."""
    by_policy: dict[str, list[Run]] = {}
    for run in runs:
        by_policy.setdefault(run.policy, []).append(run)
    return [_summary(name, found) for name, found in by_policy.items()]


def _summary(name: str, runs: Sequence[Run]) -> Summary:
    ratios = sorted(run.usd / run.usd_optimal for run in runs if run.usd_optimal)
    return Summary(
        policy=name,
        runs=len(runs),
        mean_ratio=statistics.fmean(ratios),
        p95_ratio=ratios[min(len(ratios) - 1, int(0.95 * len(ratios)))],
        worst_ratio=ratios[-1],
        late=sum(not run.met_deadline for run in runs),
    )


class _Replay:
    """One run's state, tick by tick."""

    def __init__(self, name: str, policy: policies.Policy, market: Market, job: Job) -> None:
        self.name = name
        self.policy = policy
        self.market = market
        self.job = job
        self.tick = market.tick_seconds
        self.left = job.work_seconds
        self.uncommitted = 0
        self.held: int | None = None
        """Index of the zone; -1 is on demand."""
        self.starting = 0
        self.age = 0
        self.usd = 0.0
        self.starts = self.preemptions = self.lost = 0
        self.ticks_held = {True: 0, False: 0}
        self.ticks_idle = 0
        self.index = {zone.name: at for at, zone in enumerate(market.zones)}
        self.on_demand_usd = market.on_demand_usd_per_hour * self.tick / HOUR
        self.on_demand_zone = market.cheapest_on_demand
        self.costs = policies.Costs(
            restart_hours=job.restart_seconds / HOUR,
            commit_every_hours=job.checkpoint_seconds / HOUR,
            sure_hours=self.tick / HOUR,
            move_usd=job.move_usd,
        )
        self.data_region = ""
        self.views: list[dict[tuple[bool, float], policies.Zone]] = [{} for _ in market.zones]

    def run(self) -> Run:
        finished: int | None = None
        for at in range(max(0, self.job.start_tick - self.job.history_ticks), self.job.start_tick):
            self.policy.notice(self._hours(at), self._zones(at))
        for at in range(self.job.start_tick, self.market.ticks):
            if self.held is not None and self.held >= 0 and not self.market.zones[self.held].available[at]:
                self._preempt()
            self._apply(self.policy.decide(self._see(at)), at)
            done_after = self._work(at)
            if done_after is not None:
                finished = (at - self.job.start_tick) * self.tick + done_after
                break
        hours = self.tick / HOUR
        return Run(
            market=self.market.name,
            policy=self.name,
            start_hours=self.job.start_tick * hours,
            usd=self.usd,
            finished_hours=None if finished is None else finished / HOUR,
            met_deadline=finished is not None and finished <= self.job.deadline_seconds,
            starts=self.starts,
            preemptions=self.preemptions,
            hours_spot=self.ticks_held[True] * hours,
            hours_on_demand=self.ticks_held[False] * hours,
            hours_idle=self.ticks_idle * hours,
            hours_lost=self.lost / HOUR,
        )

    def _see(self, at: int) -> policies.Observation:
        machine = None
        if self.held is not None:
            machine = policies.Machine(
                zone=self.on_demand_zone if self.held < 0 else self.market.zones[self.held].name,
                spot=self.held >= 0,
                age_hours=self.age / HOUR,
                starting_hours=self.starting / HOUR,
            )
        begins = self.market.begins_utc_hour
        return policies.Observation(
            now_hours=self._hours(at),
            next_hours=self.tick / HOUR,
            work_left_hours=self.left / HOUR,
            uncommitted_hours=self.uncommitted / HOUR,
            deadline_hours=self.job.deadline_seconds / HOUR,
            machine=machine,
            zones=self._zones(at),
            costs=self.costs,
            spent_usd=self.usd,
            data_region=self.data_region,
            utc_hour=None if begins is None else (begins + at * self.tick / HOUR) % 24,
        )

    def _hours(self, at: int) -> float:
        return (at - self.job.start_tick) * self.tick / HOUR

    def _zones(self, at: int) -> tuple[policies.Zone, ...]:
        return tuple([self._view(index, at) for index in range(len(self.views))])

    def _view(self, index: int, at: int) -> policies.Zone:
        zone = self.market.zones[index]
        key = (zone.available[at], zone.usd_per_hour[at])
        view = self.views[index].get(key)
        if view is None:
            view = self.views[index][key] = policies.Zone(
                name=zone.name,
                region=region(zone.name),
                spot_usd_per_hour=key[1],
                on_demand_usd_per_hour=zone.on_demand_usd_per_hour,
                available=key[0],
            )
        return view

    def _preempt(self) -> None:
        self.preemptions += 1
        self.left += self.uncommitted
        self.lost += self.uncommitted
        self.uncommitted = 0
        self.held = None

    def _apply(self, decision: policies.Decision, at: int) -> None:
        if decision.action == "hold":
            return
        self.uncommitted = 0  # a machine left by choice commits first
        if decision.action == "wait":
            self.held = None
        elif decision.action == "on_demand":
            self._start(-1)
        elif self.market.zones[self.index[decision.zone]].available[at]:
            self._start(self.index[decision.zone])
        else:
            self.held = None

    def _start(self, held: int) -> None:
        where = region(self.on_demand_zone if held < 0 else self.market.zones[held].name)
        if self.data_region not in ("", where):
            self.usd += self.job.move_usd
        self.data_region = where
        self.held = held
        self.starting = self.job.restart_seconds
        self.age = 0
        self.starts += 1

    def _work(self, at: int) -> int | None:
        """Spend the tick; seconds into it at which the work was done, None where it is not."""
        if self.held is None:
            self.ticks_idle += 1
            return None
        spot = self.held >= 0
        self.ticks_held[spot] += 1
        self.usd += self.market.zones[self.held].usd_per_hour[at] * self.tick / HOUR if spot else self.on_demand_usd
        self.age += self.tick
        started = min(self.starting, self.tick)
        self.starting -= started
        worked = self.tick - started
        if worked >= self.left:
            return started + self.left
        self.left -= worked
        if self.job.checkpoint_seconds:
            self.uncommitted = (self.uncommitted + worked) % self.job.checkpoint_seconds
        return None
