"""How many replicas where: the arrangements worth weighing, what each costs, and how long it may be short. Pure."""

import itertools
import math

import msgspec

from market.fleet import ON_DEMAND


class Option(msgspec.Struct, frozen=True):
    """An arrangement, weighed."""

    usd_per_hour: float
    short_share: float
    """Of the time, expected, with too few ready."""
    held: dict[str, int]
    """By zone, `ON_DEMAND` among them."""

    def usd_at(self, usd_per_short_hour: float) -> float:
        """An hour, what is short paid for."""
        return self.usd_per_hour + usd_per_short_hour * self.short_share


class Odds(msgspec.Struct, frozen=True, kw_only=True):
    """What places cost, and what is to be feared of them."""

    usd_per_hour: dict[str, float]
    """Of the open zones and `ON_DEMAND`."""
    ends_per_hour: dict[str, float]
    """Of the open zones, at their present ages."""
    joint_hours: float
    """Ends of two zones within so long of each other are one loss."""
    replicas: int
    cold_start_hours: float

    def usd(self, held: dict[str, int]) -> float:
        """An hour."""
        return sum(self.usd_per_hour[place] * count for place, count in held.items())

    def weigh(self, held: dict[str, int]) -> Option:
        return Option(self.usd(held), self._short_share(held), held)

    def _short_share(self, held: dict[str, int]) -> float:
        """What ends is started elsewhere, so every loss that leaves too few costs a cold start."""
        spare = sum(held.values()) - self.replicas
        spot = [(count, self.ends_per_hour[zone]) for zone, count in held.items() if zone != ON_DEMAND]
        losses = sum(rate for count, rate in spot if count > spare)
        covered = [each for each in spot if each[0] <= spare]
        for (count, rate), (other, other_rate) in itertools.combinations(covered, 2):
            both = 2 * rate * other_rate * self.joint_hours
            # A pair that spares still cover is short when a third goes with it.
            third = (sum(each for _, each in covered) - rate - other_rate) * self.joint_hours
            losses += both if count + other > spare else both * third
        return min(1.0, losses * self.cold_start_hours)

    def options(self, usd_per_short_hour: float) -> list[Option]:
        """From the cheapest on, each dearer one less often short: all on demand, all in one zone, and so many in each
        of several that one or two of them may go. `usd_per_short_hour` is what being short is worth at most; which
        zones make up a group is chosen at a little of it and at more."""
        found = [{ON_DEMAND: self.replicas}, *({zone: self.replicas} for zone in self.ends_per_hour)]
        for lost, each in itertools.product((1, 2), range(1, self.replicas + 1)):
            for part in (0.02, 0.3):
                found += self._group(self.replicas + lost * each, each, part * usd_per_short_hour)
        weighed = [self.weigh(held) for held in found]
        best: list[Option] = []
        for option in sorted(weighed, key=lambda option: (option.usd_per_hour, option.short_share)):
            if not best or option.short_share < best[-1].short_share:
                best.append(option)
        return best

    def _group(self, total: int, each: int, usd_per_short_hour: float) -> list[dict[str, int]]:
        """So many in all, at most `each` a zone, in the zones that are cheapest with what their ends cost a group."""
        size = math.ceil(total / each)
        if size > len(self.ends_per_hour):
            return []
        others = (size - 1) * sum(self.ends_per_hour.values()) / len(self.ends_per_hour)
        harm = usd_per_short_hour * self.cold_start_hours * 2 * others * self.joint_hours

        def dear(zone: str) -> tuple[float, str]:
            return each * self.usd_per_hour[zone] + harm * self.ends_per_hour[zone], zone

        chosen = sorted(self.ends_per_hour, key=dear)[:size]
        return [{zone: min(each, total - each * at) for at, zone in enumerate(chosen)}]
