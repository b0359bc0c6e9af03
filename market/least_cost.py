"""vlaunch's own policy. Pure."""

from market.baselines import Slack


class LeastCost(Slack):
    """For now the slack rule on the cheapest open zone."""
