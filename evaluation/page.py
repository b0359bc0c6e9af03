"""The comparison as one self-contained page: totals, a bar for each pair, scores against dollars, and every question
with both answers and the judge's words, filtered in the browser. Pure: text out of scores, reviews and answers.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import msgspec

from evaluation import drawing
from evaluation.records import Answer, Question, QuestionId, Review
from evaluation.scores import PairScore, read_review, readings
from evaluation.verdicts import Verdict
from evaluation.worth import RunWorth

_STYLE = (Path(__file__).parent / "page.css").read_text()
_SCRIPT = (Path(__file__).parent / "page.js").read_text()


class Shown(msgspec.Struct, frozen=True):
    """One pair with all that is shown of it."""

    score: PairScore
    reviews: Sequence[Review]


def page(
    pairs: Sequence[Shown],
    questions: Mapping[QuestionId, Question],
    answers: Mapping[str, Answer],
    worth: Sequence[RunWorth],
    made_at: str,
) -> str:
    """The whole HTML document."""
    scores = [pair.score for pair in pairs]
    body = [
        "<header><h1>Which model is better</h1>",
        f'<p class="soft">Comparisons: {len(pairs)}. Written {escape(made_at)} UTC.</p></header>',
        "<h2>Wins, ties and losses</h2>",
        drawing.outcomes(scores),
        _totals(scores),
        _categories(scores),
        _worth(worth),
        _filters(pairs, questions),
        '<div id="questions">',
        *(_question(pair, each, questions, answers) for pair in pairs for each in _by_question(pair)),
        '</div><p id="none" class="soft" hidden>No question is left by these filters.</p>',
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Which model is better</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>{''.join(body)}<script>{_SCRIPT}</script></body></html>\n"
    )


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int, name: str) -> str:
    """The first `text_columns` columns are text, the others numbers."""

    def cells(values: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=n' if index >= text_columns else ''}>{escape(value)}</{tag}>"
            for index, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    head = f"<thead><tr>{cells(headings, 'th')}</tr></thead>"
    return f'<div class="scroll"><table id="{name}">{head}<tbody>{body}</tbody></table></div>'


def _totals(scores: Sequence[PairScore]) -> str:
    headings = (
        *("candidate", "baseline", "candidate's points", "baseline's points", "ratio", "95% interval"),
        *("won", "tied", "lost", "as good or better", "position bias", "questions", "unreadable", "judging cost"),
    )
    rows = (
        (
            each.candidate, each.baseline, f"{each.candidate_total:g}", f"{each.baseline_total:g}", _share(each.ratio),
            " to ".join(f"{end:.1%}" for end in each.ci.ratio or ()) or "unknown",
            str(each.candidate_wins), str(each.ties), str(each.losses), _share(each.better_or_equal),
            "unknown" if each.position_bias is None else f"{each.position_bias:+.2f}", str(each.scored),
            str(each.unreadable), _dollars(each.cost.usd),
        )
        for each in scores
    )  # fmt: skip
    sources = sorted({each.cost.price_source for each in scores if each.cost.price_source})
    note = f'<p class="soft">Price of judging: {escape("; ".join(sources))}.</p>' if sources else ""
    return "<h2>Totals</h2>" + _table(headings, rows, 2, "totals") + note


def _categories(scores: Sequence[PairScore]) -> str:
    rows = [
        (
            score.candidate, score.baseline, name, str(each.questions), f"{each.candidate_total:g}",
            f"{each.baseline_total:g}", str(each.candidate_wins), str(each.ties), str(each.losses),
        )
        for score in scores
        for name, each in score.categories.items()
    ]  # fmt: skip
    headings = ("candidate", "baseline", "category", "questions", "candidate's points", "baseline's points")
    if not rows:
        return ""
    table = _table((*headings, "won", "tied", "lost"), rows, 3, "categories")
    return f"<details><summary>By category</summary>{table}</details>"


def _worth(worth: Sequence[RunWorth]) -> str:
    if not worth:
        return ""
    rows = (
        (
            each.run_id, each.name, each.against, _number(each.mean_score), _share(each.ratio),
            _dollars(each.usd_trained) + (" simulated" if each.simulated else ""), _dollars(each.usd_judged),
        )
        for each in worth
    )  # fmt: skip
    headings = ("run", "model", "against", "points a question", "ratio", "training", "judging")
    sources = "; ".join(sorted({each.price_source for each in worth}))
    return (
        f"<h2>Score against dollars of training</h2>{drawing.worth(worth)}{_table(headings, rows, 3, 'worth')}"
        f'<p class="soft">Price of training: {escape(sources)}.</p>'
    )


def _filters(pairs: Sequence[Shown], questions: Mapping[QuestionId, Question]) -> str:
    names = [f"{each.score.candidate} against {each.score.baseline}" for each in pairs]
    categories = list(dict.fromkeys(each.category for each in questions.values() if each.category))
    outcomes = ["won", "tied", "lost", "not counted"]

    def choice(name: str, values: Sequence[str], every: str) -> str:
        options = "".join(f'<option value="{escape(value)}">{escape(value)}</option>' for value in values)
        options = f'<option value="">{every}</option>{options}'
        return f'<label>{name.capitalize()} <select id="{name}">{options}</select></label>'

    return (
        '<h2>Questions</h2><form id="filters">'
        + choice("comparison", names, "all")
        + choice("category", categories, "all")
        + choice("outcome", outcomes, "any")
        + '<label>Words <input id="words" type="search" placeholder="in question, answer or review"></label></form>'
        '<p class="soft"><output id="count"></output></p>'
    )


def _by_question(pair: Shown) -> list[list[Review]]:
    found: dict[QuestionId, list[Review]] = {}
    for each in readings(pair.reviews, pair.score.baseline, pair.score.candidate, pair.score.file):
        review = msgspec.structs.replace(each.review, shown=list(each.shown))
        found.setdefault(review.question_id, []).append(review)
    return list(found.values())


def _question(
    pair: Shown,
    reviews: Sequence[Review],
    questions: Mapping[QuestionId, Question],
    answers: Mapping[str, Answer],
) -> str:
    score, number = pair.score, reviews[0].question_id
    question = questions.get(number)
    category = reviews[0].category or (question.category if question else "")
    outcome = score.outcomes.get(str(number), "not counted")
    asked = "\n\n".join(question.asks) if question else f"Question {number}; its text is not at hand."
    comparison = f"{score.candidate} against {score.baseline}"
    about = f'data-comparison="{escape(comparison)}"'
    about += f' data-category="{escape(category)}" data-outcome="{outcome}"'
    judged = {name: answer for each in reviews for name, answer in _judged_answers(each).items()}
    sides = "".join(
        f"<section><h4>{escape(name)}</h4>{_said(answers.get(judged.get(name, '')))}</section>"
        for name in (score.baseline, score.candidate)
    )
    words = "".join(_review(each) for each in reviews)
    said = f"{category} · {comparison}" if category else comparison
    return (
        f'<details class="question" {about}><summary><span class="mark {outcome.split()[0]}">{outcome}</span> '
        f"<b>{escape(str(number))}</b> {escape(asked)} <small>{escape(said)}</small></summary>"
        f'<div class="sides">{sides}</div>{words}</details>'
    )


def _judged_answers(review: Review) -> dict[str, str]:
    """The ids of the very answers that were judged, by the model's name."""
    return review.answers or dict(zip(review.shown, (review.answer1_id, review.answer2_id), strict=False))


def _said(answer: Answer | None) -> str:
    if answer is None:
        return '<p class="soft">This answer is not at hand.</p>'
    cut = '<p class="soft">Cut off at its limit of tokens.</p>' if "length" in answer.finish_reasons else ""
    return "".join(f'<div class="text">{escape(turn) or "(empty)"}</div>' for turn in answer.says) + cut


def _review(review: Review) -> str:
    verdict = read_review(review)
    if isinstance(verdict, Verdict):
        given = ", ".join(f"{name} {points:g}" for name, points in zip(review.shown, verdict.scores, strict=True))
    else:
        given = f"not readable: {verdict.reason}"
    words = f'<div class="text">{escape(review.text)}</div>'
    return f'<section class="review"><h4>Judge: {escape(given)}</h4>{words}</section>'


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _dollars(usd: float | None) -> str:
    return "unknown" if usd is None else f"${usd:,.2f}"
