"""Which failures of which room are a sentence for the person, and which are ours to fix (a traceback)."""

from checkpoints.stores.protocol import StoreError
from conversations.errors import ConversationsError
from evaluation.errors import EvaluationError
from launcher.errors import VlaunchError
from market.errors import MarketError

SENTENCES = (VlaunchError, StoreError, MarketError, EvaluationError, ConversationsError)


def sentence(failure: Exception) -> str | None:
    """The text to show for `failure`, or None where it is a bug."""
    return str(failure) if isinstance(failure, SENTENCES) else None
