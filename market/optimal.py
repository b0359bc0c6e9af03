"""The least a job could have cost in a recorded market by someone who knew it all: exact, by dynamic programming over
(tick, machine held, work left). Pure; needs numpy.

The rules are those of market/replay.py, with nothing lost to preemptions: whoever knows them commits just before.
A machine that is started is kept at least until its overhead is spent, because giving it up earlier is paying for
nothing; so a start leads from one tick straight to the tick in which the machine is warm, and machines that still
start need no states of their own. Work is counted in the greatest unit that divides tick, overhead and work.
Values are kept only for work that can have been left at a tick and can still be done by the deadline.
"""

import math
from typing import TYPE_CHECKING, Any

from market.availability import Market
from market.errors import MarketError
from market.replay import HOUR, Job

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[Any]


def usd_optimal(market: Market, job: Job) -> float:
    """Dollars; infinite where not even on demand is in time. Raises MarketError where numpy is not installed."""
    try:
        import numpy  # noqa: F401
    except ImportError:
        raise MarketError(
            "The exact optimum needs numpy, which is not installed: pip install 'vlaunch[market]'."
        ) from None
    return _Programme(market, job).solve()


class _Programme:
    """Values are arrays: index, units of work left; entry, the least dollars from a tick on."""

    def __init__(self, market: Market, job: Job) -> None:
        tick_seconds = market.tick_seconds
        unit = math.gcd(tick_seconds, job.restart_seconds, job.work_seconds)
        restart = job.restart_seconds // unit
        self.tick = tick_seconds // unit
        self.work = job.work_seconds // unit
        self.warm_after = max(1, -(-restart // self.tick))
        """Ticks from a start to the first tick in which the machine works throughout."""
        self.gained = self.warm_after * self.tick - restart
        """Work done in those ticks."""
        self.last, rest = divmod(job.deadline_seconds, tick_seconds)
        """The tick that the deadline cuts."""
        self.last_units = rest // unit
        hours = tick_seconds / HOUR
        ticks = slice(job.start_tick, job.start_tick + self.last + 1)
        self.usd = [[usd * hours for usd in zone.usd_per_hour[ticks]] for zone in market.zones]
        self.usd.append([market.on_demand_usd_per_hour * hours] * (self.last + 1))
        self.lives = [_lives(zone.available[ticks]) for zone in market.zones]
        self.lives.append([self.last + 1] * (self.last + 1))

    def solve(self) -> float:
        import numpy as np

        done = np.zeros(1)
        free = done
        """With no machine, from the next tick on."""
        warm = [[done] * self.warm_after for _ in self.usd]
        """By machine: holding it warm, from the next tick on, from the one after, ..."""
        for at in range(self.last, -1, -1):
            low = max(1, self.work - at * self.tick)
            high = min(self.work, (self.last - at) * self.tick + self.last_units)
            now = np.full(high + 1, np.inf)
            now[0] = 0.0
            kept = min(high, len(free) - 1) + 1
            now[low:kept] = free[low:kept]
            for machine, ahead in enumerate(warm):
                if at < len(self.lives[machine]) and self.lives[machine][at] >= self.warm_after:
                    self._start(now, ahead[-1], machine, at, low)
            for machine, ahead in enumerate(warm):
                there = at < len(self.lives[machine]) and self.lives[machine][at]
                holding = self._hold(now, ahead[0], machine, at, low) if there else now
                ahead.insert(0, holding)
                ahead.pop()
            free = now
        return float(free[self.work]) if len(free) > self.work else math.inf

    def _start(self, now: "Values", warm: "Values", machine: int, at: int, low: int) -> None:
        """Lower `now` by starting the machine at this tick; `warm` is from the tick in which it is warm."""
        ends = at + self.warm_after - 1
        if ends > self.last:
            return
        usd = sum(self.usd[machine][at : ends + 1])
        if ends == self.last:
            _lower(now, low, self.gained - (self.tick - self.last_units), usd)
            return
        _lower(now, low, self.gained, usd)
        _lower_by(now, max(low, self.gained + 1), warm, self.gained, usd)

    def _hold(self, now: "Values", warm: "Values", machine: int, at: int, low: int) -> "Values":
        """Keep the machine for this tick, or give it up."""
        held = now.copy()
        usd = self.usd[machine][at]
        _lower(held, low, self.last_units if at == self.last else self.tick, usd)
        if at < self.last:
            _lower_by(held, max(low, self.tick + 1), warm, self.tick, usd)
        return held


def _lives(available: list[bool]) -> list[int]:
    """For every tick, how many ticks from it on a machine lives."""
    lives = [0] * len(available)
    life = 0
    for at in range(len(available) - 1, -1, -1):
        life = life + 1 if available[at] else 0
        lives[at] = life
    return lives


def _lower(values: "Values", low: int, high: int, usd: float) -> None:
    """values[low..high] = min(values, usd)"""
    import numpy as np

    if high >= low:
        part = values[low : high + 1]
        np.minimum(part, usd, out=part)


def _lower_by(values: "Values", low: int, source: "Values", shift: int, usd: float) -> None:
    """values[i] = min(values[i], usd + source[i - shift]) for i >= low, as far as both reach"""
    import numpy as np

    high = min(len(values), len(source) + shift)
    if high > low:
        part = values[low:high]
        np.minimum(part, source[low - shift : high - shift] + usd, out=part)
