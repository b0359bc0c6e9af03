"""Which questions: our own, or a file; with the mark by which answers and reviews know their set."""

import hashlib
from pathlib import Path

import msgspec

from evaluation import records
from evaluation.records import Question

OWN = Path(__file__).parent / "questions-v1.jsonl"


class QuestionSet(msgspec.Struct, frozen=True):
    """Questions in order, and the set's mark: the file's name and a checksum of its content."""

    mark: str
    questions: list[Question]


def load(path: Path | None = None, categories: tuple[str, ...] = (), limit: int | None = None) -> QuestionSet:
    """The questions of a file, or our own; only these categories and only so many where that is asked.

    Raises EvaluationError where the file cannot be read or nothing is left.
    """
    path = path or OWN
    found = [each for each in records.questions(path) if not categories or each.category in categories][:limit]
    if not found:
        from evaluation.errors import EvaluationError

        raise EvaluationError(f"{path} has no question of {', '.join(categories)}.")
    return QuestionSet(f"{path.stem}-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}", found)
