"""vlaunch's own policy: the least expected dollars, and never late. Pure; needs numpy.

An example. A job of 48 hours with a deadline of 58 runs on spot; the zone shuts. Most such gaps are short, so it waits;
after half an hour the gap looks like a long one, waiting costs spare time that later gaps will want, and it goes on
demand. The zone opens again: a fresh opening often shuts at once, so with little spare time left it stays on demand for
another tick or two, with plenty it moves at once. When nothing is spare it stays on demand to the end.
"""

from collections.abc import Sequence
from typing import Any

from market.deadline import can_spot, can_wait, spare_hours
from market.errors import MarketError
from market.policy import Decision, Observation, Zone
from market.spells import Spells, bucket
from market.waiting import DEMAND, NONE, SPOT, STEP, Question, table

PATIENCE = 2.0
"""Without a deadline: the time allowed, in times of the work."""
TIGHT = 0.1
"""With less time to spare than this share of the work, an hour lost to a start is one on demand."""
CHEAP = 1.5
"""A zone under so many times the cheapest open zone's price is as good as it, but for how long it lasts."""


class LeastCost:
    """Decides by the table of market/waiting.py and what it has learnt of every zone."""

    def __init__(self) -> None:
        try:
            import numpy  # noqa: F401
        except ImportError:
            raise MarketError(
                "The policy needs numpy, which is not installed: pip install 'vlaunch[market]'."
            ) from None
        self.zones: dict[str, Spells] = {}
        self.market = Spells()
        """Whether any zone is open."""
        self.shut = [0.5, 0.5]
        """Zones that shut while another was open, and while none was; with half a one each to begin with."""
        self.work_hours = self.horizon_hours = 0.0
        """Of the whole run; 0 before the first decision."""

    def memory(self) -> dict[str, Any]:
        return {
            "zones": {name: spells.memory() for name, spells in self.zones.items()},
            "market": self.market.memory(),
            "shut": self.shut,
            "work_hours": self.work_hours,
            "horizon_hours": self.horizon_hours,
        }

    def remember(self, memory: dict[str, Any]) -> None:
        self.zones = {name: Spells.remembered(spells) for name, spells in memory["zones"].items()}
        self.market = Spells.remembered(memory["market"])
        self.shut = list(memory["shut"])
        self.work_hours, self.horizon_hours = memory["work_hours"], memory["horizon_hours"]

    def left_hours(self, seen: Observation) -> float:
        """To the deadline, or to the end of the patience there is without one."""
        if seen.deadline_hours is not None:
            return seen.deadline_hours - seen.now_hours
        return max(self.horizon_hours - seen.now_hours, seen.work_left_hours + 2 * seen.costs.restart_hours)

    def notice(self, at_hours: float, zones: tuple[Zone, ...]) -> None:
        """Learn from what is seen of the zones, without deciding; earlier times first."""
        cheap = _cheap(zones)
        any_open = any(zone.available for zone in cheap)
        for zone in zones:
            if zone.available is None:
                continue
            spells = self.zones.setdefault(zone.name, Spells())
            if spells.open and not zone.available and zone in cheap:
                self.shut[not any_open] += 1
            spells.look(at_hours, zone.available)
        self.market.look(at_hours, any_open)

    def decide(self, seen: Observation) -> Decision:
        if not self.horizon_hours:
            self.work_hours = seen.work_left_hours
            self.horizon_hours = seen.deadline_hours or PATIENCE * seen.work_left_hours
        self.notice(seen.now_hours, seen.zones)
        _, _, decision = min(self._choices(seen), key=lambda choice: choice[:2])
        return decision

    def _choices(self, seen: Observation) -> list[tuple[float, int, Decision]]:
        """What may be done without risking the deadline: expected dollars to the end, a rank for ties, the decision."""
        held = seen.machine
        zone = self._best(seen, _cheap(seen.zones))
        if held is not None and held.spot and can_spot(seen, fresh=False):
            least = self._best(seen, seen.zones)
            if least is None or least.name == held.zone or not can_spot(seen, fresh=True):
                return [(0.0, 0, Decision(action="hold", reason="spot, and no open zone is worth a new start"))]
            return [(0.0, 0, Decision(action="spot", zone=least.name, reason="costs less, the new start included"))]
        dear = min((z for z in seen.zones if z.on_demand_usd_per_hour is not None), key=_demand_usd)
        ahead = _Ahead(self, seen, zone, _demand_usd(dear))
        on_demand = held is not None and not held.spot
        stay = Decision(action="hold", reason="goes on" if not on_demand else "on demand is still the least cost")
        found = [
            (ahead.demand(fresh=not on_demand), 2, stay)
            if on_demand
            else (ahead.demand(fresh=True), 2, Decision(action="on_demand", zone=dear.name, reason=ahead.reason(zone)))
        ]
        # Beside an open zone waiting looks as cheap as starting as long as much is spare, and spends it for nothing.
        if can_wait(seen) and (zone is None or not can_spot(seen, fresh=True)):
            found.append((ahead.wait(), 3, Decision(action="wait", reason="a gap like this is mostly short")))
        for other in (zone, self._best(seen, seen.zones)):
            if other is not None and can_spot(seen, fresh=True):
                start = Decision(
                    action="spot", zone=other.name, reason="the least for an hour of work, starts included"
                )
                found.append((ahead.spot(other.name, fresh=True), 1, start))
        return found

    def _best(self, seen: Observation, zones: Sequence[Zone]) -> Zone | None:
        """The open zone where an hour of work costs the least, with its starts and the life to expect of a machine."""
        ranked = [
            (self._usd_an_hour(seen, zone), zone.name, zone)
            for zone in zones
            if zone.available and zone.spot_usd_per_hour
        ]
        return min(ranked)[2] if ranked else None

    def _usd_an_hour(self, seen: Observation, zone: Zone) -> float:
        usd = zone.spot_usd_per_hour or 0.0
        life = min(self.zones[zone.name].life_hours(), max(seen.work_left_hours, STEP))
        restart = seen.costs.restart_hours + seen.costs.detection_hours + seen.costs.commit_every_hours / 2
        starts = 1.0 if seen.machine is not None and seen.machine.spot and seen.machine.zone == zone.name else 2.0
        moving = seen.costs.move_usd if seen.data_region not in ("", zone.region) else 0.0
        tight = spare_hours(seen) < TIGHT * seen.work_left_hours
        hour = min(_demand_usd(each) for each in seen.zones if each.on_demand_usd_per_hour) if tight else usd
        return usd + (starts * restart * hour + moving) / life


class _Ahead:
    """Expected dollars of doing something for one step, from what is seen and believed now."""

    def __init__(self, policy: LeastCost, seen: Observation, zone: Zone | None, demand_usd: float) -> None:
        import numpy as np

        costs = seen.costs
        self.seen, self.policy, self.demand_usd = seen, policy, demand_usd
        self.usd = {each.name: each.spot_usd_per_hour or 0.0 for each in seen.zones}
        cheap = _cheap(seen.zones)
        usual = self.usd[zone.name] if zone is not None else min(self.usd[each.name] for each in cheap)
        self.open = zone is not None
        spells = policy.zones[zone.name] if zone is not None else policy.market
        self.age = bucket(spells.age_hours())
        opens = [policy.zones[each.name].weights(True) for each in ([zone] if zone is not None else cheap)]
        self.shares = np.outer(np.mean(opens, axis=0), policy.market.weights(False)).ravel()
        self.left = policy.left_hours(seen)
        self.spare = self.left - seen.work_left_hours
        other = policy.shut[0] / sum(policy.shut) if len(cheap) > 1 else 0.0
        redo = costs.detection_hours + costs.commit_every_hours / 2
        self.table = table(
            Question(
                horizon_hours=policy.horizon_hours,
                spare_hours=policy.horizon_hours - policy.work_hours,
                spot_restart_hours=round(costs.restart_hours + redo, 3),
                demand_restart_hours=round(costs.restart_hours, 3),
                spot_usd=round(min(usual / demand_usd, 1.0), 2),
                other_open=round(other * 4) / 4,
            )
        )

    def wait(self) -> float:
        return self._after(NONE, self.spare - STEP)

    def spot(self, zone: str, *, fresh: bool) -> float:
        spare = self.spare - (self.table.question.spot_restart_hours if fresh else self._starting())
        return self.usd[zone] * STEP + self._after(SPOT, spare)

    def demand(self, *, fresh: bool) -> float:
        spare = self.spare - (self.table.question.demand_restart_hours if fresh else self._starting())
        return self.demand_usd * STEP + self._after(DEMAND, spare)

    def reason(self, zone: Zone | None) -> str:
        return f"{self.spare:.1f} hours to spare are worth more later than waiting now"

    def _starting(self) -> float:
        return self.seen.machine.starting_hours if self.seen.machine is not None else 0.0

    def _after(self, machine: int, spare: float) -> float:
        usd = self.table.after(self.shares, self.open, self.age, machine, self.left - STEP, spare)
        return usd * self.demand_usd


def _cheap(zones: Sequence[Zone]) -> list[Zone]:
    """Zones whose spot price is near the cheapest's."""
    priced = [zone for zone in zones if zone.spot_usd_per_hour is not None]
    least = min(zone.spot_usd_per_hour or 0.0 for zone in priced)
    return [zone for zone in priced if (zone.spot_usd_per_hour or 0.0) <= CHEAP * least]


def _demand_usd(zone: Zone) -> float:
    return zone.on_demand_usd_per_hour or 0.0
