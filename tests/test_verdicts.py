"""What a judge wrote and what is read from it: two scores wherever they are, and nothing where they are not."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.verdicts import Unreadable, Verdict, read_pair, read_single

STATES_TWO = (
    ("8 9", (8, 9)),
    ("8/10 and 9/10", (8, 9)),
    ("8.5 9", (8.5, 9)),
    ("Assistant 1: 8, Assistant 2: 9\nbecause", (8, 9)),
    ("Assistant 2: 9, Assistant 1: 8", (8, 9)),
    ("**8 9**\ntext", (8, 9)),
    ("**8** **9**", (8, 9)),
    ("(8, 9)", (8, 9)),
    ("[8, 9]", (8, 9)),
    ("Scores: 8 9", (8, 9)),
    ("8,9", (8, 9)),
    ("8, 9", (8, 9)),
    ("\n\n 10 10 \n", (10, 10)),
    ("8 and 9 out of 10", (8, 9)),
    ("8 out of 10, 9 out of 10", (8, 9)),
    ("0 9", (0, 9)),
    ("10/10 9/10", (10, 9)),
    ("8\t9", (8, 9)),
    ("Score: 8/10, 9/10", (8, 9)),
    ("Both are good.\n\nAssistant 1: 8/10\nAssistant 2: 9/10", (8, 9)),
    ("Both are good.\n\nAssistant 2: 9/10 - fine\nAssistant 1: 8/10 - worse", (8, 9)),
    ("prose\nThe scores are (7, 10).", (7, 10)),
    ("prose about 2019 and 3 tips\n\n(7, 10)", (7, 10)),
    ("prose\n```\n(7, 10)\n```", (7, 10)),
    ("prose\nscores = (7, 10)", (7, 10)),
    ("The output tuple is: (7, 10)", (7, 10)),
    ("I would give Assistant 1 an 8 and Assistant 2 a 9.", (8, 9)),
    ("I would rate Assistant 1 8/10 and Assistant 2 9/10.", (8, 9)),
    ("I rate Assistant 2 a 9 and Assistant 1 an 8.5.", (8.5, 9)),
    ("Assistant 1 receives a score of 8, while Assistant 2 receives a 9.", (8, 9)),
    ("Assistant 1's answer receives an 8.5 due to its clarity. Assistant 2's answer gets a 9 for detail.", (8.5, 9)),
    ("I'd give a score of 8 to Assistant 1 and a score of 9 to Assistant 2.", (8, 9)),
    ("The scores for Assistant 1 and Assistant 2 are 8 and 9, respectively.", (8, 9)),
    ("The scores for Assistant 2 and Assistant 1 are 8 and 9, respectively.", (9, 8)),
    ("Assistant 1 and Assistant 2 receive scores of 8 and 9, respectively.", (8, 9)),
    ("Assistant 1 scores 8. Assistant 2 scores 9.", (8, 9)),
    ("Assistant 1 gets 8 and Assistant 2 gets 9.", (8, 9)),
    ("The score for Assistant 1 is 8. The score for Assistant 2 is 9.", (8, 9)),
    ("Assistant 1's score is 8 and Assistant 2's score is 9.", (8, 9)),
    ("## Assistant 1\nGood steps.\nScore: 8/10\n\n## Assistant 2\nBetter.\nScore: 9/10", (8, 9)),
    ("Assistant 1: Incorrect. Score: 3\nAssistant 2: Correct. Score: 10", (3, 10)),
    ("| Assistant 1 | 8 |\n| Assistant 2 | 9 |", (8, 9)),
    ("- **Assistant 1**: 8/10\n- **Assistant 2**: 9/10", (8, 9)),
    ("Reason.\n**Assistant 1: 8**\n**Assistant 2: 9**", (8, 9)),
    ("Assistant 1: 8\nAssistant 2: 9", (8, 9)),
    ("Assistant 1's score: 8\nAssistant 2's score: 9", (8, 9)),
    ("Score for Assistant 1: 8\nScore for Assistant 2: 9", (8, 9)),
    ("Assistant 1: 8 out of 10. It was right.\nAssistant 2: 9 out of 10. It was better.", (8, 9)),
    ("Scores:\n8 9\nbecause", (8, 9)),
    ("Reasoning first.\nScores: 8 9", (8, 9)),
    ("Final scores: Assistant 1: 10, Assistant 2: 2", (10, 2)),
    ("Reasoning. The final scores are: Assistant 1 - 10, Assistant 2 - 2.", (10, 2)),
    ("Assistant 1 : 8 / 10\nAssistant 2 : 9 / 10", (8, 9)),
    (
        "I solve: x = 10.\nAssistant 1: 1/10 - The answer is wrong.\n\nAssistant 2: 2/10 - Confusing. However, better.",
        (1, 2),
    ),
    ("Assistant A: 8\nAssistant B: 9", (8, 9)),
    ("\\boxed{(8, 9)}", (8, 9)),
    ("The final scores: \\boxed{8, 9}", (8, 9)),
    ("Assistant 1 deserves 8/10 for style; Assistant 2 deserves 9/10.", (8, 9)),
    ("Assistant 1 should receive a 10, as it is right. Assistant 2 should receive a 2.", (10, 2)),
    ("Assistant 1 is awarded a score of 10. Assistant 2 is awarded a score of 2.", (10, 2)),
    ("Assistant 1 gets a perfect score of 10, Assistant 2 gets a score of 4.", (10, 4)),
    ("Scores:\n\nAssistant 1: 10\n\nAssistant 2: 4\n\nAssistant 1 was right about 39.", (10, 4)),
    ("Score:\nAssistant 1 = 10\nAssistant 2 = 4", (10, 4)),
    ("The scores would be (10, 4).", (10, 4)),
    ("Thus, I give the scores (10, 4).", (10, 4)),
    ("Output: (10, 4)", (10, 4)),
    ("So the final answer: Scores (Assistant 1: 10, Assistant 2: 2)", (10, 2)),
    (
        "The tuple containing the scores for Assistant 1 and Assistant 2 is (1, 3). Assistant 2 was better.",
        (1, 3),
    ),
)

STATES_NONE = (
    "",
    "8",
    "9/10",
    "10/10",
    "8/9",
    "1. 2.",
    "1 2 3",
    "2 -2",
    "Assistant 1 gave 8 tips and Assistant 2 gave 9 tips.",
    "In 2023 there were 7 of 10.",
    "The endpoints are (2, -2) and (10, 4).",
    "The endpoints are:\n(2, 4)",
    "It is x = 10 and y = 4",
    "8-9",
    "8 - 9",
    "85 90",
    "11 12",
    "-1 5",
    "8% 9%",
    "Assistant 1: 8",
    "Assistant 1: 8\nAssistant 1: 9",
    "Assistant 1: x = 8\nAssistant 2: x = 10",
    "Assistant 1: 8 units\nAssistant 2: 10 units",
    "Assistant 1: 1. Make a list\nAssistant 2: 1. Breathe",
    "Assistant 1: 8/10\nAssistant 2: 9/10\nFinal: the scores are (7, 9).",
    "Assistant 1 receives an 8 for style and a 9 for facts. Assistant 2 receives a 7 for style and an 8 for facts.",
    "Assistant 1: 7-8\nAssistant 2: 8-9",
    "If Assistant 1 had shown its work it would get a 10. Assistant 2 gets a 9.",
    "Both assistants receive a score of 9.",
    "Assistant 1 and Assistant 2 list 8 and 9 suggestions respectively.",
    "5 8/10",
    "Question 8, category 9",
    "Score: 8",
    "2**3",
    "2*3 4*5",
    "f(2) = 5(2)^3 - 2(2) + 3",
    "Assistant 1: 80/100\nAssistant 2: 90/100",
    "Assistant 1: 8/20\nAssistant 2: 9/20",
    "The two answers score on the points (2, 4).",
    "Assistant 1 gets 8 of 10 facts right and Assistant 2 gets 9 of 10 facts right.",
    "Assistant 10: 8\nAssistant 20: 9",
    "the Assistant a 8 and the Assistant b 9",
    "8\n9",
    "I give them an 8 and a 9.",
    " 8:9",
    "eight nine",
    "10.5 9",
    "9.99.9 8",
    "Assistant 1: 8 or 9\nAssistant 2: 7 or 8",
    "1e3 2",
    "0x8 9",
    "८ ९",
    "8 9 7",
    "Helpfulness: 8/10\nAccuracy: 9/10",
)


def scores(text: str) -> tuple[float, ...] | None:
    found = read_pair(text)
    return found.scores if isinstance(found, Verdict) else None


@pytest.mark.parametrize(("text", "expected"), STATES_TWO)
def test_two_scores_are_read_wherever_the_judge_put_them(text: str, expected: tuple[float, float]) -> None:
    assert scores(text) == expected


@pytest.mark.parametrize("text", STATES_NONE)
def test_numbers_that_are_not_two_scores_are_not_read(text: str) -> None:
    assert isinstance(read_pair(text), Unreadable)


def test_a_reason_is_given_for_what_is_not_read() -> None:
    assert read_pair("  \n ") == Unreadable("empty")
    assert read_pair("Both are fine.") == Unreadable("it states no two scores")
    twice = "Assistant 1: 8/10\nAssistant 2: 9/10\nThe tuple of the scores is (8, 7)."
    assert read_pair(twice) == Unreadable("it gives different pairs of scores")


def test_a_reply_that_was_cut_off_counts_only_by_a_whole_first_line() -> None:
    assert read_pair("8 1", cut=True) == Unreadable("cut off within the first line")
    assert read_pair("8 10\nBoth answ", cut=True) == Verdict((8, 10), "first line")
    halves = "I solve it first.\nAssistant 1: 8/10\nAssistant 2: 1"
    assert isinstance(read_pair(halves, cut=True), Unreadable)


@pytest.mark.parametrize("text", ["8", "8/10\nGood.", "Score: 8", "Rating: [[8]]", "Reasons.\nScore: 8/10", "**8**"])
def test_an_answer_judged_alone_gets_one_score(text: str) -> None:
    found = read_single(text)
    assert isinstance(found, Verdict)
    assert found.scores == (8,)


@pytest.mark.parametrize("text", ["", "8 9", "11", "It has 8.", "Reasons.\nScore: 8\nScore: 9", "2. Second", "-3"])
def test_an_answer_judged_alone_gets_none_where_none_is_stated(text: str) -> None:
    assert isinstance(read_single(text), Unreadable)


NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
PIECES = (
    *("Assistant 1", "Assistant 2", "score", "Scores:", "Final ", "and", "receives a", "gives", "is", "respectively"),
    *("8", "9", "10", "8.5", "/10", " out of 10", "x = ", "In 2023", "7-8", "1."),
    *(":", " ", "\n", ",", "(", ")", "**", "|", "="),
)


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=14).map("".join)))
def test_whatever_is_read_was_written_as_two_numbers_of_the_scale(text: str) -> None:
    found = read_pair(text)
    if isinstance(found, Unreadable):
        return
    written = [float(number) for number in NUMBER.findall(re.sub(r"(?i)assistant\s*#?\s*[12]", "", text))]
    for score in found.scores:
        assert 0 <= score <= 10
        assert score in written
        written.remove(score)


WORDS = (
    *("both", "assistants", "Assistant 1", "Assistant 2", "the score", "scores", "are", "receives", "rated", "tuple:"),
    *("Scores:\n", "Assistant 1:", "Assistant 2:", "Score:", "higher than", "out of", "and", "is", "a"),
    *("\n", "(", ")", ",", "- "),
)
NOT_SCORES = (
    *("11", "39", "2023", "1,500", "1.5 million", "80/100", "7-8"),
    *("8%", "5x", "2^3", "f(2)", "8 units", "9 suggestions"),
)


@given(
    st.lists(st.one_of(st.sampled_from(WORDS), st.sampled_from(NOT_SCORES)), max_size=20),
    st.sampled_from(("", "8", "9/10", "7.5", "10 out of 10")),
    st.integers(0, 20),
)
def test_no_text_without_two_scores_yields_two(pieces: list[str], score: str, place: int) -> None:
    """At most one number of the text is a score; the rest are years, sizes, powers, ranges and counts."""
    text = " ".join([*pieces[:place], score, *pieces[place:]])
    assert isinstance(read_pair(text), Unreadable)


SCORE = st.one_of(st.integers(0, 10).map(float), st.sampled_from([7.5, 8.5, 6.25]))
FORMS = (
    "{a:g} {b:g}\nBoth answers are good, but 2 of 3 steps are missing in 2023.",
    "First, x = 10 and f(2) = 39.\n\nScores:\nAssistant 1: {a:g}\nAssistant 2: {b:g}\n\nThe answer is 39.",
    "First, x = 10.\n\nAssistant 2: {b:g}/10 (wrong)\nAssistant 1: {a:g}/10 (also wrong)\n",
    "The length from (2, -2) to (10, 4) is 10 units. The tuple containing the scores is ({a:g}, {b:g}).",
    "I would give Assistant 1 a score of {a:g} for its 3 steps, and Assistant 2 a score of {b:g}.",
    "Assistant 2's answer receives a {b:g}, while Assistant 1's answer receives a {a:g}.",
)


@given(SCORE, SCORE, st.sampled_from(FORMS))
def test_stated_scores_are_read_in_the_order_shown(a: float, b: float, form: str) -> None:
    assert scores(form.format(a=a, b=b)) == (a, b)


def test_every_published_review_is_read_and_no_explanation_contradicts_its_first_line(shared: Path) -> None:
    read = 0
    for path in sorted((shared / "evaluation" / "reviews-7b").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            review = json.loads(line)
            found = read_pair(review["text"])
            assert isinstance(found, Verdict), review["text"]
            assert (found.where == "first line") == (review["question_id"] not in (68, 69, 70))
            explained = read_pair(review["text"].partition("\n")[2])
            assert not isinstance(explained, Verdict) or explained.scores == found.scores
            read += 1
    assert read == 320
