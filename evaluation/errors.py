"""What this room raises for a person."""


class EvaluationError(Exception):
    """An evaluation cannot go on; the text is one sentence or two: what, where, what next. Never a secret."""
