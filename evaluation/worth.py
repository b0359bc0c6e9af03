"""A training run's score beside its dollars: the row that `score` and the page show. Pure; whoever knows the dollars
fills them in.
"""

import msgspec


class RunWorth(msgspec.Struct, frozen=True, kw_only=True):
    """One training run in one comparison."""

    run_id: str
    name: str
    against: str
    mean_score: float | None
    """Points a question."""
    ratio: float | None
    """Its points over those of the model it is compared with."""
    usd_trained: float | None
    """Null where the ledger does not know."""
    usd_judged: float | None
    """The reviews of this comparison."""
    price_source: str
    """Of the training."""
    simulated: bool
