"""What time left over is worth: the least expected dollars to the end, by dynamic programming. Pure; needs numpy.

The state: how open or shut the market is and for how long (market/spells.py), the machine held, the time to the
deadline, and the spare time in it. Every combination of kinds of zones is solved at once; whoever asks weighs them
by what it believes. Prices are those of the moment the table was made.
"""

import functools
from typing import TYPE_CHECKING, Any

import msgspec

from market.spells import EDGES_HOURS, OPEN_ENDS, SHUT_ENDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[Any]

STEP = 1 / 6
"""Hours of a step of the programme."""
KEPT = 3
"""Steps between two tables that are kept."""
AGES = len(EDGES_HOURS)
NONE, SPOT, DEMAND = range(3)
FAR = 1e6
"""Hours on demand, as the price of what must not be done."""
ELSEWHERE = [min(age, 4) for age in range(AGES)]
"""By age bucket of a zone that shuts, that of another which is open then: no older, or it would have been in use."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a table is made for. Hours are rounded by whoever asks, so that tables are used again."""

    horizon_hours: float
    spare_hours: float
    """At most."""
    spot_restart_hours: float
    """With what is done again after a preemption."""
    demand_restart_hours: float
    spot_usd: float
    """An hour, in units of the next."""
    demand_usd: float = 1.0
    other_open: float = 0.0
    """Chance that another zone is open when one shuts."""


@functools.lru_cache(maxsize=24)
def table(question: Question) -> "Table":
    """The table, made once."""
    return Table(question)


class Table:
    """Expected dollars by steps to the deadline."""

    def __init__(self, question: Question) -> None:
        import numpy as np

        self.question = question
        spare = np.concatenate([np.arange(0, 2, 0.1), np.arange(2, 6, 0.25), np.arange(6, 14), np.arange(14, 800, 3.0)])
        self.spare = spare[: int(np.searchsorted(spare, question.spare_hours + STEP)) + 2]
        self.spare_list: list[float] = self.spare.tolist()
        self.stays, self.ends = _chances()
        hours = (STEP, question.spot_restart_hours, question.demand_restart_hours)
        self.less = [_less(self.spare, each) for each in hours]
        self.none_left = [np.where(self.spare < each - 1e-9, FAR, 0.0) for each in hours]
        kinds = len(OPEN_ENDS) * len(SHUT_ENDS)
        values = np.zeros((kinds, 2 * AGES, 3, len(self.spare)))
        self.kept: list[Values] = []
        """Expected values with 0, KEPT, 2 KEPT, ... steps to the deadline."""
        steps = int(np.ceil(question.horizon_hours / STEP / KEPT)) * KEPT
        for step in range(1, steps + 1):
            expected = self._expected(values)
            if (step - 1) % KEPT == 0:
                self.kept.append(expected.astype(np.float32))
            values = self._before(expected, step)

    def after(self, shares: "Values", open_now: bool, age: int, machine: int, left_hours: float, spare: float) -> float:
        """Expected dollars from the next step on, when `machine` was held in this one and `spare` is left after it.
        `shares` are of the combined kinds; `left_hours` is to the deadline, after this step.
        """
        at = age if open_now else AGES + age
        kept = self.kept[min(len(self.kept) - 1, max(0, round(left_hours / STEP / KEPT)))]
        low, share = self._between(spare)
        here = kept[:, at, machine]
        return float(shares @ (here[:, low] * (1 - share) + here[:, low + 1] * share))

    def _between(self, spare: float) -> tuple[int, float]:
        import bisect

        grid = self.spare_list
        at = min(max(bisect.bisect_right(grid, spare) - 1, 0), len(grid) - 2)
        return at, min(1.0, max(0.0, (spare - grid[at]) / (grid[at + 1] - grid[at])))

    def _expected(self, values: "Values") -> "Values":
        """Over what the market does in a step; by state before it and machine held in it."""
        import numpy as np

        other = self.question.other_open
        turned = (1 - other) * values[:, AGES : AGES + 1] + other * values[:, ELSEWHERE]
        opened = values[:, 0]
        flat = values.reshape(*values.shape[:2], -1)
        expected = (self.stays @ flat).reshape(values.shape)
        ends = self.ends[:, :, None]
        for machine in (NONE, SPOT, DEMAND):
            lost = NONE if machine == SPOT else machine
            expected[:, :AGES, machine] += ends[:, :AGES] * turned[:, :, lost]
            expected[:, AGES:, machine] += ends[:, AGES:] * opened[:, None, lost]
        expected[:, AGES:, SPOT] = FAR
        return np.asarray(expected)

    def _before(self, expected: "Values", step: int) -> "Values":
        """Values with `step` steps to the deadline, from what is expected after the first of them."""
        import numpy as np

        ask = self.question
        unsafe = self.spare < ask.demand_restart_hours - 1e-9
        expected[:, :, :DEMAND, unsafe] = FAR
        wait, spot, demand = (
            expected[:, :, machine] @ self.less[machine] + self.none_left[machine] for machine in (NONE, SPOT, DEMAND)
        )
        spot += ask.spot_usd * STEP
        demand += ask.demand_usd * STEP
        before = np.empty_like(expected)
        anew = np.minimum(np.minimum(wait, spot), demand)
        before[:, :, NONE] = anew
        before[:, :, SPOT] = np.minimum(anew, ask.spot_usd * STEP + expected[:, :, SPOT])
        before[:, :, DEMAND] = np.minimum(anew, ask.demand_usd * STEP + expected[:, :, DEMAND])
        before[:, :, :, self.spare >= step * STEP - 1e-9] = 0.0
        return before


def _less(spare: "Values", hours: float) -> "Values":
    """The matrix that takes values by spare time to those with so much less of it."""
    import numpy as np

    at = spare - hours
    low = np.clip(np.searchsorted(spare, at, side="right") - 1, 0, len(spare) - 2)
    share = np.clip((at - spare[low]) / (spare[low + 1] - spare[low]), 0, 1)
    columns = np.arange(len(spare))
    found = np.zeros((len(spare), len(spare)))
    found[low, columns] += 1 - share
    found[low + 1, columns] += share
    return found


@functools.cache
def _chances() -> "tuple[Values, Values]":
    """By combined kind (open first) and state: moving on in age or staying, as a matrix; and the spell's end."""
    import numpy as np

    kinds = [(open_ends, shut_ends) for open_ends in OPEN_ENDS for shut_ends in SHUT_ENDS]
    stays = np.zeros((len(kinds), 2 * AGES, 2 * AGES))
    ends = np.zeros((len(kinds), 2 * AGES))
    for kind, halves in enumerate(kinds):
        for half, rates in enumerate(halves):
            for age, rate in enumerate(rates):
                at = half * AGES + age
                end = -np.expm1(-rate * STEP)
                older = 0.0
                if age + 1 < AGES:
                    older = min(1.0, STEP / (EDGES_HOURS[age + 1] - EDGES_HOURS[age]))
                    stays[kind, at, at + 1] = (1 - end) * older
                stays[kind, at, at] = (1 - end) * (1 - older)
                ends[kind, at] = end
    return stays, ends
