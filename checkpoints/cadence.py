"""How often to save. Pure: it is told what saves cost and how long machines live."""

import math
from collections.abc import Sequence

from checkpoints.config import CheckpointConfig

_QUIET = 2.0
"""Times the duration of a save: the store is idle at least half of the time."""


def expected_life(prior_seconds: float, lives: Sequence[float], ended: int) -> float:
    """The mean life of a machine: what was expected, weighing as much as one machine, and what was seen.

    `lives` are seconds of every attempt's machine so far, this one's too; `ended` of them were taken away. With
    lives that are exponential and an exponential's usual prior this is the posterior's own mean rate, inverted.
    """
    return (prior_seconds + sum(lives)) / (1 + ended)


class Cadence:
    """The time between saves by Young and Daly: sqrt(2 * cost * life), where the cost is what training waits.

    >>> cadence = Cadence(CheckpointConfig(), life_seconds=7200)
    >>> cadence.seconds                      # nothing is known of the cost yet: the floor
    60.0
    >>> cadence.learn(stall_seconds=1.0, seconds=20.0)
    >>> round(cadence.seconds)               # sqrt(2 * 1 * 7200)
    120
    >>> cadence.learn(stall_seconds=1.0, seconds=100.0)
    >>> cadence.seconds                      # a save takes 100 s to be durable: not more often than every 200
    200.0
    """

    def __init__(self, config: CheckpointConfig, life_seconds: float) -> None:
        self.config = config
        self.life_seconds = life_seconds
        self._stall_seconds = 0.0
        self._save_seconds = 0.0

    def learn(self, *, stall_seconds: float, seconds: float) -> None:
        """What the last save cost: how long training waited, and how long it took to be committed."""
        self._stall_seconds, self._save_seconds = stall_seconds, seconds

    @property
    def seconds(self) -> float:
        """Between the beginnings of two saves."""
        if self.config.every_seconds:
            return self.config.every_seconds
        best = math.sqrt(2 * self._stall_seconds * self.life_seconds)
        low = max(self.config.floor_seconds, _QUIET * self._save_seconds)
        return max(low, min(best, self.config.ceiling_seconds))

    def __str__(self) -> str:
        if self.config.every_seconds:
            return f"saves every {self.seconds:g} s, as the recipe says"
        if not self._save_seconds:
            return f"the first save after {self.seconds:g} s; what it costs decides on the next"
        return (
            f"saves every {self.seconds:.0f} s: training waits {self._stall_seconds:.2f} s for one, it takes "
            f"{self._save_seconds:.0f} s to be committed, and a machine is expected to last "
            f"{self.life_seconds / 60:.0f} min"
        )
