"""Published policies, from their papers' descriptions, to measure ours against. Pure.

All have the same safety net (market/deadline.py), so a difference in dollars is never bought with a deadline. Those
made for one zone take the cheapest open zone where there are several.
"""

import math
from collections.abc import Callable
from typing import Any

from market.deadline import can_spot, can_wait
from market.policy import Decision, Observation, Policy, Zone

HOLD = Decision(action="hold", reason="nothing better than the machine held")
WAIT = Decision(action="wait", reason="no spot machine, and time enough to wait for one")


class _Baseline:
    """Nothing to learn or remember, unless a policy says otherwise."""

    def notice(self, at_hours: float, zones: tuple[Zone, ...]) -> None:
        return

    def memory(self) -> dict[str, Any]:
        return {}

    def remember(self, memory: dict[str, Any]) -> None:
        return


def on_spot(seen: Observation) -> bool:
    """Whether a spot machine is held."""
    return seen.machine is not None and seen.machine.spot


def on_demand(seen: Observation, reason: str) -> Decision:
    """Hold the machine on demand, or start the cheapest."""
    if seen.machine is not None and not seen.machine.spot:
        return HOLD
    priced = [
        (zone.on_demand_usd_per_hour, zone.name) for zone in seen.zones if zone.on_demand_usd_per_hour is not None
    ]
    return Decision(action="on_demand", zone=min(priced)[1], reason=reason)


def open_zones(seen: Observation) -> list[Zone]:
    """Zones where spot would start now, the cheapest first."""
    found = [zone for zone in seen.zones if zone.available and zone.spot_usd_per_hour is not None]
    return sorted(found, key=lambda zone: (zone.spot_usd_per_hour, zone.name))


def take_spot(seen: Observation) -> Decision | None:
    """Hold spot, or start it in the cheapest open zone; None where there is none or the deadline forbids it."""
    if on_spot(seen):
        return HOLD if can_spot(seen, fresh=False) else None
    zones = open_zones(seen)
    if zones and can_spot(seen, fresh=True):
        return Decision(action="spot", zone=zones[0].name, reason="the cheapest open zone")
    return None


def must_leave(seen: Observation) -> bool:
    """The net of the papers: no time left to be idle, with two restarts in hand."""
    assert seen.deadline_hours is not None
    margin = seen.deadline_hours - seen.now_hours - seen.work_left_hours - 2 * seen.costs.restart_hours
    return margin <= 0 or not can_wait(seen)


class OnDemand(_Baseline):
    """On demand throughout."""

    def decide(self, seen: Observation) -> Decision:
        return on_demand(seen, "always on demand")


class Greedy(_Baseline):
    """Spot where there is, else wait; on demand, for good, when there is no time left to wait."""

    def decide(self, seen: Observation) -> Decision:
        if seen.machine is not None and not seen.machine.spot:
            return HOLD
        return take_spot(seen) or (on_demand(seen, "no time left to wait") if must_leave(seen) else WAIT)


class UniformProgress(_Baseline):
    """Keep work in step with time (NSDI'24): spot where there is; without it, on demand while behind the even pace,
    and back to spot when ahead by two restarts."""

    def __init__(self) -> None:
        self.total: float | None = None

    def memory(self) -> dict[str, Any]:
        return {"total": self.total}

    def remember(self, memory: dict[str, Any]) -> None:
        self.total = memory["total"]

    def decide(self, seen: Observation) -> Decision:
        if self.total is None:
            self.total = seen.work_left_hours
        assert seen.deadline_hours is not None
        done = self.total - seen.work_left_hours
        pace = self.total / seen.deadline_hours
        if seen.machine is not None and not seen.machine.spot:
            ahead = done >= (seen.now_hours + 2 * seen.costs.restart_hours) * pace
            return (take_spot(seen) if ahead else None) or HOLD
        spot = take_spot(seen)
        if spot is not None:
            return spot
        if must_leave(seen) or done < seen.now_hours * pace:
            return on_demand(seen, "behind the even pace")
        return WAIT


class Slack(_Baseline):
    """Spot whenever there is; without it, on demand where time left over is under a share of the work left."""

    theta = 0.15

    def decide(self, seen: Observation) -> Decision:
        spot = take_spot(seen)
        if spot is not None:
            return spot
        assert seen.deadline_hours is not None
        spare = seen.deadline_hours - seen.now_hours - seen.work_left_hours - seen.costs.restart_hours
        if (seen.machine is not None and not seen.machine.spot) or not can_wait(seen):
            return on_demand(seen, "no spot")
        return on_demand(seen, "too little time left over") if spare < self.theta * seen.work_left_hours else WAIT


class _SkyPilot(_Baseline):
    """SkyPilot's managed jobs: spot only, by zone order after a preemption; with the net, as they know no deadline."""

    other_region_first: bool

    def __init__(self) -> None:
        self.region = ""

    def memory(self) -> dict[str, Any]:
        return {"region": self.region}

    def remember(self, memory: dict[str, Any]) -> None:
        self.region = memory["region"]

    def decide(self, seen: Observation) -> Decision:
        if seen.machine is not None and not seen.machine.spot:
            return HOLD
        if on_spot(seen):
            return take_spot(seen) or on_demand(seen, "no time left to lose a machine")
        zones = open_zones(seen)
        if zones and can_spot(seen, fresh=True):
            if self.region:
                zones.sort(key=lambda zone: (zone.region == self.region) == self.other_region_first)
            self.region = zones[0].region
            return Decision(action="spot", zone=zones[0].name, reason="next in SkyPilot's order")
        return on_demand(seen, "no time left to wait") if must_leave(seen) else WAIT


class Failover(_SkyPilot):
    """FAILOVER: the region that was lost first, then the others by price."""

    other_region_first = False


class EagerNextRegion(_SkyPilot):
    """EAGER_NEXT_REGION: the other regions by price first, then the one that was lost."""

    other_region_first = True


class SpotHedge(_Baseline):
    """SkyServe's placement for one replica: zones without a recent preemption first, a preemption demotes a zone, a
    start elsewhere does not promote it until all are demoted; on demand whenever spot is not ready."""

    def __init__(self) -> None:
        self.demoted: list[str] = []
        self.held = ""

    def memory(self) -> dict[str, Any]:
        return {"demoted": self.demoted, "held": self.held}

    def remember(self, memory: dict[str, Any]) -> None:
        self.demoted, self.held = list(memory["demoted"]), memory["held"]

    def decide(self, seen: Observation) -> Decision:
        if on_spot(seen):
            return take_spot(seen) or on_demand(seen, "no time left to lose a machine")
        if self.held:
            self._demote(self.held, seen)
            self.held = ""
        zones = sorted(open_zones(seen), key=lambda zone: zone.name in self.demoted)
        if zones and can_spot(seen, fresh=True):
            self.held = zones[0].name
            if self.held in self.demoted:
                self.demoted.remove(self.held)
            return Decision(action="spot", zone=self.held, reason="no recent preemption here")
        return on_demand(seen, "no spot is ready")

    def _demote(self, zone: str, seen: Observation) -> None:
        self.demoted.append(zone)
        if len(self.demoted) >= len(seen.zones):
            self.demoted = [zone]


class SkyNomad(_Baseline):
    """By utility: the value of an hour's progress, less what of a machine's predicted life goes to its start, less its
    price. Lives are predicted by the Nelson-Aalen estimate over spells seen in a zone, looked at every two hours."""

    probe_hours = 2.0
    unknown_life_hours = 2.0

    def __init__(self) -> None:
        self.total: float | None = None
        self.spells: dict[str, list[tuple[float, bool]]] = {}
        """By zone: length, and whether it ended (else it was cut by our looking away)."""
        self.since: dict[str, float] = {}
        self.looked = -math.inf

    def memory(self) -> dict[str, Any]:
        return {"total": self.total, "spells": self.spells, "since": self.since, "looked": self.looked}

    def remember(self, memory: dict[str, Any]) -> None:
        self.total, self.since, self.looked = memory["total"], dict(memory["since"]), memory["looked"]
        self.spells = {zone: [tuple(spell) for spell in spells] for zone, spells in memory["spells"].items()}

    def decide(self, seen: Observation) -> Decision:
        if self.total is None:
            self.total = seen.work_left_hours
        self._look(seen)
        assert seen.deadline_hours is not None
        if on_spot(seen) and not can_spot(seen, fresh=False):
            return on_demand(seen, "no time left to lose a machine")
        if not on_spot(seen) and must_leave(seen):
            return on_demand(seen, "no time left to wait")
        pressure = self._pressure(seen)
        best_utility, best = 0.0, WAIT
        for decision, utility in self._choices(seen, pressure):
            if utility > best_utility:
                best_utility, best = utility, decision
        return on_demand(seen, "no time left to wait") if best is WAIT and not can_wait(seen) else best

    def _pressure(self, seen: Observation) -> float:
        """Pace needed over pace kept; above 1 where the run is behind."""
        assert self.total is not None
        assert seen.deadline_hours is not None
        needed = seen.work_left_hours / max(1e-9, seen.deadline_hours - seen.now_hours)
        done = self.total - seen.work_left_hours
        if seen.now_hours <= 0:
            return 1.0
        return min(10.0, needed / max(1e-3, done / seen.now_hours))

    def _choices(self, seen: Observation, pressure: float) -> list[tuple[Decision, float]]:
        dear = min(zone.on_demand_usd_per_hour for zone in seen.zones if zone.on_demand_usd_per_hour is not None)
        value = dear * pressure
        machine = seen.machine
        found = []
        if machine is not None and not machine.spot:
            found.append((HOLD, value - dear))
        else:
            life = seen.deadline_hours or 1.0
            cost = seen.costs.restart_hours
            found.append((on_demand(seen, "utility"), value * (life - cost) / life - dear))
        for zone in open_zones(seen):
            assert zone.spot_usd_per_hour is not None
            life = self._life(zone.name)
            if machine is not None and machine.spot and machine.zone == zone.name:
                found.append((HOLD, value - zone.spot_usd_per_hour))
            elif can_spot(seen, fresh=True):
                useful = max(0.0, life - seen.costs.restart_hours) / life
                moving = seen.costs.move_usd / life
                start = Decision(action="spot", zone=zone.name, reason="utility")
                found.append((start, value * useful - zone.spot_usd_per_hour - moving))
        return found

    def _look(self, seen: Observation) -> None:
        held = seen.machine.zone if on_spot(seen) and seen.machine is not None else ""
        everywhere = seen.now_hours - self.looked >= self.probe_hours - 1e-9
        for zone in seen.zones:
            if not everywhere and zone.name != held and zone.name not in self.since:
                continue
            if zone.available and zone.name not in self.since:
                self.since[zone.name] = seen.now_hours
            elif not zone.available and zone.name in self.since:
                life = seen.now_hours - self.since.pop(zone.name)
                self.spells.setdefault(zone.name, []).append((life, True))
        if everywhere:
            self.looked = seen.now_hours

    def _life(self, zone: str) -> float:
        """Mean life by the Nelson-Aalen estimate of the zone's spells; a prior where there are none."""
        lives = sorted(length for length, _ in self.spells.get(zone, []))
        if not lives:
            return self.unknown_life_hours
        survival, hazard, before, mean = 1.0, 0.0, 0.0, 0.0
        for at, life in enumerate(lives):
            mean += survival * (life - before)
            hazard += 1 / (len(lives) - at)
            survival, before = math.exp(-hazard), life
        return max(mean + survival * before, 1e-3)


BASELINES: dict[str, Callable[[], Policy]] = {
    "on-demand": OnDemand,
    "greedy": Greedy,
    "uniform-progress": UniformProgress,
    "slack": Slack,
    "failover": Failover,
    "eager-next-region": EagerNextRegion,
    "skynomad": SkyNomad,
    "spothedge": SpotHedge,
}
