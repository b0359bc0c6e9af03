"""What zones do together, as a chain of steps: which open zone is the one to be in, and for how long it has been open.
Pure; needs numpy.

A state is a zone and the age of its open spell, or that all are shut and for how long. Zones are taken to be
independent, and those that are not looked at to be open as often, and as old, as in the long run.
"""

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from market.spells import EDGES_HOURS, mean_lives

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[Any]

STEP = 1 / 6
"""Hours of a step."""
AGES = len(EDGES_HOURS)
WIDTHS = [later - edge for edge, later in itertools.pairwise(EDGES_HOURS)]
"""Hours, of every bucket of ages but the last."""


class Belief(msgspec.Struct, frozen=True, kw_only=True):
    """What is believed of a zone."""

    usd_per_hour: float
    ends: tuple[float, ...]
    """An hour, of its open spells, by age."""
    open_share: float
    """Of the time."""


class Chain:
    """Its steps, as matrices over states: ages of the first zone, of the second, ..., and of all being shut."""

    def __init__(self, zones: Sequence[Belief], shut_ends: Sequence[float], restart_hours: float) -> None:
        import numpy as np

        self.states = (len(zones) + 1) * AGES
        self.shut = len(zones) * AGES
        """The first state in which all are shut."""
        lives = np.array([mean_lives(zone.ends) for zone in zones])
        prices = np.array([zone.usd_per_hour for zone in zones])
        self.usd_of_work = prices[:, None] * lives / np.maximum(lives - restart_hours, restart_hours / 10)
        """An hour, of a machine started now and held as long as it lives: by zone and age."""
        passed = np.array([_passed(zone.ends) for zone in zones])
        spent = passed * (1 - np.array([[*_stay(zone.ends), 0.0] for zone in zones])) / [zone.ends for zone in zones]
        shares = np.array([zone.open_share for zone in zones])
        opens = shares / lives[:, 0]
        """Times an hour that a zone opens."""
        ends = -np.expm1(-np.concatenate([*(zone.ends for zone in zones), shut_ends]) * STEP)
        older = _older(self.states)
        turns = self._turns(opens, self._others(shares[:, None] * spent / lives[:, :1]))
        self.stays = (1 - ends)[:, None] * older
        """Holding a machine that lives."""
        self.ends = ends[:, None] * turns
        """The zone shuts, or one opens where all were shut."""
        self.free = self._overtaken(opens[:, None] * passed * STEP) + self.ends
        """Holding no spot machine: a better zone may come by as well."""

    def _others(self, chances: "Values") -> "Values":
        """By zone that shuts, the chance of every state: that it is the best of the other zones'. `chances` are of
        every zone being open at every age."""
        import numpy as np

        zones = len(chances)
        found = np.zeros((zones, self.states))
        for shuts in range(zones):
            worse = np.ones(zones)
            """Chance of every zone not to be in a state that was better."""
            for state in np.argsort(self.usd_of_work, axis=None, kind="stable"):
                zone, age = divmod(int(state), AGES)
                if zone != shuts:
                    found[shuts, state] = chances[zone, age] * np.prod(np.delete(worse, zone))
                    worse[zone] -= chances[zone, age]
            found[shuts, self.shut] = np.prod(worse)
        return found

    def _turns(self, opens: "Values", others: "Values") -> "Values":
        """Where the end of a spell leads to."""
        import numpy as np

        turns = np.zeros((self.states, self.states))
        turns[: self.shut] = np.repeat(others, AGES, axis=0)
        turns[self.shut :, : self.shut : AGES] = opens / opens.sum()
        return turns

    def _overtaken(self, passing: "Values") -> "Values":
        """`stays`, with other zones coming to the age from which on they are better. `passing` is the chance, in a
        step, of a zone's spell to come to an age."""
        import numpy as np

        free = self.stays.copy()
        for state, usd in enumerate(self.usd_of_work.ravel()):
            for zone, passes in enumerate(passing):
                better = np.flatnonzero(self.usd_of_work[zone] < usd - 1e-9)
                if zone != state // AGES and len(better):
                    chance = min(1.0, float(passes[better[0]]))
                    lives = free[state].sum()
                    free[state] *= 1 - chance
                    free[state, zone * AGES + better[0]] += chance * lives
        return free


def _stay(ends: Sequence[float]) -> list[float]:
    """Chances of a spell to outlive the buckets of ages but the last, once in them."""
    return [math.exp(-rate * width) for rate, width in zip(ends, WIDTHS, strict=False)]


def _passed(ends: Sequence[float]) -> list[float]:
    """Chances of a spell to come to every age."""
    found = [1.0]
    for stays in _stay(ends):
        found.append(found[-1] * stays)
    return found


def _older(states: int) -> "Values":
    """Spells growing older by a step."""
    import numpy as np

    older = np.zeros((states, states))
    for state in range(states):
        age = state % AGES
        moves = min(1.0, STEP / WIDTHS[age]) if age < len(WIDTHS) else 0.0
        older[state, state] = 1 - moves
        if moves:
            older[state, state + 1] = moves
    return older
