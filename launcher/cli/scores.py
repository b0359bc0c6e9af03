"""How `vlaunch evaluate score` prints a pair: a table, and sentences for what no table holds."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.scores import CategoryScore, PairScore


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
