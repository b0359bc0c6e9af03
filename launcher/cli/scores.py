"""How `vlaunch evaluate score` prints a pair: a table, and sentences for what no table holds. And `report`'s page."""

import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.scores import CategoryScore, PairScore
    from evaluation.worth import RunWorth


def show(pair: "PairScore") -> None:
    """Print one pair."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(title=f"{pair.candidate} against {pair.baseline}", title_justify="left")
    for heading in ("", "questions", pair.baseline, pair.candidate, "wins", "ties", "losses"):
        table.add_column(heading, overflow="fold", justify="right" if heading else "left")
    for name, each in pair.categories.items():
        table.add_row(name, str(each.questions), *_figures(each))
    table.add_section()
    table.add_row("all", str(pair.scored), *_figures(pair))
    console.print(table)
    for line in said(pair):
        console.print(line, soft_wrap=True, markup=False)
    console.print()


def _figures(each: "CategoryScore | PairScore") -> list[str]:
    totals = [f"{each.baseline_total:g}", f"{each.candidate_total:g}"]
    return [*totals, str(each.candidate_wins), str(each.ties), str(each.losses)]


def said(pair: "PairScore") -> Iterator[str]:
    """Sentences about a pair; wins, ties and losses in the table are the candidate's."""
    if pair.ratio is not None:
        yield f"{pair.candidate} has {pair.ratio:.1%} of {pair.baseline}'s points{_between(pair.ci.ratio)}"
    if pair.better_or_equal is not None:
        yield f"as good or better on {pair.better_or_equal:.1%} of the questions{_between(pair.ci.better_or_equal)}"
    if pair.position_bias is None:
        yield "position bias unknown: no question was judged in both orders"
    else:
        yield f"position bias {pair.position_bias:+.2f} points for standing first, taken out by both orders"
        yield f"both orders name the same winner on {pair.order_agreement:.1%} of the questions"
    where = ", ".join(f"{count} {place}" for place, count in sorted(pair.read_from.items()))
    yield f"{pair.reviews} reviews read from {pair.file}: {where or 'none'}; {pair.unreadable} unreadable"
    for unread in pair.unreadable_reviews:
        yield f"  question {unread.question_id}, {' then '.join(unread.shown)}: {unread.reason}"
    if pair.incomplete:
        yield f"{pair.incomplete} questions are judged in one order only and left out; judge again to complete them"
    yield f"{len(pair.differences)} stored scores differ from the text, which counts"
    for each in pair.differences:
        yield f"  question {each.question_id}: the text says {_text(each.text)}, stored is {_text(each.stored)}"
    if pair.cost.price_source or pair.cost.input_tokens:
        usd = "an unknown number of dollars" if pair.cost.usd is None else f"${pair.cost.usd:,.4f}"
        tokens = f"{pair.cost.input_tokens:,} tokens in and {pair.cost.output_tokens:,} out"
        yield f"judging cost {usd}, {tokens}; price: {pair.cost.price_source or 'unknown'}"


def _between(interval: tuple[float, float] | None) -> str:
    return f" (95% interval {interval[0]:.1%} to {interval[1]:.1%})" if interval else ""


def _text(scores: list[float]) -> str:
    return " and ".join(f"{score:g}" for score in scores)


def worth_of(pairs: "Sequence[PairScore]") -> "list[RunWorth]":
    """Scores of the runs among them beside their dollars, by this machine's ledger."""
    from launcher.ledger import Ledger, home
    from launcher.worth import worth

    return worth(pairs, Ledger(home()), datetime.datetime.now(datetime.UTC))


def show_worth(rows: "Sequence[RunWorth]") -> None:
    """Print what each run scores and what it cost."""
    from rich.console import Console
    from rich.table import Table

    from launcher.cli.tables import dollars

    table = Table(title="score against dollars of training", title_justify="left")
    for heading in ("run", "model", "against", "points a question", "ratio", "training", "judging"):
        table.add_column(
            heading, overflow="fold", justify="left" if heading in ("run", "model", "against") else "right"
        )
    for each in rows:
        table.add_row(
            each.run_id,
            each.name,
            each.against,
            "unknown" if each.mean_score is None else f"{each.mean_score:.2f}",
            "unknown" if each.ratio is None else f"{each.ratio:.1%}",
            dollars(each.usd_trained) + (" simulated" if each.simulated else ""),
            dollars(each.usd_judged),
        )
    console = Console(highlight=False)
    console.print(table)
    for source in sorted({each.price_source for each in rows}):
        console.print(f"price of training: {source}", soft_wrap=True, markup=False)


def write_page(
    target: Path,
    reviews: tuple[Path, ...],
    given: tuple[Path, ...],
    names: tuple[str, str] | None,
    questions: Path | None,
) -> int:
    """Write the page of these reviews; the number of questions on it. Raises EvaluationError."""
    from evaluation import page, scores, sets
    from evaluation import reviews as files
    from evaluation.errors import EvaluationError
    from evaluation.journal import utc_now

    paths = files.listed(reviews)
    mark, found = files.question_sets(paths), sets.load(questions)
    # Our own questions are shown only beside reviews that are about them: other sets have the same numbers.
    asked = {each.question_id: each for each in found.questions} if questions or mark == {found.mark} else {}
    about = {each.question_id: each.category for each in asked.values()}
    shown = [
        page.Shown(scores.score(found, file=str(path), baseline=pair[0], candidate=pair[1], categories=about), found)
        for path in paths
        for pair, found in files.by_pair(path, names).items()
    ]
    rows = worth_of([each.score for each in shown])
    text = page.page(shown, asked, files.answers(paths, given), rows, utc_now()[:16].replace("T", " "))
    try:
        target.write_text(text)
    except OSError as failure:
        raise EvaluationError(f"{target} cannot be written: {failure.strerror}.") from failure
    return sum(each.score.questions for each in shown)
