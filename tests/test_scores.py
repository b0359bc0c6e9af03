"""From reviews to totals, wins, bias and intervals."""

import json
import random
from pathlib import Path

import pytest

from evaluation import records, reviews
from evaluation.errors import EvaluationError
from evaluation.records import Review
from evaluation.scores import PairScore, score

BASELINE, CANDIDATE = "before", "after"
FORWARD, BACKWARD = (BASELINE, CANDIDATE), (CANDIDATE, BASELINE)


def review(question: int, first: float, second: float, shown: tuple[str, str] = FORWARD, **about: object) -> Review:
    text = f"{first:g} {second:g}\nBoth were judged."
    return Review(question_id=question, **{"text": text, "shown": list(shown), **about})  # type: ignore[arg-type]


def scored(found: list[Review]) -> PairScore:
    return score(found, file="a file", baseline=BASELINE, candidate=CANDIDATE, categories={})


def test_totals_wins_and_losses_are_counted_for_the_candidate() -> None:
    found = scored([review(1, 8, 9), review(2, 7, 7), review(3, 9, 4.5), review(4, 5, 6)])
    assert (found.baseline_total, found.candidate_total) == (29, 26.5)
    assert (found.candidate_wins, found.ties, found.losses) == (2, 1, 1)
    assert found.better_or_equal == 0.75
    assert found.ratio == pytest.approx(26.5 / 29)
    assert found.position_bias is None


def test_a_question_judged_in_both_orders_counts_with_the_mean() -> None:
    found = scored([review(1, 8, 9), review(1, 7, 9, BACKWARD)])
    assert (found.questions, found.scored, found.reviews) == (1, 1, 2)
    assert (found.baseline_total, found.candidate_total) == (8.5, 8)
    assert found.order_agreement == 0


def test_what_cannot_be_read_is_left_out_whole_and_listed() -> None:
    half = [
        review(1, 8, 9),
        review(1, 9, 8, BACKWARD, text="Both are good."),
        review(2, 5, 6),
        review(2, 7, 5, BACKWARD),
    ]
    found = scored(half)
    assert (found.scored, found.unreadable) == (1, 1)
    assert (found.baseline_total, found.candidate_total) == (5, 6.5)
    assert found.unreadable_reviews[0].question_id == 1
    assert found.unreadable_reviews[0].reason == "it states no two scores"


def test_a_question_judged_in_one_order_only_is_left_out_where_others_have_both() -> None:
    found = scored([review(1, 8, 9), review(1, 9, 8, BACKWARD), review(2, 1, 10)])
    assert (found.scored, found.incomplete) == (1, 1)
    assert found.baseline_total == 8


def test_of_a_question_asked_again_the_last_reply_counts() -> None:
    found = scored([review(1, 0, 0, text="Hm."), review(1, 8, 9, attempt=2)])
    assert (found.reviews, found.unreadable, found.asked_again) == (1, 0, 1)
    assert found.cost.calls == 2


def test_a_stored_score_that_the_text_does_not_say_is_listed_and_does_not_count() -> None:
    found = scored([review(1, 8, 9, score=[8, 9]), review(2, 8, 9, score=[9, 9])])
    assert found.baseline_total == 16
    assert [(each.question_id, each.text, each.stored) for each in found.differences] == [(2, [8, 9], [9, 9])]


def test_a_question_judged_twice_in_the_same_order_is_refused() -> None:
    with pytest.raises(EvaluationError, match="judges question 1 twice"):
        scored([review(1, 8, 9), review(1, 8, 9)])


def test_answers_judged_singly_are_paired_by_question() -> None:
    alone = [
        Review(question_id=question, text=f"{points}\nGood.", mode="single", shown=[name])
        for question, name, points in ((1, BASELINE, 5), (1, CANDIDATE, 7), (2, BASELINE, 8), (2, CANDIDATE, 8))
    ]
    found = scored(alone)
    assert (found.baseline_total, found.candidate_total, found.candidate_wins, found.ties) == (13, 15, 1, 1)
    assert found.position_bias is None


def test_judging_both_orders_takes_out_a_point_that_a_judge_adds_to_the_first() -> None:
    draw = random.Random(7)
    true = {question: (draw.randint(2, 8), draw.randint(2, 8)) for question in range(80)}
    forward = [review(question, a + 1, b) for question, (a, b) in true.items()]
    backward = [review(question, b + 1, a, BACKWARD) for question, (a, b) in true.items()]
    wins = sum(b > a for a, b in true.values())
    losses = sum(b < a for a, b in true.values())
    difference = sum(b - a for a, b in true.values())

    one = scored(forward)
    both = scored(forward + backward)

    assert one.candidate_total - one.baseline_total == difference - 80
    assert one.candidate_wins < wins
    assert both.candidate_total - both.baseline_total == difference
    assert (both.candidate_wins, both.losses) == (wins, losses)
    assert both.position_bias == 1
    assert both.ci.position_bias == (1, 1)


def test_a_judge_without_bias_shows_none() -> None:
    draw = random.Random(8)
    true = {question: (draw.randint(1, 10), draw.randint(1, 10)) for question in range(80)}
    orders = [review(q, a, b) for q, (a, b) in true.items()] + [review(q, b, a, BACKWARD) for q, (a, b) in true.items()]
    found = scored(orders)
    assert found.position_bias == 0
    assert found.order_agreement == 1


def test_intervals_hold_the_figure_and_are_the_same_for_the_same_reviews() -> None:
    draw = random.Random(9)
    found = [review(question, draw.randint(1, 10), draw.randint(1, 10)) for question in range(40)]
    first, second = scored(found), scored(found)
    assert first.ci == second.ci
    assert first.ratio is not None
    assert first.ci.ratio is not None
    assert first.ci.ratio[0] < first.ratio < first.ci.ratio[1]
    assert scored(found[:1]).ci.ratio is None


def test_names_come_from_the_reviews_then_an_option_then_the_file(tmp_path: Path) -> None:
    bare = tmp_path / "review_llama-13b_vicuna-7b_20230322.jsonl"
    bare.write_text(json.dumps({"question_id": 1, "text": "8 9"}) + "\n")
    assert list(reviews.by_pair(bare)) == [("llama-13b", "vicuna-7b_20230322")]
    assert list(reviews.by_pair(bare, ("a", "b"))) == [("a", "b")]
    ours = tmp_path / "mine.jsonl"
    ours.write_text(json.dumps({"question_id": 1, "text": "8 9", "baseline": "x", "candidate": "y"}) + "\n")
    assert list(reviews.by_pair(ours)) == [("x", "y")]
    nameless = tmp_path / "judged.jsonl"
    nameless.write_bytes(bare.read_bytes())
    with pytest.raises(EvaluationError, match="Nothing says which models"):
        reviews.by_pair(nameless)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"question_id": 1}\n', "line 1 is not a review: Object missing required field `text`"),
        ('{"question_id": 1, "text": "8 9"}\n{"question_id"', "line 2 is not a review"),
        ("\n", "holds no review"),
        ('{"question_id": 1, "text": "\\ud800"}\n', "line 1 is not a review"),
    ],
)
def test_a_file_that_is_not_of_reviews_is_said_with_its_line(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "review_a_b.jsonl"
    path.write_text(content)
    with pytest.raises(EvaluationError, match=sentence):
        reviews.score([path])


def test_the_published_reviews_add_up_to_their_stored_scores(shared: Path) -> None:
    """In these four files every stored score is what the text says."""
    folder = shared / "evaluation"
    categories = {each.question_id: each.category for each in records.questions(folder / "blog_questions.jsonl")}
    pairs = reviews.score(reviews.listed([folder / "reviews-7b"]), None, categories)
    assert len(pairs) == 4
    for pair in pairs:
        stored = [json.loads(line)["score"] for line in Path(pair.file).read_text().splitlines()]
        assert (pair.baseline_total, pair.candidate_total) == tuple(map(sum, zip(*stored, strict=True)))
        assert (pair.scored, pair.unreadable, pair.differences) == (80, 0, [])
        assert sum(each.questions for each in pair.categories.values()) == 80
        assert Path(pair.file).name == reviews.file_name(pair.baseline, pair.candidate)
