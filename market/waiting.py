"""What time left over is worth: the least expected dollars to the end, by dynamic programming. Pure; needs numpy.

The state: for every zone whether it is open and for how long (market/chain.py), the machine held, the time to the
deadline, and the spare time in it. Zones are taken to be independent; the more there are, the coarser are their ages.
Prices and beliefs are those of the moment the table was made.
"""

import bisect
import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from market.chain import FINE, STEP, Belief, steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[Any]

KEPT = 3
"""Steps between two tables that are kept, far from the end."""
NEAR = 12 * KEPT
"""Steps to the deadline up to which all are."""
USED = 0.65
"""Tables are kept from so much of the horizon on: later ones come from a new table."""
AGES = {1: FINE, 2: (0, 1, 3, 5, 8), 3: (0, 4)}
"""Buckets at which the ages of a state begin, by the number of zones: coarse ones cost little, unknown zones much."""
MOST = max(AGES)
"""Zones that a table can hold."""
FAR = 1e6
"""Hours on demand, as the price of what must not be done."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a table is made for. Dollars are in units of an hour on demand."""

    zones: tuple[Belief, ...]
    """One to `MOST`."""
    horizon_hours: float
    spare_hours: float
    """At most."""
    spot_restart_hours: float
    """With what is done again after a preemption."""
    demand_restart_hours: float


@functools.lru_cache(maxsize=8)
def table(question: Question) -> "Table":
    """The table, made once."""
    return Table(question)


class Table:
    """Expected dollars by steps to the deadline. Machines are the zones' indices, NONE and DEMAND."""

    def __init__(self, question: Question) -> None:
        import numpy as np

        self.zones = len(question.zones)
        self.ages = AGES[self.zones]
        self.none, self.demand = self.zones, self.zones + 1
        """As machines, after the spot machines of the zones."""
        spare = np.concatenate([np.arange(0, 2, 0.1), np.arange(2, 6, 0.25), np.arange(6, 14), np.arange(14, 800, 3.0)])
        self.spare = spare[: int(np.searchsorted(spare, question.spare_hours + STEP)) + 2]
        self.spare_list: list[float] = self.spare.tolist()
        hours = (STEP, question.spot_restart_hours, question.demand_restart_hours)
        self.less = [_less(self.spare, each) for each in hours]
        self.none_left = [np.where(self.spare < each - 1e-9, FAR, 0.0).astype(np.float32)[:, None] for each in hours]
        self.unsafe = int(np.searchsorted(self.spare, question.demand_restart_hours - 1e-9))
        """Entries of `spare` from which on demand would be late."""
        kinds = 2 * len(self.ages)
        self.strides = [kinds ** (self.zones - 1 - at) for at in range(self.zones)]
        states = np.arange(kinds**self.zones)
        self.shut = np.stack([states // stride % kinds >= len(self.ages) for stride in self.strides])[:, None, :]
        """By zone and state."""
        usd = np.array([zone.usd_per_hour for zone in question.zones])[:, None, None]
        self.usd = np.where(self.shut, FAR, usd * STEP).astype(np.float32)
        chances = [steps(zone, self.ages).astype(np.float32) for zone in question.zones]
        half = self.zones // 2
        self.first, self.second = _together(chances[:half]), _together(chances[half:])
        self.kept: dict[int, Values] = {}
        """Expected values by steps to the deadline: by machine, spare time and state."""
        self._solve(question.horizon_hours)

    def _solve(self, horizon_hours: float) -> None:
        import numpy as np

        values = np.zeros((self.zones + 2, len(self.spare), self.shut.shape[-1]), np.float32)
        last = math.ceil(horizon_hours / STEP) + 2
        for step in range(1, last):
            expected = self._expected(values)
            if step <= NEAR or ((step - 1) % KEPT == 0 and step > USED * last):
                self.kept[step - 1] = expected.copy()
            values = self._before(expected, step)
        self.last = max(self.kept)

    def state(self, zones: Sequence[tuple[bool, int]]) -> int:
        """Of every zone, whether it is open and its age's bucket."""
        kinds = [bisect.bisect_right(self.ages, age) - 1 + (0 if is_open else len(self.ages)) for is_open, age in zones]
        return sum(kind * stride for kind, stride in zip(kinds, self.strides, strict=True))

    def after(self, state: int, machine: int, left_hours: float, spare: float) -> float:
        """Expected dollars from the next step on, when `machine` was held in this one and `spare` is left after it.
        `left_hours` is to the deadline, after this step.
        """
        if left_hours <= spare + 1e-9:
            return 0.0
        at_step = math.ceil(left_hours / STEP - 1e-6)  # up, so that work which is left never looks done
        if at_step >= NEAR:
            at_step = round(at_step / KEPT) * KEPT
        here = self.kept[min(self.last, max(0, at_step))][machine, :, state]
        grid = self.spare_list
        at = min(max(bisect.bisect_right(grid, spare) - 1, 0), len(grid) - 2)
        share = min(1.0, max(0.0, (spare - grid[at]) / (grid[at + 1] - grid[at])))
        return float(here[at] * (1 - share) + here[at + 1] * share)

    def _expected(self, values: "Values") -> "Values":
        """Over what the market does in a step; by machine held in it and state before it."""
        import numpy as np

        spot = values[: self.zones]
        np.copyto(spot, values[self.none], where=self.shut)  # a machine ends with its zone
        first, second = len(self.first), len(self.second)
        expected: Values = values.reshape(-1, second) @ self.second.T
        if first > 1:
            expected = np.matmul(self.first, expected.reshape(-1, first, second))
        expected = expected.reshape(values.shape)
        np.copyto(expected[: self.zones], FAR, where=self.shut)
        return expected

    def _before(self, expected: "Values", step: int) -> "Values":
        """Values with `step` steps to the deadline, from what is expected after the first of them."""
        import numpy as np

        expected[: self.demand, : self.unsafe] = FAR
        wait, spot, demand = (
            less @ part + none_left
            for less, none_left, part in zip(
                self.less, self.none_left,
                (expected[self.none], expected[: self.zones], expected[self.demand]), strict=True,
            )
        )  # fmt: skip
        spot += self.usd
        demand += np.float32(STEP)
        anew = np.minimum(np.minimum(wait, demand), spot.min(axis=0) if self.zones > 1 else spot[0])
        before = expected
        before[: self.zones] += self.usd
        before[self.none] = anew
        before[self.demand] += np.float32(STEP)
        np.minimum(before, anew, out=before)
        before[:, bisect.bisect_left(self.spare_list, step * STEP - 1e-9) :] = 0.0
        return before


def _together(chances: Sequence["Values"]) -> "Values":
    """Of independent zones."""
    import numpy as np

    return functools.reduce(np.kron, chances, np.ones((1, 1), np.float32))


def _less(spare: "Values", hours: float) -> "Values":
    """The matrix that takes values by spare time to those with so much less of it."""
    import numpy as np

    at = spare - hours
    low = np.clip(np.searchsorted(spare, at, side="right") - 1, 0, len(spare) - 2)
    share = np.clip((at - spare[low]) / (spare[low + 1] - spare[low]), 0, 1)
    rows = np.arange(len(spare))
    found = np.zeros((len(spare), len(spare)), np.float32)
    found[rows, low] += 1 - share
    found[rows, low + 1] += share
    return found
