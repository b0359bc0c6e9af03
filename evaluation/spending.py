"""What judging costs: prices of judges, the estimate before, and the purse that a budget is kept with. An endpoint is
asked nowhere here.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec

from evaluation.endpoint import Message, Parameters
from evaluation.errors import EvaluationError
from evaluation.records import Price, Usage

PRICES = Path(__file__).parent / "judge_prices.toml"
_WORDS_ABOUT = 32
"""Tokens an endpoint may add around a message."""
_REVIEW_TOKENS = (100, 400)
"""How long reviews are; the published ones have about 80 to 400."""


class BudgetReached(EvaluationError):
    """The next call could cost more than is left."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What is still to be asked. Tokens are ranges; dollars are null where the price is not known."""

    calls: int
    input_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    usd: tuple[float, float] | None
    usd_at_most: float | None
    price_source: str


def price_of(model: str) -> Price | None:
    """From the dated table in this package; None where it does not know the model."""
    table = msgspec.toml.decode(PRICES.read_bytes(), type=dict[str, Price])
    return table.get(model)


def estimate(requests: Sequence[list[Message]], parameters: Parameters, price: Price | None) -> Estimate:
    """What asking these will cost: 3 to 5 characters a token, reviews as long as published ones are."""
    characters = sum(len(message["content"]) for request in requests for message in request)
    read = (characters // 5, characters // 3)
    written = (len(requests) * _REVIEW_TOKENS[0], len(requests) * min(_REVIEW_TOKENS[1], parameters.max_tokens))
    return Estimate(
        calls=len(requests),
        input_tokens=read,
        output_tokens=written,
        usd=None if price is None else (price.usd(read[0], written[0]), price.usd(read[1], written[1])),
        usd_at_most=None
        if price is None
        else sum(usd_at_most(request, parameters, price) or 0.0 for request in requests),
        price_source=price.source if price else "unknown",
    )


class Purse:
    """Dollars that may be spent. What a call can cost at most is set aside before it is made."""

    def __init__(self, budget: float | None, spent: float) -> None:
        self.budget = budget
        self.spent = spent
        self._aside = 0.0
        self._changed = asyncio.Condition()

    async def set_aside(self, usd: float) -> None:
        """Wait until so much is free of what others set aside. Raises BudgetReached where it never will be."""
        async with self._changed:
            while self.budget is not None and self.spent + self._aside + usd > self.budget:
                if self._aside == 0:
                    raise BudgetReached(
                        f"The budget of ${self.budget:,.2f} is reached: ${self.spent:,.4f} is spent and the next "
                        f"question could cost ${usd:,.4f}. What is judged is kept; raise --budget to go on."
                    )
                await self._changed.wait()
            self._aside += usd

    async def settle(self, aside: float, usd: float) -> None:
        """A call is over and cost this much."""
        async with self._changed:
            self._aside -= aside
            self.spent += usd
            if abs(self._aside) < 1e-12:
                self._aside = 0.0
            self._changed.notify_all()


def tokens_at_most(request: list[Message], parameters: Parameters) -> Usage:
    """No tokenizer makes more tokens than bytes."""
    size = sum(len(message["content"].encode()) + _WORDS_ABOUT for message in request)
    return Usage(input_tokens=size, output_tokens=parameters.max_tokens, stated=False)


def usd_at_most(request: list[Message], parameters: Parameters, price: Price | None) -> float | None:
    usage = tokens_at_most(request, parameters)
    return None if price is None else price.usd(usage.input_tokens, usage.output_tokens)
