"""How the trainer fails."""


class TrainError(Exception):
    """The trainer cannot go on; the text is one sentence for a person."""
