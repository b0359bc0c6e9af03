"""How the market fails."""


class MarketError(Exception):
    """The market cannot answer; the text is one sentence for a person."""
