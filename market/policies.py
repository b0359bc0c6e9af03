"""Policies by the name a person types. Pure."""

from collections.abc import Callable

from market.baselines import BASELINES
from market.errors import MarketError
from market.least_cost import LeastCost
from market.policy import Policy

OURS = "vlaunch"
BY_NAME: dict[str, Callable[[], Policy]] = {OURS: LeastCost, **BASELINES}


def named(name: str) -> Policy:
    """A new policy of that name. Raises MarketError."""
    if name not in BY_NAME:
        raise MarketError(f"There is no policy '{name}'; there are {', '.join(BY_NAME)}.")
    return BY_NAME[name]()
