"""vlaunch's own policy: the least expected dollars, and never late. Pure; needs numpy.

An example. A job of 48 hours with a deadline of 58 runs on spot; the zone shuts. Most such gaps are short, so it waits;
after half an hour the gap looks like a long one, waiting costs spare time that later gaps will want, and it goes on
demand. The zone opens again: a fresh opening often shuts at once, so with little spare time left it stays on demand for
another tick or two, with plenty it moves at once. When nothing is spare it stays on demand to the end.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from market.chain import AGES, STEP, Belief
from market.deadline import can_spot, can_wait
from market.errors import MarketError
from market.policy import Decision, Observation, Zone
from market.spells import Spells, bucket
from market.waiting import DEMAND, NONE, SPOT, Question, table

PATIENCE = 2.0
"""Without a deadline: the time allowed, in times of the work."""
CHEAP = 1.5
"""A zone of at most so many times the cheapest's price is one to wait for; a dearer one is a kind of on demand."""
SOLVED_AGAIN = 0.8
"""The table is made anew when so much of the time that it was made for is left: beliefs change."""
SOLVED_AGAIN_ALONE = 0.7
"""The same with one zone: where there is nothing to choose, beliefs matter less, and plans go through many runs."""
WORTH_WAITING = 0.1
"""Waiting beside an open zone must save so much of what a step in it costs, else it is put off for nothing."""


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
        self.work_hours = self.horizon_hours = 0.0
        """Of the whole run; 0 before the first decision."""
        self.cheap: list[str] = []
        """The zones of the table, in its order."""
        self.question: Question | None = None

    def memory(self) -> dict[str, Any]:
        return {
            "zones": {name: spells.memory() for name, spells in self.zones.items()},
            "market": self.market.memory(),
            "work_hours": self.work_hours,
            "horizon_hours": self.horizon_hours,
            "cheap": self.cheap,
            "question": msgspec.to_builtins(self.question),
        }

    def remember(self, memory: dict[str, Any]) -> None:
        self.zones = {name: Spells.remembered(spells) for name, spells in memory["zones"].items()}
        self.market = Spells.remembered(memory["market"])
        self.work_hours, self.horizon_hours = memory["work_hours"], memory["horizon_hours"]
        self.cheap = list(memory["cheap"])
        self.question = msgspec.convert(memory["question"], Question | None)

    def left_hours(self, seen: Observation) -> float:
        """To the deadline, or to the end of the patience there is without one."""
        if seen.deadline_hours is not None:
            return seen.deadline_hours - seen.now_hours
        return max(self.horizon_hours - seen.now_hours, seen.work_left_hours + 2 * seen.costs.restart_hours)

    def notice(self, at_hours: float, zones: tuple[Zone, ...]) -> None:
        """Learn from what is seen of the zones, without deciding; earlier times first."""
        for zone in zones:
            spells = self.zones.setdefault(zone.name, Spells())
            if zone.available is not None:
                spells.look(at_hours, zone.available)
        self.market.look(at_hours, any(zone.available for zone in _cheap(zones)))

    def decide(self, seen: Observation) -> Decision:
        if not self.horizon_hours:
            self.work_hours = seen.work_left_hours
            self.horizon_hours = seen.deadline_hours or PATIENCE * seen.work_left_hours
        self.notice(seen.now_hours, seen.zones)
        self._ask(seen)
        _, _, decision = min(_Choices(self, seen).all(), key=lambda choice: choice[:2])
        return decision

    def _ask(self, seen: Observation) -> None:
        """Make the question for the table, where there is none yet, or zones or much time have gone since."""
        left = self.left_hours(seen)
        cheap = _cheap(seen.zones)
        names = [zone.name for zone in cheap]
        again = SOLVED_AGAIN if len(names) > 1 else SOLVED_AGAIN_ALONE
        if self.question is not None and self.cheap == names and left > again * self.question.horizon_hours:
            return
        demand = min(map(_demand_usd, _priced(seen)))
        redo = seen.costs.detection_hours + seen.costs.commit_every_hours / 2
        self.cheap = names
        self.question = Question(
            zones=tuple(
                Belief(
                    usd_per_hour=(zone.spot_usd_per_hour or 0.0) / demand,
                    ends=self.zones[zone.name].ends(True),
                    open_share=self.zones[zone.name].open_share(),
                )
                for zone in cheap
            ),
            shut_ends=self.market.ends(False),
            horizon_hours=left,
            spare_hours=left - seen.work_left_hours,
            spot_restart_hours=seen.costs.restart_hours + redo,
            demand_restart_hours=seen.costs.restart_hours,
        )


Choice = tuple[float, int, Decision]
"""Expected dollars to the end, a rank for ties, and what to do."""


class _Choices:
    """What may be done now without risking the deadline."""

    def __init__(self, policy: LeastCost, seen: Observation) -> None:
        assert policy.question is not None
        self.policy, self.seen, self.question = policy, seen, policy.question
        self.table = table(policy.question)
        self.left = policy.left_hours(seen)
        self.spare = self.left - seen.work_left_hours
        self.starting = seen.machine.starting_hours if seen.machine is not None else 0.0
        self.dear = min(_priced(seen), key=_demand_usd)
        self.held = seen.machine.zone if seen.machine is not None and seen.machine.spot else None
        """The zone of the spot machine that is held."""
        self.states = {
            zone.name: policy.cheap.index(zone.name) * AGES + self._age(zone)
            for zone in seen.zones
            if zone.name in policy.cheap and (zone.available or zone.name == self.held)
        }
        """Of the cheap zones that are open."""
        ranks = self.table.chain.usd_of_work.ravel()
        shut = self.table.chain.shut + bucket(policy.market.age_hours())
        self.now = min(self.states.values(), key=lambda state: (ranks[state], state), default=shut)

    def all(self) -> list[Choice]:
        seen, fresh = self.seen, can_spot(self.seen, fresh=True)
        starts = [self._start(zone) for zone in seen.zones if self._is_open(zone)] if fresh else []
        found = [choice for choice in starts if choice is not None]
        if self.held is not None and can_spot(seen, fresh=False):
            return [*found, self._hold()]
        if can_wait(seen):
            reason = "a gap like this is mostly short" if not self.states else "a better zone will be open before long"
            least = min((zone.spot_usd_per_hour or 0.0 for zone in seen.zones if zone.name in self.states), default=0.0)
            usd = self._after(NONE, self.now, self.spare - STEP) + WORTH_WAITING * STEP * least
            found.append((usd, 3, Decision(action="wait", reason=reason)))
        return [*found, self._demand()]

    def _start(self, zone: Zone) -> Choice | None:
        """On spot, in an open zone; None in a dear one that is no better than on demand."""
        decision = Decision(action="spot", zone=zone.name, reason="the least to expect to the end, the start included")
        usd = zone.spot_usd_per_hour or 0.0
        restart = self.question.spot_restart_hours
        spare = self.spare - restart
        if zone.name in self.states:
            return self._usd(usd, restart) + self._after(SPOT, self.states[zone.name], spare), 1, decision
        life = min(self.policy.zones[zone.name].life_hours(), max(self.seen.work_left_hours, STEP))
        if usd * life >= _demand_usd(self.dear) * (life - restart):
            return None
        return self._usd(usd, restart) + self._after(DEMAND, self.now, spare), 1, decision

    def _hold(self) -> Choice:
        """The spot machine."""
        decision = Decision(action="hold", reason="spot, and no open zone is worth a new start")
        usd = next((zone.spot_usd_per_hour or 0.0 for zone in self.seen.zones if zone.name == self.held), 0.0)
        spare = self.spare - self.starting
        if self.held in self.states:
            return self._usd(usd, self.starting) + self._after(SPOT, self.states[self.held], spare), 0, decision
        return self._usd(usd, self.starting) + self._after(DEMAND, self.now, spare), 0, decision

    def _demand(self) -> Choice:
        hourly, restart = _demand_usd(self.dear), self.question.demand_restart_hours
        if self.seen.machine is not None and self.held is None:
            stay = Decision(action="hold", reason="on demand is still the least cost")
            usd = self._usd(hourly, self.starting)
            return usd + self._after(DEMAND, self.now, self.spare - self.starting), 2, stay
        reason = f"{self.spare:.1f} hours to spare are worth more later than waiting now"
        start = Decision(action="on_demand", zone=self.dear.name, reason=reason)
        return self._usd(hourly, restart) + self._after(DEMAND, self.now, self.spare - restart), 2, start

    def _is_open(self, zone: Zone) -> bool:
        """To a new machine."""
        return bool(zone.available) and zone.spot_usd_per_hour is not None and zone.name != self.held

    def _age(self, zone: Zone) -> int:
        spells, machine = self.policy.zones[zone.name], self.seen.machine
        hours = spells.age_hours() if spells.open else 0.0
        if machine is not None and zone.name == self.held:
            hours = max(hours, machine.age_hours)
        return bucket(hours)

    def _usd(self, usd_per_hour: float, starting_hours: float) -> float:
        """Of a step, or of what is left to do where that is less."""
        return usd_per_hour * min(STEP, starting_hours + self.seen.work_left_hours)

    def _after(self, machine: int, state: int, spare: float) -> float:
        return self.table.after(state, machine, self.left - STEP, spare) * _demand_usd(self.dear)


def _cheap(zones: Sequence[Zone]) -> list[Zone]:
    """Zones whose spot price is near the cheapest's."""
    priced = [zone for zone in zones if zone.spot_usd_per_hour is not None]
    least = min(zone.spot_usd_per_hour or 0.0 for zone in priced)
    return [zone for zone in priced if (zone.spot_usd_per_hour or 0.0) <= CHEAP * least]


def _priced(seen: Observation) -> list[Zone]:
    """Zones with a price on demand."""
    return [zone for zone in seen.zones if zone.on_demand_usd_per_hour is not None]


def _demand_usd(zone: Zone) -> float:
    return zone.on_demand_usd_per_hour or 0.0
