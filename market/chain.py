"""What a zone does in a step, as a matrix over its states: open or shut, and for how long. Pure; needs numpy."""

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from market.spells import EDGES_HOURS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[Any]

STEP = 1 / 6
"""Hours of a step."""
WIDTHS = [later - edge for edge, later in itertools.pairwise(EDGES_HOURS)]
"""Hours, of every bucket of ages but the last."""
FINE = tuple(range(len(EDGES_HOURS)))


class Belief(msgspec.Struct, frozen=True, kw_only=True):
    """What is believed of a zone."""

    usd_per_hour: float
    open_ends: tuple[float, ...]
    """An hour, of its open spells, by age."""
    shut_ends: tuple[float, ...]


def steps(zone: Belief, ages: Sequence[int]) -> "Values":
    """Chances of every state after a step, by the state before it. `ages` are the buckets at which a state begins, of
    open spells and, after them, of shut ones."""
    import numpy as np

    count = len(ages)
    found = np.zeros((2 * count, 2 * count))
    for here, there, ends in ((0, count, zone.open_ends), (count, 0, zone.shut_ends)):
        for at, (ended, older) in enumerate(_moves(ends, ages)):
            found[here + at, here + at] = 1 - ended - older
            found[here + at, there] = ended
            if older:
                found[here + at, here + at + 1] = older
    return found


def _moves(ends: Sequence[float], ages: Sequence[int]) -> list[tuple[float, float]]:
    """Chances, in a step, of a spell in every state to end and to grow into the next: those of its buckets, by the
    time that spells spend in them."""
    hours, left, comes = [], [], 1.0
    for rate, width in zip(ends, [*WIDTHS, math.inf], strict=True):
        passes = comes * math.exp(-rate * width)
        hours.append((comes - passes) / rate)
        left.append(passes)
        comes = passes
    found = []
    for first, after in itertools.pairwise([*ages, len(ends)]):
        spent = sum(hours[first:after])
        rate = sum(ends[at] * hours[at] for at in range(first, after)) / spent
        ended = -math.expm1(-rate * STEP)
        found.append((ended, min(1 - ended, left[after - 1] / spent * STEP)))
    return found
