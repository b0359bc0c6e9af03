"""vlaunch's own policy: the least expected dollars, and never late. Pure; needs numpy.

An example. A job of 48 hours with a deadline of 58 runs on spot; the zone shuts. Most such gaps are short, so it waits;
after half an hour the gap looks like a long one, waiting costs spare time that later gaps will want, and it goes on
demand. The zone opens again: a fresh opening often shuts at once, so with little spare time left it stays on demand for
another tick or two, with plenty it moves at once. When nothing is spare it stays on demand to the end.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from market.chain import STEP, Belief
from market.deadline import can_spot, can_wait
from market.errors import MarketError
from market.policy import Decision, Observation, Zone
from market.spells import Spells, bucket
from market.waiting import MOST, Question, table

PATIENCE = 2.0
"""Without a deadline: the time allowed, in times of the work."""
CHEAP = 1.5
"""A zone of at most so many times the cheapest's price is one to wait for; a dearer one is a kind of on demand."""
SOLVED_AGAIN = 0.8
"""The table is made anew when so much of the time that it was made for is left: beliefs change."""
SOLVED_AGAIN_ALONE = 0.7
"""The same with one zone: where there is nothing to choose, beliefs matter less, and plans go through many runs."""
MEMORY = 2
"""Of what `memory` gives, the version; another's is not taken back."""
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
        self.horizon_hours = 0.0
        """Of the whole run; 0 before the first decision."""
        self.cheap: list[str] = []
        """The zones that those of the table were chosen from."""
        self.chosen: list[str] = []
        """The zones of the table, in its order."""
        self.question: Question | None = None

    def memory(self) -> dict[str, Any]:
        return {
            "version": MEMORY,
            "zones": {name: spells.memory() for name, spells in self.zones.items()},
            "horizon_hours": self.horizon_hours,
            "cheap": self.cheap,
            "chosen": self.chosen,
            "question": msgspec.to_builtins(self.question),
        }

    def remember(self, memory: dict[str, Any]) -> None:
        if memory.get("version") != MEMORY:
            return  # another version of the launcher began this run: it learns anew
        self.zones = {name: Spells.remembered(spells) for name, spells in memory["zones"].items()}
        self.horizon_hours = memory["horizon_hours"]
        self.cheap, self.chosen = list(memory["cheap"]), list(memory["chosen"])
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

    def decide(self, seen: Observation) -> Decision:
        if not self.horizon_hours:
            self.horizon_hours = seen.deadline_hours or seen.now_hours + PATIENCE * seen.work_left_hours
        self.notice(seen.now_hours, seen.zones)
        self._ask(seen)
        return _Choices(self, seen).best()

    def _ask(self, seen: Observation) -> None:
        """Make the question for the table, where there is none yet, or zones or much time have gone since."""
        left = self.left_hours(seen)
        cheap = _cheap(seen.zones)
        names = [zone.name for zone in cheap]
        again = SOLVED_AGAIN if len(names) > 1 else SOLVED_AGAIN_ALONE
        first = cheap if len(cheap) <= MOST else sorted(cheap, key=lambda zone: self._rank(zone, seen))
        recent = self.question is not None and left > again * self.question.horizon_hours
        if recent and self.cheap == names and all(zone.name in self.chosen for zone in first[:1] if zone.available):
            return
        demand = min(map(_demand_usd, _priced(seen)))
        redo = seen.costs.detection_hours + seen.costs.commit_every_hours / 2
        self.cheap = names
        self.chosen = [zone.name for zone in first[:MOST]]
        self.question = Question(
            zones=tuple(
                Belief(
                    usd_per_hour=(zone.spot_usd_per_hour or 0.0) / demand,
                    open_ends=self.zones[zone.name].ends(True),
                    shut_ends=self.zones[zone.name].ends(False),
                )
                for zone in first[:MOST]
            ),
            horizon_hours=left,
            spare_hours=left - seen.work_left_hours,
            spot_restart_hours=seen.costs.restart_hours + redo,
            demand_restart_hours=seen.costs.restart_hours,
        )

    def _rank(self, zone: Zone, seen: Observation) -> tuple[bool, bool, float]:
        """What makes a zone one for the table: held, open, and the least for an hour of work, starts included."""
        held = seen.machine is not None and seen.machine.spot and seen.machine.zone == zone.name
        spells, usd, restart = self.zones[zone.name], zone.spot_usd_per_hour or 0.0, seen.costs.restart_hours
        if not zone.available:
            return not held, True, usd / spells.open_share()
        life = spells.life_hours()
        return not held, False, usd * life / max(life - restart, restart / 10)


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
        self.state = self.table.state([self._known(name) for name in policy.chosen])

    def best(self) -> Decision:
        """The least expected dollars. Where they pass the budget and no deadline asks for it, not on demand; with a
        deadline, to wait for luck instead costs more than it saves (docs/log.md)."""
        choices = self.all()
        usd, _, decision = min(choices, key=lambda choice: choice[:2])
        total, budget = self.seen.spent_usd + usd, self.seen.budget_usd
        if budget is None or total <= budget:
            return decision
        why = f"${total:,.2f} to expect in all are over the budget of ${budget:,.2f}"
        if self.seen.deadline_hours is None:
            choices = [choice for choice in choices if not self._is_on_demand(choice[2])]
            spot = min(choices, key=lambda choice: choice[:2])[2]
            return spot if spot == decision else msgspec.structs.replace(spot, reason=f"{why}, so not on demand")
        return msgspec.structs.replace(decision, reason=f"{decision.reason}; {why}, and this is the cheapest in time")

    def all(self) -> list[Choice]:
        seen, fresh = self.seen, can_spot(self.seen, fresh=True)
        starts = [self._start(zone) for zone in seen.zones if self._is_open(zone)] if fresh else []
        found = [choice for choice in starts if choice is not None]
        if self.held is not None and can_spot(seen, fresh=False):
            return [*found, self._hold()]
        if can_wait(seen):
            opens = [zone.spot_usd_per_hour or 0.0 for zone in _cheap(seen.zones) if zone.available]
            reason = "a better zone will be open before long" if opens else "a gap like this is mostly short"
            usd = self._after(self.table.none, self.spare - STEP) + WORTH_WAITING * STEP * min(opens, default=0.0)
            found.append((usd, 3, Decision(action="wait", reason=reason)))
        return [*found, self._demand()]

    def _start(self, zone: Zone) -> Choice | None:
        """On spot, in an open zone; None in one that the table leaves out for better ones, and in a dear one that is no
        better than on demand."""
        decision = Decision(action="spot", zone=zone.name, reason="the least to expect to the end, the start included")
        usd = zone.spot_usd_per_hour or 0.0
        restart = self.question.spot_restart_hours
        spare = self.spare - restart
        now = self._moved(zone) + self._usd(usd, restart)
        if zone.name in self.policy.chosen:
            return now + self._after(self.policy.chosen.index(zone.name), spare), 1, decision
        if zone.name in self.policy.cheap:
            return None
        life = min(self.policy.zones[zone.name].life_hours(), max(self.seen.work_left_hours, STEP))
        if usd * life >= _demand_usd(self.dear) * (life - restart):
            return None
        return now + self._after(self.table.demand, spare), 1, decision

    def _hold(self) -> Choice:
        """The spot machine."""
        decision = Decision(action="hold", reason="spot, and no open zone is worth a new start")
        usd = next((zone.spot_usd_per_hour or 0.0 for zone in self.seen.zones if zone.name == self.held), 0.0)
        spare = self.spare - self.starting
        chosen = self.policy.chosen
        machine = chosen.index(self.held) if self.held in chosen else self.table.demand
        return self._usd(usd, self.starting) + self._after(machine, spare), 0, decision

    def _demand(self) -> Choice:
        hourly, restart = _demand_usd(self.dear), self.question.demand_restart_hours
        if self.seen.machine is not None and self.held is None:
            stay = Decision(action="hold", reason="on demand is still the least cost")
            usd = self._usd(hourly, self.starting)
            return usd + self._after(self.table.demand, self.spare - self.starting), 2, stay
        reason = f"{self.spare:.1f} hours to spare are worth more later than waiting now"
        start = Decision(action="on_demand", zone=self.dear.name, reason=reason)
        usd = self._moved(self.dear) + self._usd(hourly, restart)
        return usd + self._after(self.table.demand, self.spare - restart), 2, start

    def _is_open(self, zone: Zone) -> bool:
        """To a new machine."""
        return bool(zone.available) and zone.spot_usd_per_hour is not None and zone.name != self.held

    def _is_on_demand(self, decision: Decision) -> bool:
        return decision.action == "on_demand" or (decision.action == "hold" and self.held is None)

    def _known(self, name: str) -> tuple[bool, int]:
        """Whether a zone is open, and the bucket of its age."""
        spells, machine = self.policy.zones[name], self.seen.machine
        hours = spells.age_hours()
        if machine is None or name != self.held:
            return bool(spells.open), bucket(hours)
        return True, bucket(max(hours if spells.open else 0.0, machine.age_hours))

    def _moved(self, zone: Zone) -> float:
        """Dollars for reading the checkpoint out of the region it lies in."""
        return 0.0 if self.seen.data_region in ("", zone.region) else self.seen.costs.move_usd

    def _usd(self, usd_per_hour: float, starting_hours: float) -> float:
        """Of a step, or of what is left to do where that is less."""
        return usd_per_hour * min(STEP, starting_hours + self.seen.work_left_hours)

    def _after(self, machine: int, spare: float) -> float:
        return self.table.after(self.state, machine, self.left - STEP, spare) * _demand_usd(self.dear)


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
