"""vlaunch's serving policy: N ready for the wanted share of the time, for the least money. Pure.

What may be missed, half a percent of the time say, is a budget to be spent where it saves most. So an hour with too few
ready has a price, and of all arrangements the one is held that is cheapest with its expected hours short paid for. The
price is the least that would have kept within the budget so far, in this market: in a calm one it is next to nothing,
and all replicas stand in the one cheapest zone without a spare; where zones flutter, spares are worth their money, then
waiting on demand until a zone has lasted.

When the budget is nearly spent all are on demand until there is some again, so from some hour on (`CREDIT`) the promise
holds whatever the market does, as long as on demand can be had.
"""

import math
from collections.abc import Sequence

from market.arrangements import Odds, Option
from market.fleet import ON_DEMAND, Fleet
from market.spells import OPEN_ENDS, Spells, bucket

PRICES = tuple(0.0005 * 1.6**step for step in range(17))
"""Of an hour short: parts of what all on demand cost over the time in which an hour may be short."""
CREDIT = 15
"""Cold starts that may be missed before anything is saved; the promise holds from the hour on that allows so many."""
SPREAD = 10
"""What was saved is planned to be spent, and what was overspent to be saved, over the hours that allow so many."""
WEEK_HOURS = 168.0
"""But the promise holds, and what was saved is spent, within these in any case."""
KEEP = 3
"""Cold starts that are to be left of what may be missed."""
MOST, LEAST = 3.0, 0.05
"""Times the share wanted, that may be planned to be missed while much or nothing is left."""
MEMORY_HOURS = 48.0
"""What a price would have missed so long ago counts for 1/e: markets change."""
CALM_HOURS = 6.0
"""Without anything missed, taken as seen before the start."""
TOGETHER, TOGETHER_SEEN = 2.0, 2.0
"""Zones end with others so much more often than by chance, before anything is seen, and how many ends by chance that
counts for."""
STAY_HOURS = 1.0
"""A move must pay for itself within."""


class LeastCostFleet:
    """See the module."""

    def __init__(self) -> None:
        self.zones: dict[str, Spells] = {}
        self.held: dict[str, int] = {}
        self.seen_hours: float | None = None
        self.step_hours = 0.0
        """Between the last two decisions."""
        self.by_chance = self.joint_ends = 0.0
        """Ends in the same step as another zone's: what was to be expected by chance, and what was seen."""
        self.would_miss = [0.0] * len(PRICES)
        """Hours that each price would have been short, as far as it is remembered."""
        self.remembered_hours = CALM_HOURS

    def hold(self, fleet: Fleet) -> dict[str, int]:
        """By zone, `ON_DEMAND` among them."""
        self._look(fleet)
        odds = self._odds(fleet)
        share = max(1e-6, 1 - fleet.wanted_availability)
        most = fleet.replicas * fleet.on_demand_usd_per_hour / share
        options = odds.options(most)
        price = most * self._price(options, most, self._may_miss(fleet, share))
        if self._nearly_spent(fleet, share):
            self.held = {ON_DEMAND: fleet.replicas}
        else:
            self._choose(odds, min(options, key=lambda option: option.usd_at(price)), price)
        return self._until_ready(fleet)

    def _look(self, fleet: Fleet) -> None:
        """Take in what is open now."""
        self.step_hours = 0.0 if self.seen_hours is None else fleet.now_hours - self.seen_hours
        self.seen_hours = fleet.now_hours
        were_open = [(spells, _ends_per_hour(spells)) for spells in self.zones.values() if spells.open]
        for place in fleet.places:
            self.zones.setdefault(place.name, Spells()).look(fleet.now_hours, place.available)
        ended = [rate for spells, rate in were_open if not spells.open]
        self.by_chance += (len(ended) * sum(rate for _, rate in were_open) - sum(ended)) * self.step_hours
        self.joint_ends += len(ended) * (len(ended) - 1)

    def _odds(self, fleet: Fleet) -> Odds:
        usd = {place.name: place.usd_per_hour for place in fleet.places if place.available}
        together = (TOGETHER * TOGETHER_SEEN + self.joint_ends) / (TOGETHER_SEEN + self.by_chance)
        return Odds(
            usd_per_hour=usd | {ON_DEMAND: fleet.on_demand_usd_per_hour},
            ends_per_hour={zone: _ends_per_hour(self.zones[zone]) for zone in usd},
            joint_hours=together * self.step_hours + fleet.cold_start_hours,
            replicas=fleet.replicas, cold_start_hours=fleet.cold_start_hours,
        )  # fmt: skip

    def _may_miss(self, fleet: Fleet, share: float) -> float:
        """Share of the time that may be short from now on: what is wanted, and a part of what was saved beyond what is
        to be left."""
        spread = _hours(SPREAD, fleet, share)
        keep = KEEP * fleet.cold_start_hours * min(1.0, fleet.now_hours / spread)
        saved = share * fleet.now_hours - fleet.short_hours - keep
        return max(LEAST * share, min(MOST * share, share + saved / spread))

    def _price(self, options: Sequence[Option], most: float, may_miss: float) -> float:
        """The least that would have missed no more than that, had it been asked all along."""
        fades = math.exp(-self.step_hours / MEMORY_HOURS)
        self.remembered_hours = self.remembered_hours * fades + self.step_hours
        for at, price in enumerate(PRICES):
            held = min(options, key=lambda option: option.usd_at(price * most))
            self.would_miss[at] = self.would_miss[at] * fades + held.short_share * self.step_hours
        enough = [
            price
            for price, missed in zip(PRICES, self.would_miss, strict=True)
            if missed <= may_miss * self.remembered_hours
        ]
        return min(enough, default=PRICES[-1])

    def _nearly_spent(self, fleet: Fleet, share: float) -> bool:
        """Whether the worst that can happen until all are on demand would break the promise: a cold start, and another
        where too few are ready now."""
        left = share * max(fleet.now_hours, _hours(CREDIT, fleet, share)) - fleet.short_hours
        ready = sum(fleet.ready.values()) >= fleet.replicas
        return left < fleet.cold_start_hours * (1 if ready else 2)

    def _choose(self, odds: Odds, best: Option, price: float) -> None:
        """Hold the best, unless what is held is still there and moving costs more than it gains."""
        if self.held and all(place in odds.usd_per_hour for place in self.held):
            gain = odds.weigh(self.held).usd_at(price) - best.usd_at(price)
            new = {place: max(0, count - self.held.get(place, 0)) for place, count in best.held.items()}
            overlap_hours = max(odds.cold_start_hours, self.step_hours)
            if gain * STAY_HOURS <= odds.usd(new) * overlap_hours:
                return
        self.held = best.held

    def _until_ready(self, fleet: Fleet) -> dict[str, int]:
        """What is to be held, and what must be until enough of it is ready."""
        held = dict(self.held)
        ready = sum(min(count, fleet.ready.get(zone, 0)) for zone, count in held.items())
        for zone, count in sorted(fleet.ready.items()):
            keep = min(count - min(count, held.get(zone, 0)), fleet.replicas - ready)
            if keep > 0:
                held[zone] = held.get(zone, 0) + keep
                ready += keep
        return held


def _hours(cold_starts: int, fleet: Fleet, share: float) -> float:
    """That allow so many, a week at most."""
    return max(1e-6, min(WEEK_HOURS, cold_starts * fleet.cold_start_hours / share))


def _ends_per_hour(spells: Spells) -> float:
    """Of a zone that is open, at its age."""
    age = bucket(spells.age_hours())
    kinds = zip(spells.weights(True), OPEN_ENDS, strict=True)
    return sum(weight * ends[age] for weight, ends in kinds)
