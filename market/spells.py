"""How long zones stay open and shut: chances by age, learnt from what is seen. Pure.

Spells have heavy tails: most end within the hour, some last days, and the longer one has lasted the longer it goes on.
So the chance of an end is kept by age, for three kinds of zones each, and what is learnt of a zone is which kind it is.
The kinds are a mixture fitted to four-day windows of the recorded markets this was built on (docs/market.md), rounded.
"""

import bisect
import math
from collections.abc import Sequence
from typing import Any

EDGES_HOURS = (0.0, 1 / 6, 1 / 3, 1 / 2, 5 / 6, 4 / 3, 13 / 6, 4.0, 8.0, 16.0)
"""Ages at which a bucket begins."""
OPEN_ENDS = (
    (1.5, 1.0, 0.7, 0.7, 0.4, 0.2, 0.16, 0.06, 0.07, 0.06),
    (1.0, 1.3, 0.7, 0.7, 0.3, 0.4, 0.2, 0.2, 0.2, 0.05),
    (2.3, 2.3, 1.4, 1.1, 0.8, 0.6, 0.3, 0.25, 0.14, 0.05),
)
"""Ends an hour of open spells, by age: of zones that last, that end in the day, and that flutter."""
OPEN_PRIOR = (0.45, 0.25, 0.3)
SHUT_ENDS = (
    (0.9, 0.6, 0.6, 0.4, 0.45, 0.2, 0.2, 0.1, 0.06, 0.05),
    (1.35, 1.5, 0.7, 0.6, 0.4, 0.35, 0.26, 0.3, 0.2, 0.04),
    (3.0, 2.3, 2.3, 1.2, 0.8, 0.5, 0.25, 0.13, 0.1, 0.04),
)
"""Ends an hour of shut spells, by age: of zones that shut for long, for hours, and for a moment."""
SHUT_PRIOR = (0.2, 0.5, 0.3)
FORGET_HOURS = 48.0
"""What was seen so long ago counts for 1/e: markets change."""
SHARE_HOURS = 24.0
"""The same for how often a zone is open: what it does now says most about the hours to come."""
DOUBT_HOURS = 1.0
"""Of looking, that what is to be expected of its kinds counts for in that."""


def bucket(age_hours: float) -> int:
    """Of an age."""
    return bisect.bisect_right(EDGES_HOURS, age_hours + 1e-9) - 1


def mean_lives(rates: Sequence[float]) -> list[float]:
    """Expected hours still to come of an open spell, by the bucket its age is in, from the bucket's beginning."""
    lives = [0.0] * len(EDGES_HOURS)
    lives[-1] = 1 / rates[-1]
    for at in range(len(EDGES_HOURS) - 2, -1, -1):
        rate = rates[at]
        width = EDGES_HOURS[at + 1] - EDGES_HOURS[at]
        passes = math.exp(-rate * width)
        lives[at] = (1 - passes) / rate + passes * lives[at + 1]
    return lives


LIVES = [mean_lives(rates) for rates in OPEN_ENDS]


_PRIORS = {True: [math.log(share) for share in OPEN_PRIOR], False: [math.log(share) for share in SHUT_PRIOR]}


class Spells:
    """One zone, or the whole of several: whether it is open, since when, and what is believed of its spells."""

    def __init__(self) -> None:
        self.open: bool | None = None
        self.since = 0.0
        """Hours; when it was first seen so, where it was not seen to turn."""
        self.seen = 0.0
        self.beliefs = {True: list(_PRIORS[True]), False: list(_PRIORS[False])}
        """Log likelihood of every kind, by open and shut."""
        self.looked_hours = self.open_hours = 0.0
        """Watched, and seen open; older hours count less."""

    def look(self, at_hours: float, is_open: bool) -> None:
        """Take in what is seen at a time."""
        if self.open is None:
            self.since = at_hours
        else:
            hours = at_hours - self.seen
            self._learn(hours, is_open != self.open)
            keep = math.exp(-hours / SHARE_HOURS)
            self.looked_hours = self.looked_hours * keep + hours
            self.open_hours = self.open_hours * keep + (hours if self.open else 0.0)
            if is_open != self.open:
                self.since = at_hours
        self.open = is_open
        self.seen = at_hours

    def age_hours(self) -> float:
        return self.seen - self.since

    def weights(self, is_open: bool) -> list[float]:
        """Of every kind, summing to 1."""
        logs = self.beliefs[is_open]
        top = max(logs)
        shares = [math.exp(log - top) for log in logs]
        total = sum(shares)
        return [share / total for share in shares]

    def life_hours(self) -> float:
        """Expected hours still to come of an open spell of this age."""
        at = bucket(self.age_hours() if self.open else 0.0)
        return sum(share * lives[at] for share, lives in zip(self.weights(True), LIVES, strict=True))

    def ends(self, is_open: bool) -> tuple[float, ...]:
        """An hour, by age, over the kinds."""
        kinds = zip(self.weights(is_open), OPEN_ENDS if is_open else SHUT_ENDS, strict=True)
        rates = [[share * rate for rate in kind] for share, kind in kinds]
        return tuple(sum(column) for column in zip(*rates, strict=True))

    def open_share(self) -> float:
        """Of the time, as far as it can be told."""
        opens = mean_lives(self.ends(True))[0]
        shuts = mean_lives(self.ends(False))[0]
        return (DOUBT_HOURS * opens / (opens + shuts) + self.open_hours) / (DOUBT_HOURS + self.looked_hours)

    def _learn(self, hours: float, ended: bool) -> None:
        if hours <= 0 or self.open is None:
            return
        age = bucket(self.age_hours())
        keep = math.exp(-hours / FORGET_HOURS)
        logs, priors = self.beliefs[self.open], _PRIORS[self.open]
        for at, rates in enumerate(OPEN_ENDS if self.open else SHUT_ENDS):
            passes = -rates[age] * hours
            chance = math.log(-math.expm1(passes)) if ended else passes
            logs[at] = priors[at] + keep * (logs[at] - priors[at]) + chance

    def memory(self) -> dict[str, Any]:
        return {
            "open": self.open,
            "since": self.since,
            "seen": self.seen,
            "open_beliefs": self.beliefs[True],
            "shut_beliefs": self.beliefs[False],
            "looked_hours": self.looked_hours,
            "open_hours": self.open_hours,
        }

    @classmethod
    def remembered(cls, memory: dict[str, Any]) -> "Spells":
        found = cls()
        found.open, found.since, found.seen = memory["open"], memory["since"], memory["seen"]
        found.beliefs = {True: list(memory["open_beliefs"]), False: list(memory["shut_beliefs"])}
        found.looked_hours, found.open_hours = memory["looked_hours"], memory["open_hours"]
        return found
