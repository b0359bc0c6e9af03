"""Files of reviews: which models they compare, by the reviews themselves, by an option or by the file's name."""

from collections.abc import Iterable
from pathlib import Path

from evaluation import records, scores
from evaluation.errors import EvaluationError
from evaluation.records import Answer, QuestionId, Review

Names = tuple[str, str]


def by_pair(path: Path, names: Names | None = None) -> dict[Names, list[Review]]:
    """The reviews of a file by (baseline, candidate). Raises EvaluationError where nothing says the names."""
    found: dict[Names, list[Review]] = {}
    for review in records.read(path, Review):
        pair = names or ((review.baseline, review.candidate) if review.baseline and review.candidate else None)
        found.setdefault(pair or _from_file_name(path), []).append(review)
    for pair, reviews in found.items():
        if len({review.mode for review in reviews}) > 1:
            raise EvaluationError(f"{path} judges {' and '.join(pair)} in pairs and singly; keep the two in two files.")
        if len({review.question_set for review in reviews}) > 1:
            raise EvaluationError(f"{path} mixes reviews of different question sets; keep each in a file of its own.")
    return found


def score(
    paths: list[Path], names: Names | None = None, categories: dict[QuestionId, str] | None = None
) -> list[scores.PairScore]:
    """The score of every pair in these files."""
    return [
        scores.score(reviews, file=str(path), baseline=pair[0], candidate=pair[1], categories=categories or {})
        for path in paths
        for pair, reviews in by_pair(path, names).items()
    ]


def listed(paths: Iterable[Path]) -> list[Path]:
    """These files, and of a folder every `review_*.jsonl` in it. Raises EvaluationError where there is none."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("review_*.jsonl")) if path.is_dir() else [path]
        if not inside:
            raise EvaluationError(f"{path} holds no reviews; they are called review_BASELINE_CANDIDATE.jsonl.")
        found += inside
    return found


def question_sets(paths: Iterable[Path]) -> set[str]:
    """The marks of the question sets that reviews are about; an empty one where they do not say."""
    return {review.question_set for path in paths for review in records.read(path, Review)}


def answers(paths: Iterable[Path], given: Iterable[Path] = ()) -> dict[str, Answer]:
    """Answers by their id: from these files and folders, or from answers/ beside the folder of reviews."""
    found: dict[str, Answer] = {}
    for place in list(given) or sorted({path.parent.parent / "answers" for path in paths}):
        for path in sorted(place.glob("answer_*.jsonl")) if place.is_dir() or not given else [place]:
            found |= {each.answer_id: each for each in records.answers(path).values() if each.answer_id}
    return found


def file_name(baseline: str, candidate: str) -> str:
    """What a file of reviews of two models is called."""
    return f"review_{baseline}_{candidate}.jsonl"


def _from_file_name(path: Path) -> Names:
    """`review_<baseline>_<candidate>`; a candidate may have underscores, as dates often do, a baseline may not."""
    kind, _, rest = path.stem.partition("_")
    baseline, _, candidate = rest.partition("_")
    if kind != "review" or not baseline or not candidate:
        raise EvaluationError(
            f"Nothing says which models {path} compares: name it review_BASELINE_CANDIDATE.jsonl or give "
            "--names BASELINE CANDIDATE."
        )
    return baseline, candidate
