"""How long zones stay open and shut: chances by age, learnt from what is seen. Pure.

Spells have heavy tails: most end within the hour, some last days, and the longer one has lasted the longer it goes on.
So the chance of an end is kept by age, and what is learnt of a zone is a factor on it: this zone's spells are shorter
or longer than usual. The usual chances are those of the recorded markets this was built on (docs/market.md).
"""

import bisect
import math
from typing import Any

EDGES_HOURS = (0.0, 1 / 6, 1 / 3, 1 / 2, 5 / 6, 4 / 3, 13 / 6, 4.0, 8.0, 16.0)
"""Ages at which a bucket begins."""
OPEN_ENDS = (1.74, 1.68, 1.02, 0.57, 0.43, 0.31, 0.26, 0.24, 0.14, 0.05)
"""Ends an hour of open spells, by age."""
SHUT_ENDS = (1.55, 1.37, 0.87, 0.77, 0.43, 0.34, 0.19, 0.13, 0.11, 0.04)
"""Ends an hour of shut spells, by age."""
FACTORS = (0.4, 1.0, 2.0)
"""A zone's spells end at so many times the usual rate."""
PRIOR = (0.25, 0.5, 0.25)
FORGET_HOURS = 48.0
"""What was seen so long ago counts for 1/e: markets change."""


def bucket(age_hours: float) -> int:
    """Of an age."""
    return bisect.bisect_right(EDGES_HOURS, age_hours + 1e-9) - 1


def mean_lives(factor: float) -> list[float]:
    """Expected hours still to come of an open spell, by the bucket its age is in, from the bucket's beginning."""
    lives = [0.0] * len(EDGES_HOURS)
    lives[-1] = 1 / (OPEN_ENDS[-1] * factor)
    for at in range(len(EDGES_HOURS) - 2, -1, -1):
        rate = OPEN_ENDS[at] * factor
        width = EDGES_HOURS[at + 1] - EDGES_HOURS[at]
        passes = math.exp(-rate * width)
        lives[at] = (1 - passes) / rate + passes * lives[at + 1]
    return lives


LIVES = [mean_lives(factor) for factor in FACTORS]


class Spells:
    """One zone, or the whole of several: whether it is open, since when, and what is believed of its spells."""

    def __init__(self) -> None:
        self.open: bool | None = None
        self.since = 0.0
        """Hours; when it was first seen so, where it was not seen to turn."""
        self.seen = 0.0
        self.beliefs = {True: [math.log(share) for share in PRIOR], False: [math.log(share) for share in PRIOR]}
        """Log likelihood of every factor, for open and for shut spells."""

    def look(self, at_hours: float, is_open: bool) -> None:
        """Take in what is seen at a time."""
        if self.open is None:
            self.since = at_hours
        else:
            self._learn(at_hours - self.seen, is_open != self.open)
            if is_open != self.open:
                self.since = at_hours
        self.open = is_open
        self.seen = at_hours

    def age_hours(self) -> float:
        return self.seen - self.since

    def weights(self, is_open: bool) -> list[float]:
        """Of every factor, summing to 1."""
        logs = self.beliefs[is_open]
        top = max(logs)
        shares = [math.exp(log - top) for log in logs]
        total = sum(shares)
        return [share / total for share in shares]

    def life_hours(self) -> float:
        """Expected hours still to come of an open spell of this age."""
        at = bucket(self.age_hours() if self.open else 0.0)
        return sum(share * lives[at] for share, lives in zip(self.weights(True), LIVES, strict=True))

    def _learn(self, hours: float, ended: bool) -> None:
        if hours <= 0 or self.open is None:
            return
        rate = (OPEN_ENDS if self.open else SHUT_ENDS)[bucket(self.age_hours())]
        keep = math.exp(-hours / FORGET_HOURS)
        logs = self.beliefs[self.open]
        for at, factor in enumerate(FACTORS):
            passes = -rate * factor * hours
            chance = math.log(-math.expm1(passes)) if ended else passes
            prior = math.log(PRIOR[at])
            logs[at] = prior + keep * (logs[at] - prior) + chance

    def memory(self) -> dict[str, Any]:
        return {
            "open": self.open,
            "since": self.since,
            "seen": self.seen,
            "open_beliefs": self.beliefs[True],
            "shut_beliefs": self.beliefs[False],
        }

    @classmethod
    def remembered(cls, memory: dict[str, Any]) -> "Spells":
        found = cls()
        found.open, found.since, found.seen = memory["open"], memory["since"], memory["seen"]
        found.beliefs = {True: list(memory["open_beliefs"]), False: list(memory["shut_beliefs"])}
        return found
