"""What time left over is worth: the least expected dollars to the end, by dynamic programming. Pure; needs numpy.

The state: the best open zone and for how long it has been open, or for how long all have been shut (market/chain.py),
the machine held, the time to the deadline, and the spare time in it. Prices and beliefs are those of the moment the
table was made.
"""

import bisect
import functools
import math
from typing import TYPE_CHECKING, Any

import msgspec

from market.chain import STEP, Belief, Chain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[Any]

KEPT = 3
"""Steps between two tables that are kept, far from the end."""
NEAR = 12 * KEPT
"""Steps to the deadline up to which all are."""
NONE, SPOT, DEMAND = range(3)
FAR = 1e6
"""Hours on demand, as the price of what must not be done."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a table is made for. Dollars are in units of an hour on demand."""

    zones: tuple[Belief, ...]
    shut_ends: tuple[float, ...]
    """An hour, of times when all are shut, by age."""
    horizon_hours: float
    spare_hours: float
    """At most."""
    spot_restart_hours: float
    """With what is done again after a preemption."""
    demand_restart_hours: float


@functools.lru_cache(maxsize=24)
def table(question: Question) -> "Table":
    """The table, made once."""
    return Table(question)


class Table:
    """Expected dollars by steps to the deadline."""

    def __init__(self, question: Question) -> None:
        import numpy as np

        self.chain = Chain(question.zones, question.shut_ends, question.spot_restart_hours)
        spare = np.concatenate([np.arange(0, 2, 0.1), np.arange(2, 6, 0.25), np.arange(6, 14), np.arange(14, 800, 3.0)])
        self.spare = spare[: int(np.searchsorted(spare, question.spare_hours + STEP)) + 2]
        self.spare_list: list[float] = self.spare.tolist()
        hours = (STEP, question.spot_restart_hours, question.demand_restart_hours)
        self.less = [_less(self.spare, each) for each in hours]
        self.none_left = [np.where(self.spare < each - 1e-9, FAR, 0.0).astype(np.float32) for each in hours]
        self.unsafe = int(np.searchsorted(self.spare, question.demand_restart_hours - 1e-9))
        """Entries of `spare` from which on demand would be late."""
        usd = np.full(self.chain.states, FAR)
        usd[: self.chain.shut] = np.repeat([zone.usd_per_hour for zone in question.zones], len(question.shut_ends))
        self.usd = (usd[:, None] * STEP).astype(np.float32)
        self.steps = [part.astype(np.float32) for part in (self.chain.free, self.chain.stays, self.chain.ends)]
        values = np.zeros((3, self.chain.states, len(self.spare)), np.float32)
        self.kept: dict[int, Values] = {}
        """Expected values by steps to the deadline."""
        for step in range(1, math.ceil(question.horizon_hours / STEP) + 2):
            expected = self._expected(values)
            if step <= NEAR or (step - 1) % KEPT == 0:
                self.kept[step - 1] = expected.copy()
            values = self._before(expected, step)
        self.last = max(self.kept)

    def after(self, state: int, machine: int, left_hours: float, spare: float) -> float:
        """Expected dollars from the next step on, when `machine` was held in this one and `spare` is left after it.
        `left_hours` is to the deadline, after this step.
        """
        if left_hours <= spare + 1e-9:
            return 0.0
        steps = math.ceil(left_hours / STEP - 1e-6)  # up, so that work which is left never looks done
        if steps >= NEAR:
            steps = round(steps / KEPT) * KEPT
        here = self.kept[min(self.last, max(0, steps))][machine, state]
        grid = self.spare_list
        at = min(max(bisect.bisect_right(grid, spare) - 1, 0), len(grid) - 2)
        share = min(1.0, max(0.0, (spare - grid[at]) / (grid[at + 1] - grid[at])))
        return float(here[at] * (1 - share) + here[at + 1] * share)

    def _expected(self, values: "Values") -> "Values":
        """Over what the market does in a step; by machine held in it and state before it."""
        import numpy as np

        free, stays, ends = self.steps
        expected = np.empty_like(values)
        expected[NONE] = free @ values[NONE]
        expected[SPOT] = stays @ values[SPOT] + ends @ values[NONE]
        expected[DEMAND] = free @ values[DEMAND]
        expected[SPOT, self.chain.shut :] = FAR
        return expected

    def _before(self, expected: "Values", step: int) -> "Values":
        """Values with `step` steps to the deadline, from what is expected after the first of them."""
        import numpy as np

        expected[:DEMAND, :, : self.unsafe] = FAR
        wait, spot, demand = (expected[at] @ self.less[at] + self.none_left[at] for at in (NONE, SPOT, DEMAND))
        spot += self.usd
        demand += np.float32(STEP)
        anew = np.minimum(np.minimum(wait, spot), demand)
        before = np.empty_like(expected)
        before[NONE] = anew
        np.minimum(anew, self.usd + expected[SPOT], out=before[SPOT])
        np.minimum(anew, expected[DEMAND] + np.float32(STEP), out=before[DEMAND])
        before[:, :, bisect.bisect_left(self.spare_list, step * STEP - 1e-9) :] = 0.0
        return before


def _less(spare: "Values", hours: float) -> "Values":
    """The matrix that takes values by spare time to those with so much less of it."""
    import numpy as np

    at = spare - hours
    low = np.clip(np.searchsorted(spare, at, side="right") - 1, 0, len(spare) - 2)
    share = np.clip((at - spare[low]) / (spare[low + 1] - spare[low]), 0, 1)
    columns = np.arange(len(spare))
    found = np.zeros((len(spare), len(spare)), np.float32)
    found[low, columns] += 1 - share
    found[low + 1, columns] += share
    return found
