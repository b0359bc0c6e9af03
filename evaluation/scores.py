"""Reviews to scores: totals, wins, position bias, intervals, agreement, cost. Reads no clock, disk or network.

A question that was judged in both orders counts with the mean of its two reviews, which takes out what a judge gives
for standing first. A question counts only when every review of it could be read; the others are listed, never filled
in.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import msgspec

from evaluation.errors import EvaluationError
from evaluation.records import Mode, QuestionId, Review
from evaluation.verdicts import Unreadable, Verdict, read_pair, read_single

RESAMPLES = 2000
_LEVEL = 0.95


class Interval(msgspec.Struct, kw_only=True):
    """Bootstrap intervals over questions; null where there are fewer than two."""

    level: float = _LEVEL
    resamples: int = RESAMPLES
    ratio: tuple[float, float] | None = None
    mean_difference: tuple[float, float] | None = None
    better_or_equal: tuple[float, float] | None = None
    position_bias: tuple[float, float] | None = None


class CategoryScore(msgspec.Struct, kw_only=True):
    """One category of a pair."""

    questions: int
    baseline_total: float
    candidate_total: float
    candidate_wins: int
    ties: int
    losses: int


class Difference(msgspec.Struct, kw_only=True):
    """A review whose text says something else than the score stored beside it."""

    question_id: QuestionId
    text: list[float]
    stored: list[float]


class Unread(msgspec.Struct, kw_only=True):
    """A review that could not be read."""

    question_id: QuestionId
    shown: list[str]
    reason: str


class Cost(msgspec.Struct, kw_only=True):
    """What the reviews of a pair cost. Dollars are null where a price is not known."""

    calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    price_source: str


class PairScore(msgspec.Struct, kw_only=True):
    """One baseline against one candidate. Wins, ties and losses are the candidate's."""

    file: str
    baseline: str
    candidate: str
    mode: Mode
    judge: str
    questions: int
    scored: int
    incomplete: int
    """Judged in one order only where others were judged in both."""
    unreadable: int
    reviews: int
    baseline_total: float
    candidate_total: float
    ratio: float | None
    """Candidate's total over the baseline's; null where that is 0."""
    candidate_wins: int
    ties: int
    losses: int
    better_or_equal: float | None
    position_bias: float | None
    """Points that the answer shown first gets for that; null where no question was judged in both orders."""
    order_agreement: float | None
    """Share of questions that have the same winner in both orders."""
    ci: Interval
    categories: dict[str, CategoryScore]
    read_from: dict[str, int]
    asked_again: int
    differences: list[Difference]
    unreadable_reviews: list[Unread]
    cost: Cost
    runs: dict[str, str]
    outcomes: dict[str, str]
    """Of the candidate by question: won, tied or lost; a question that does not count is not here."""


class Reading(msgspec.Struct, frozen=True):
    """A review, which question and order it is about, and what its text says."""

    review: Review
    shown: tuple[str, ...]
    verdict: Verdict | Unreadable

    def of(self, name: str) -> float:
        """The score of `name`."""
        assert isinstance(self.verdict, Verdict)
        return self.verdict.scores[self.shown.index(name)]


class Judged(msgspec.Struct, frozen=True):
    """A question that counts."""

    question_id: QuestionId
    category: str
    baseline: float
    candidate: float
    first_over_second: float | None
    """By how much the one shown first beat the other, over both orders."""
    agree: bool | None

    @property
    def difference(self) -> float:
        """Above 0 where the candidate won."""
        return self.candidate - self.baseline


def readings(reviews: Iterable[Review], baseline: str, candidate: str, file: str) -> list[Reading]:
    """The reviews that count, read: of a question asked again, the last. Raises EvaluationError where the same
    question was judged twice in the same order."""
    found: dict[tuple[QuestionId, tuple[str, ...]], Review] = {}
    for review in reviews:
        key = (review.question_id, tuple(review.shown) or (baseline, candidate))
        if key in found and found[key].attempt >= review.attempt:
            raise EvaluationError(
                f"{file} judges question {review.question_id} twice; which one counts cannot be known, remove one."
            )
        found[key] = review
    return [Reading(review, shown, read_review(review)) for (_, shown), review in found.items()]


def read_review(review: Review) -> Verdict | Unreadable:
    """What its text says."""
    return (read_single if review.mode == "single" else read_pair)(review.text, cut=review.cut)


def score(
    reviews: Sequence[Review], *, file: str, baseline: str, candidate: str, categories: dict[QuestionId, str]
) -> PairScore:
    """The score of one pair; `categories` for reviews that do not say theirs."""
    read = readings(reviews, baseline, candidate, file)
    questions: dict[QuestionId, list[Reading]] = {}
    for each in read:
        questions.setdefault(each.review.question_id, []).append(each)
    needed = 2 if reviews[0].mode == "single" else max(len(group) for group in questions.values())
    judged = [
        _judged(group, baseline, candidate, categories)
        for group in questions.values()
        if len(group) == needed and all(isinstance(each.verdict, Verdict) for each in group)
    ]
    wins, ties, losses = _outcomes(judged)
    unread = [each for each in read if isinstance(each.verdict, Unreadable)]
    return PairScore(
        file=file,
        baseline=baseline,
        candidate=candidate,
        mode=reviews[0].mode,
        judge=", ".join(sorted({review.judge for review in reviews if review.judge})),
        questions=len(questions),
        scored=len(judged),
        incomplete=sum(len(group) < needed for group in questions.values()),
        unreadable=len(unread),
        reviews=len(read),
        baseline_total=sum(each.baseline for each in judged),
        candidate_total=sum(each.candidate for each in judged),
        ratio=_ratio(judged),
        candidate_wins=wins,
        ties=ties,
        losses=losses,
        better_or_equal=_better_or_equal(judged),
        position_bias=_bias(judged),
        order_agreement=_mean([float(each.agree) for each in judged if each.agree is not None]),
        ci=_intervals(judged),
        categories=_by_category(judged),
        read_from=dict(Counter(each.verdict.where for each in read if isinstance(each.verdict, Verdict))),
        asked_again=sum(review.attempt > 1 for review in reviews),
        differences=_differences(read),
        unreadable_reviews=[
            Unread(question_id=each.review.question_id, shown=list(each.shown), reason=each.verdict.reason)
            for each in unread
            if isinstance(each.verdict, Unreadable)
        ],
        cost=_cost(reviews),
        runs={name: run for review in reviews for name, run in review.runs.items()},
        outcomes={
            str(each.question_id): "won" if each.difference > 0 else "lost" if each.difference < 0 else "tied"
            for each in judged
        },
    )


def _judged(group: list[Reading], baseline: str, candidate: str, categories: dict[QuestionId, str]) -> Judged:
    about = group[0].review
    category = about.category or categories.get(about.question_id, "")
    if about.mode == "single":
        by_name = {each.shown[0]: each.of(each.shown[0]) for each in group}
        return Judged(about.question_id, category, by_name[baseline], by_name[candidate], None, None)
    differences = [each.of(candidate) - each.of(baseline) for each in group]
    both = len(group) > 1
    return Judged(
        about.question_id,
        category,
        sum(each.of(baseline) for each in group) / len(group),
        sum(each.of(candidate) for each in group) / len(group),
        sum(each.of(each.shown[0]) - each.of(each.shown[1]) for each in group) / len(group) if both else None,
        len({(difference > 0) - (difference < 0) for difference in differences}) == 1 if both else None,
    )


def _outcomes(judged: Sequence[Judged]) -> tuple[int, int, int]:
    wins = sum(each.difference > 0 for each in judged)
    losses = sum(each.difference < 0 for each in judged)
    return wins, len(judged) - wins - losses, losses


def _ratio(judged: Sequence[Judged]) -> float | None:
    total = sum(each.baseline for each in judged)
    return sum(each.candidate for each in judged) / total if total else None


def _better_or_equal(judged: Sequence[Judged]) -> float | None:
    return _mean([float(each.difference >= 0) for each in judged])


def _bias(judged: Sequence[Judged]) -> float | None:
    return _mean([each.first_over_second for each in judged if each.first_over_second is not None])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _intervals(judged: Sequence[Judged]) -> Interval:
    """Percentile bootstrap over questions; the same for the same reviews."""
    if len(judged) < 2:
        return Interval()
    draw = random.Random(0)
    drawn = [draw.choices(judged, k=len(judged)) for _ in range(RESAMPLES)]

    def between(of: Callable[[Sequence[Judged]], float | None]) -> tuple[float, float] | None:
        values = sorted(value for sample in drawn if (value := of(sample)) is not None)
        cut = int((1 - _LEVEL) / 2 * len(values))
        return (values[cut], values[-1 - cut]) if values else None

    return Interval(
        ratio=between(_ratio),
        mean_difference=between(lambda sample: _mean([each.difference for each in sample])),
        better_or_equal=between(_better_or_equal),
        position_bias=between(_bias),
    )


def _by_category(judged: Sequence[Judged]) -> dict[str, CategoryScore]:
    groups: dict[str, list[Judged]] = {}
    for each in judged:
        if each.category:
            groups.setdefault(each.category, []).append(each)
    found = {}
    for name, group in groups.items():
        wins, ties, losses = _outcomes(group)
        found[name] = CategoryScore(
            questions=len(group),
            baseline_total=sum(each.baseline for each in group),
            candidate_total=sum(each.candidate for each in group),
            candidate_wins=wins,
            ties=ties,
            losses=losses,
        )
    return found


def _differences(read: Sequence[Reading]) -> list[Difference]:
    """Where a score is stored that the text does not say."""
    return [
        Difference(question_id=each.review.question_id, text=list(each.verdict.scores), stored=list(each.review.score))
        for each in read
        if isinstance(each.verdict, Verdict)
        and each.review.score is not None
        and tuple(each.review.score) != each.verdict.scores
    ]


def _cost(reviews: Sequence[Review]) -> Cost:
    used = [review.usage for review in reviews if review.usage is not None]
    known = len(used) == len(reviews) and all(review.usd is not None for review in reviews)
    return Cost(
        calls=len(reviews),
        input_tokens=sum(usage.input_tokens for usage in used),
        output_tokens=sum(usage.output_tokens for usage in used),
        usd=sum(review.usd or 0.0 for review in reviews) if known else None,
        price_source="; ".join(sorted({review.price.source for review in reviews if review.price is not None})),
    )
