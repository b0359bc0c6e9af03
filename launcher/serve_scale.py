"""How many replicas a model should have, by what its gateway has to do. Pure; the time is an argument.

An example, one to three replicas, two requests for each, up after 10 s, down after 60 s:
    t=0   5 requests   one replica, three would be right; maybe it passes
    t=5   3 requests   still more than one can do
    t=10  6 requests   for 10 s at least two were right: two
    t=11  6 requests   three would be right; counted anew
    t=20  1 request    one would be right; so it must be for 60 s
"""

import math


class Scaling:
    """The number of replicas of one model."""

    def __init__(self, least: int, most: int, requests_each: float, up_seconds: float, down_seconds: float) -> None:
        self.least = least
        self.most = most
        self.requests_each = requests_each
        """Under way or waiting, that one replica is to have."""
        self.up_seconds = up_seconds
        self.down_seconds = down_seconds
        self._direction = 0
        self._since = 0.0
        self._right = least
        """Of the numbers that were right since then, the one nearest to what there is."""

    def choose(self, now: float, requests: int, have: int) -> int:
        """How many there should be, where `have` are and `requests` are under way or waiting."""
        right = min(self.most, max(self.least, math.ceil(requests / self.requests_each)))
        direction = (right > have) - (right < have)
        if direction != self._direction:
            self._direction, self._since, self._right = direction, now, right
        self._right = min(self._right, right) if direction > 0 else max(self._right, right)
        if now - self._since < (self.up_seconds if direction > 0 else self.down_seconds):
            return have
        self._direction = 0
        return self._right if direction else have
