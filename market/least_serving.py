"""The least dollars for which N replicas can have been ready for a wanted share of a recorded market, all of it known
beforehand: what no serving policy can be under. Pure.

An hour with any replica missing is given a price. At a price the least that N cost is N times what one costs that pays
an Nth of it: an hour with some missing is at least the mean of what each misses, and all moving together reach that.
Dollars at a price, less the price of what may be missed, bound what is sought from below; the best price gives the
bound.
"""

import math

import numpy as np
from numpy.typing import NDArray

from market.availability import Market
from market.replay import HOUR

PRICES = 24
"""Looked at, by golden section."""
GOLDEN = (math.sqrt(5) - 1) / 2


def usd_least(market: Market, *, replicas: int, cold_start_seconds: float, availability: float) -> float:
    """Of any policy that has so many ready for that share of the record."""
    tick = market.tick_seconds / HOUR
    wait = math.ceil(cold_start_seconds / market.tick_seconds)
    bills = tick * np.array(
        [np.where(zone.available, zone.usd_per_hour, math.inf) for zone in market.zones]
        + [np.full(market.ticks, market.on_demand_usd_per_hour)]
    )
    # To serve in a tick a replica was billed while it started; with a tick less it is ready within the tick.
    ready, late = _before(bills, wait), _before(bills, wait - 1)
    late_hours = cold_start_seconds / HOUR - (wait - 1) * tick
    allowed = (1 - availability) * tick * market.ticks

    def bound(log_price: float) -> float:
        price = math.exp(log_price)
        start = np.minimum(ready, late + price * late_hours)
        return replicas * (_least(bills.T, start.T, price * tick) - price * allowed)

    low, high = (math.log(factor * market.on_demand_usd_per_hour) for factor in (1e-3, 1e3))
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = bound(left), bound(right)
    for _ in range(PRICES):
        if at_left < at_right:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = bound(right)
        else:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = bound(left)
    return max(0.0, at_left, at_right)


def _least(bills: NDArray[np.float64], start: NDArray[np.float64], missing: float) -> float:
    """Dollars of one replica, what it misses at its price among them. By tick and zone: `bills` while it serves,
    `start` before it can. `missing` is the price of a tick without one."""
    serving, nothing = np.zeros(bills.shape[1]), 0.0
    for bill, before in zip(bills[::-1], start[::-1], strict=True):
        stay = bill + serving
        nothing = min(missing + nothing, float((before + stay).min()))
        serving = np.minimum(stay, nothing)
    return nothing


def _before(bills: NDArray[np.float64], ticks: int) -> NDArray[np.float64]:
    """The sum of so many ticks before each; infinite where the record does not have them."""
    total = np.zeros(bills.shape)
    for back in range(1, ticks + 1):
        total[:, back:] += bills[:, :-back]
        total[:, :back] = math.inf
    return total
