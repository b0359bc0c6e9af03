"""Markets made up by the spells of market/spells.py, for plans where nothing is recorded. The same seed, the same
market."""

import random
from collections.abc import Sequence

from market.availability import Market, ZoneTrace
from market.chain import STEP
from market.spells import OPEN_ENDS, OPEN_PRIOR, SHUT_ENDS, SHUT_PRIOR, bucket

TICK_SECONDS = 600


def modelled(zones: Sequence[tuple[str, float]], *, on_demand_usd_per_hour: float, hours: float, seed: int) -> Market:
    """A market of these zones (name, spot price) over so many hours. Zones are independent of each other."""
    dice = random.Random(seed)
    ticks = int(hours * 3600 / TICK_SECONDS) + 1
    return Market(
        name=f"modelled, seed {seed}",
        tick_seconds=TICK_SECONDS,
        zones=[
            ZoneTrace(
                name=name,
                available=_spells(dice, ticks),
                usd_per_hour=[usd] * ticks,
                on_demand_usd_per_hour=on_demand_usd_per_hour,
            )
            for name, usd in zones
        ],
    )


def _spells(dice: random.Random, ticks: int) -> list[bool]:
    """One zone, from the middle of some spell on."""
    rates = {True: dice.choices(OPEN_ENDS, OPEN_PRIOR)[0], False: dice.choices(SHUT_ENDS, SHUT_PRIOR)[0]}
    is_open, age = dice.random() < 0.7, 4.0 * dice.random()
    found = []
    for _ in range(ticks):
        found.append(is_open)
        ends = rates[is_open][bucket(age)] * STEP
        age += STEP
        if dice.random() < ends:
            is_open, age = not is_open, 0.0
    return found
